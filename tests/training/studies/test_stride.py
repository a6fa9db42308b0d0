from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.errors import ParameterError, SlideDamagedError, SlideNotFoundError, StrideInvalidError
from hepamap.model_pack import find_pack, rewrite_manifest
from hepamap.results import open_result
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import AnnotationNotFoundError, CohortInvalidError
from hepamap.training.evaluate import SlideScore, judge_map
from hepamap.training.studies import stride as module
from hepamap.training.studies.stride import cases_of, study_stride
from tests.packs import write_network_pack
from tests.training.conftest import box, feature, toy_pixels, write_slide

pytestmark = pytest.mark.usefixtures("thin_networks")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    models = tmp_path_factory.mktemp("models")
    pack = write_network_pack(models, "tiny-5x")
    manifest = pack.folder / "model.json"
    body = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**body, "modes": ["patch", "dense"]}), encoding="utf-8")
    return Detector(models, "float32")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[CohortSlide]:
    """One small slide: tumour on the left, non-tumour on the right."""
    folder = tmp_path_factory.mktemp("slides")
    slide = write_slide(folder / "s3.tif", toy_pixels(3)[:256, 192:448])
    drawn = [("Tumor", box(0, 0, 128, 256)), ("Non-tumor", box(128, 0, 256, 256))]
    features = [feature([ring], classification={"name": name}) for name, ring in drawn]
    annotations = folder / "s3.geojson"
    annotations.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return [CohortSlide(slide, annotations, "one", "test")]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_stride_and_mode_that_can_be(slides: list[CohortSlide], detector: Detector) -> None:
    cases = cases_of(slides, ["tiny-5x"], detector)
    assert [case.key[1:3] for case in cases] == [
        (mode, stride) for mode in ("patch", "dense") for stride in ("64", "48", "32", "16", "8")
    ]
    some = cases_of(slides, ["tiny-5x"], detector, strides=[64, 16], modes=["dense"])
    assert [case.key[1:3] for case in some] == [("dense", "64"), ("dense", "16")]


def detected(slide: CohortSlide, detector: Detector, stride_m: int, mode: str, out: Path) -> SlideScore:
    """Of a run as a user would make it."""
    summary = detect(DetectionRequest(slide.slide, "tiny-5x", stride_m=stride_m, mode=mode), out, detector)
    return judge_map(slide, "tiny-5x", open_result(out).map, summary.result["parameters"], summary.outcome, 0.0).score


def test_scores_are_those_of_the_pipeline(slides: list[CohortSlide], detector: Detector, tmp_path: Path) -> None:
    study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64, 32])
    rows = table(tmp_path)
    assert [(row["mode"], row["stride"], row["overlap"]) for row in rows] == [
        ("patch", "64", "0.000"), ("patch", "32", "0.500"), ("dense", "64", "0.000"), ("dense", "32", "0.500"),
    ]  # fmt: skip
    for row in rows:
        stride_m, mode = int(row["stride"]), row["mode"]
        score = detected(slides[0], detector, stride_m, mode, tmp_path / f"{mode}-{stride_m}")
        assert row["auc"] == f"{score.auc:.4f}"
        assert row["iou"] == f"{score.iou:.4f}"
        assert row["sensitivity"] == f"{score.sensitivity:.4f}"
        assert float(row["seconds"]) > 0
    assert {"stride.csv", "stride.md", "stride.png"} <= {path.name for path in tmp_path.iterdir()}


def test_it_goes_on_where_it_was_stopped(
    slides: list[CohortSlide], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    real = module._run

    def spy(case: Any, *arguments: Any) -> Any:
        calls.append(case.key[1:3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(case, *arguments)

    monkeypatch.setattr(module, "_run", spy)
    with pytest.raises(KeyboardInterrupt):
        study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64, 48], modes=["patch"])
    study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64, 48], modes=["patch"])
    assert calls == [("patch", "64"), ("patch", "48"), ("patch", "48")]
    # Other annotations are other inputs: what was measured before is no answer, and no part of the report.
    copy = tmp_path / slides[0].annotations.name
    copy.write_bytes(slides[0].annotations.read_bytes() + b"\n")
    study_stride([replace(slides[0], annotations=copy)], ["tiny-5x"], detector, tmp_path, strides=[64], modes=["patch"])
    assert calls[3:] == [("patch", "64")]
    assert len(table(tmp_path)) == 3
    assert "| 48 |" not in (tmp_path / "stride.md").read_text(encoding="utf-8")


def test_models_of_several_calls_stand_in_one_report(slides: list[CohortSlide], detector: Detector, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(detector.models_dir, models)
    write_network_pack(models, "other-5x")
    both, out = Detector(models, "float32"), tmp_path / "out"

    def reported() -> list[tuple[str, str]]:
        with (out / "stride.csv").open(encoding="utf-8", newline="") as file:
            return [(row["model"], row["stride"]) for row in csv.DictReader(file)]

    study_stride(slides, ["tiny-5x"], both, out, strides=[64], modes=["patch"])
    study_stride(slides, ["other-5x"], both, out, strides=[64], modes=["patch"])
    assert reported() == [("other-5x@1.0.0", "64"), ("tiny-5x@1.0.0", "64")]
    # A model that has another threshold by now, or is gone, has no numbers of now.
    rewrite_manifest(find_pack(models, "tiny-5x"), default_threshold=0.7)
    study_stride(slides, ["other-5x"], both, out, strides=[48], modes=["patch"])
    assert reported() == [("other-5x@1.0.0", "48"), ("other-5x@1.0.0", "64")]
    shutil.rmtree(models / "tiny-5x")
    study_stride(slides, ["other-5x"], both, out, strides=[48], modes=["patch"])
    assert reported() == [("other-5x@1.0.0", "48"), ("other-5x@1.0.0", "64")]


def test_whatever_decides_the_scores_is_in_a_rows_inputs(
    slides: list[CohortSlide], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inputs(models: Path = detector.models_dir, classes: ClassMap = DEFAULT_CLASSES, precision: str = "float32") -> str:
        (case,) = cases_of(slides, ["tiny-5x"], Detector(models, precision), strides=[64], modes=["patch"], classes=classes)
        return case.inputs

    found = [inputs(), inputs(classes=DEFAULT_CLASSES.with_names(["tumor"], ["non-tumor"]))]
    shutil.copytree(detector.models_dir, tmp_path / "models")
    rewrite_manifest(find_pack(tmp_path / "models", "tiny-5x"), default_threshold=0.7)
    found.append(inputs(tmp_path / "models"))
    monkeypatch.setattr(module, "__version__", "99.0.0")
    found.append(inputs())
    found.append(inputs(precision="mixed"))
    assert len(set(found)) == 5
    monkeypatch.undo()
    assert inputs() == found[0]


def test_a_slide_that_breaks_is_a_failed_row(
    slides: list[CohortSlide], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise SlideDamagedError("A tile cannot be decoded.", cure="Copy the slide again.")

    monkeypatch.setattr(module, "analyse", broken)
    study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64], modes=["patch"])
    (row,) = table(tmp_path)
    assert (row["status"], row["message"], row["auc"]) == ("failed", "A tile cannot be decoded.", "")
    assert "A tile cannot be decoded" in (tmp_path / "stride.md").read_text(encoding="utf-8")
    monkeypatch.undo()
    study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64], modes=["patch"], retry_failed=True)
    assert [row["status"] for row in table(tmp_path)] == ["ok"]


def test_a_slide_that_is_not_evaluable_is_a_failed_row(
    slides: list[CohortSlide], detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 1.1)
    study_stride(slides, ["tiny-5x"], detector, tmp_path, strides=[64], modes=["patch"])
    (row,) = table(tmp_path)
    assert [row[name] for name in ("status", "auc", "sensitivity", "specificity", "iou")] == ["failed", "", "", "", ""]
    assert row["message"].startswith("Not evaluable. This does not look like an H&E slide")
    assert "Not evaluable." in (tmp_path / "stride.md").read_text(encoding="utf-8")


def test_what_cannot_be_run_is_said_before_anything_is(slides: list[CohortSlide], detector: Detector, tmp_path: Path) -> None:
    def refuse(error: type[Exception], said: str, rows: list[CohortSlide] = slides, **more: Any) -> None:
        with pytest.raises(error, match=said):
            study_stride(rows, ["tiny-5x"], detector, tmp_path / "out", **more)

    refuse(StrideInvalidError, "stride 24", strides=[16, 24])
    refuse(ParameterError, "no mode fast", modes=["fast"])
    refuse(CohortInvalidError, "in this split", [])
    refuse(CohortInvalidError, "Two slides are named “s3”", [*slides, *slides])
    refuse(SlideNotFoundError, "none", [replace(slides[0], slide=tmp_path / "none.tif")])
    refuse(AnnotationNotFoundError, "none", [replace(slides[0], annotations=tmp_path / "none.geojson")])
    assert not (tmp_path / "out").exists()
