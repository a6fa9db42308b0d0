"""The packs that ship: whole, honest about what they are, and good at what they were trained for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.model_pack import find_pack, list_packs
from hepamap.phantom import PhantomSpec, write_phantom
from hepamap.results import open_result
from hepamap.training.evaluate import compare

MODELS = Path(__file__).resolve().parents[1] / "models"


@pytest.mark.parametrize(("name", "mpp", "patch", "stride"), [("hcc-5x", 1.84, 64, 16), ("hcc-10x", 0.92, 128, 32)])
def test_a_pack_is_whole_and_honest(name: str, mpp: float, patch: int, stride: int) -> None:
    pack = find_pack(MODELS, name)
    pack.verify()
    spec = pack.manifest
    assert (spec.input.mpp, spec.input.patch, spec.default_stride) == (mpp, patch, stride)
    assert (spec.network.backbone, spec.network.head) == ("VGG16DrV2", "GAP")
    first_line = (pack.folder / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines()[0]
    for word in ("synthetic", "no diagnostic value"):
        assert word in first_line
    assert spec.evaluation["test"]["auc"] >= 0.95
    assert spec.default_mode == ("dense" if spec.evaluation["modes"]["dense_may_be_default"] else "patch")
    assert (pack.folder / "weights.safetensors").stat().st_size < 30_000_000


def test_nothing_else_ships() -> None:
    assert [pack.manifest.id for pack in list_packs(MODELS)] == ["hcc-10x", "hcc-5x"]
    assert not list(MODELS.rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), [("hcc-5x", 16), ("hcc-10x", 64)])
def test_contours_lie_on_the_tumour(name: str, stride: int, tmp_path: Path) -> None:
    # A slide that training never saw, at a pixel size that no level of it has.
    spec = PhantomSpec("resection", width_um=1800, height_um=1500, mpp_x=0.5054, seed=90_001, artefacts=False)
    write_phantom(spec, tmp_path / "slide.tif", tmp_path / "slide.geojson")
    request = DetectionRequest(tmp_path / "slide.tif", name, stride_m=stride)
    summary = detect(request, tmp_path / "result", Detector(MODELS))
    iou, shift = compare(open_result(tmp_path / "result"), tmp_path / "slide.geojson")
    assert summary.outcome == "ok"
    assert iou is not None
    assert iou > 0.8
    assert shift is not None
    assert math.hypot(shift.x_cell, shift.y_cell) < 0.5
