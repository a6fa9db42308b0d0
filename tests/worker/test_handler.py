"""What a worker does before its first job."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from hepamap.detection import DetectionRequest, Detector, check_request
from hepamap.errors import CancelledError
from hepamap.jobs.job import Question
from hepamap.jobs.runner import JobContext
from hepamap.jobs.store import JobStore
from hepamap.model_pack import find_pack
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from tests.packs import write_network_pack


def test_a_model_that_cannot_be_loaded_is_trouble(tmp_path: Path) -> None:
    write_network_pack(tmp_path / "models", "whole-5x", bias=(0.0, 2.0))
    damaged = write_network_pack(tmp_path / "models", "damaged-5x", bias=(0.0, 2.0))
    weights = next(damaged.folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    handlers = [DetectionHandler(Detector(tmp_path / "models"), tmp_path, tmp_path) for _ in range(2)]
    handlers[0].warm_up("whole-5x")
    handlers[1].warm_up("damaged-5x")
    assert handlers[0].trouble is None
    assert handlers[1].trouble == "the model damaged-5x could not be loaded (pack_damaged)"


def test_a_model_that_was_mended_is_no_trouble_any_more(settings: Settings, slide: Path, tmp_path: Path) -> None:
    """And only that one: what another model answers says nothing about it."""
    for name in ("mended-5x", "other-5x"):
        write_network_pack(settings.models_dir, name, bias=(0.0, 2.0))
    weights = next((settings.models_dir / "mended-5x").rglob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    handler = DetectionHandler(Detector(settings.models_dir), settings.results_dir, settings.scratch_dir)
    handler.warm_up("mended-5x")
    weights.write_bytes(whole)
    with closing(JobStore.open(tmp_path / "jobs.sqlite3")) as store:
        for model, troubled in (("other-5x", True), ("mended-5x", False)):
            asked = DetectionRequest(slide, model=model, stride_m=64)
            # As a server gives it to a worker: with the version.
            detection = check_request(asked, settings.models_dir).pinned(asked)
            assert detection.model == find_pack(settings.models_dir, model).name != model
            store.submit(Question(kind="analysis", key=model, work={"detection": detection.to_json()}, payload={}))
            work = store.claim()
            assert work is not None
            handler(work, JobContext(report=lambda progress: None, cancelled=lambda: False))
            assert (handler.trouble is not None) == troubled


def test_one_model_is_in_memory(tmp_path: Path) -> None:
    packs = [write_network_pack(tmp_path, name, bias=bias) for name, bias in (("a-5x", (0.0, 2.0)), ("b-5x", (2.0, 0.0)))]
    detector = Detector(tmp_path)
    first = detector.predictor(packs[0])
    assert detector.predictor(packs[0]) is first
    detector.predictor(packs[1])
    assert detector.predictor(packs[0]) is not first


@pytest.mark.parametrize("stage", ["loading the model", "writing"])
def test_a_cancel_is_heard_before_what_cannot_be_interrupted(settings: Settings, slide: Path, tmp_path: Path, stage: str) -> None:
    write_network_pack(settings.models_dir, "whole-5x", bias=(0.0, 2.0))
    detector = Detector(settings.models_dir)
    handler = DetectionHandler(detector, settings.results_dir, settings.scratch_dir)
    detection = DetectionRequest(slide, model="whole-5x", stride_m=64).to_json()
    seen: list[str] = []
    context = JobContext(report=lambda progress: seen.append(progress.stage), cancelled=lambda: seen[-1] == stage)
    with closing(JobStore.open(tmp_path / "jobs.sqlite3")) as store:
        store.submit(Question(kind="analysis", key="k", work={"detection": detection}, payload={}))
        work = store.claim()
    assert work is not None
    with pytest.raises(CancelledError):
        handler(work, context)
    assert seen[-1] == stage
    assert (detector._loaded is None) == (stage == "loading the model")
    assert not settings.results_dir.exists() or not list(settings.results_dir.iterdir())
