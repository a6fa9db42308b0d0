from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.errors import OutputNotWritableError, PackDamagedError, ParameterError, ResolutionTooCoarseError, StrideInvalidError
from hepamap.model_pack import InputSpec, ModelPack, NetworkSpec, write_pack
from hepamap.predictor import Predictor
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluation.kept_maps import KeptMaps
from hepamap.training.panels import _title, compute_panels, draw_panels, looks, prepare_picture
from tests.packs import manifest_body

from .conftest import toy_pixels, tumour_and_liver, write_slide


class Red:
    """Tumour is red: 1 where a patch, or a pixel, has more red than blue."""

    batch_size = 16
    device = "cpu"
    policy = "float32"
    warnings: tuple[tuple[str, str], ...] = ()

    def __init__(self, *, by_pixel: bool) -> None:
        self._by_pixel = by_pixel

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        is_red = (patches[..., 0] > patches[..., 2]).astype(np.float32)
        return is_red if self._by_pixel else (is_red.mean(axis=(1, 2)) > 0.5).astype(np.float32)


class RedDetector(Detector):
    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.asked_for: list[str] = []

    def predictor(self, pack: ModelPack) -> Predictor:
        self.asked_for.append(pack.manifest.id)
        return cast(Predictor, Red(by_pixel=pack.manifest.network.kind == "segmentation"))


@pytest.fixture
def maps(tmp_path: Path) -> KeptMaps:
    return KeptMaps(tmp_path / "figure-maps", RedDetector(tmp_path / "models"))


def packs(models: Path) -> list[ModelPack]:
    pixels = {"modes": ("segment",), "default_mode": "segment"}
    bodies = [
        manifest_body("five"),
        manifest_body("ten", patch=128),
        manifest_body("unet").model_copy(
            update={"network": NetworkSpec(kind="segmentation", backbone="UNet", head="PIXELS"), **pixels}
        ),
        manifest_body("fcn").model_copy(
            update={"network": NetworkSpec(kind="segmentation", backbone="FCN8s", head="PIXELS"), **pixels}
        ),
    ]
    return [
        write_pack(models / body.id / "1.0.0", body, {"x/kernel": np.full(1, number)}, "") for number, body in enumerate(bodies)
    ]


@pytest.fixture
def row(tmp_path: Path) -> CohortSlide:
    # 0.92 µm/px, so that the 10X model can look at it: the annotations are those of twice the size.
    write_slide(tmp_path / "slide.tif", toy_pixels(1), 0.92)
    (tmp_path / "slide.geojson").write_text(json.dumps(tumour_and_liver()), encoding="utf-8")
    return CohortSlide(tmp_path / "slide.tif", tmp_path / "slide.geojson", "patient", "test")


def test_six_panels_with_what_each_found(row: CohortSlide, maps: KeptMaps, tmp_path: Path) -> None:
    figure = compute_panels(row, looks(*packs(tmp_path / "models")), maps)
    titles = ["What was drawn", "5X, no overlap", "5X, overlap", "10X, overlap", "U-Net, 5X", "FCN, 5X"]
    assert [panel.title for panel in figure.panels] == titles
    strides = [panel.map.lattice.grid.stride_m for panel in figure.panels[1:] if panel.map is not None]
    assert strides == [64, 16, 32, 16, 16]
    # Columns 0 to 320 of 768 are tumour; a cell of 16 px at 1.84 µm is 32 px wide, one of 64 px 128.
    for panel, cell_l0 in zip(figure.panels[1:], (128, 32, 32, 32, 32), strict=True):
        assert panel.iou is not None
        assert panel.iou > 1 - 1.5 * cell_l0 / 320  # half a cell is lost at the slide's edges too
    draw_panels(figure, tmp_path / "figure.png")
    picture = cv2.imread(str(tmp_path / "figure.png"))
    assert picture is not None
    height, width = picture.shape[:2]
    assert width > 2000
    assert height > 1500
    green = np.abs(picture.astype(int) - (0, 192, 0)).max(axis=-1) < 12  # the outline of the tumour, in every panel
    for rows in np.array_split(np.arange(height), 2):
        for columns in np.array_split(np.arange(round(0.93 * width)), 3):
            assert green[np.ix_(rows, columns)].any()


def test_a_slide_that_is_not_evaluable_gets_no_contours(
    row: CohortSlide, maps: KeptMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 1.1)
    figure = compute_panels(row, looks(*packs(tmp_path / "models"))[:1], maps)
    assert [(panel.found_l0 is None, panel.iou) for panel in figure.panels] == [(False, None), (True, None)]
    assert [_title(panel) for panel in figure.panels] == ["What was drawn", "5X, no overlap: not evaluable"]
    draw_panels(figure, tmp_path / "figure.png")
    picture = cv2.imread(str(tmp_path / "figure.png"))
    assert picture is not None
    assert (np.abs(picture.astype(int) - (255, 229, 0)).max(axis=-1) >= 12).all()  # what is found is outlined in this blue


@pytest.mark.parametrize(
    ("order", "title", "has"),
    [
        ("five five unet fcn", "10X", r"VGG16DrV2 \+ GAP at 1.84"),
        ("ten ten unet fcn", "5X", r"VGG16DrV2 \+ GAP at 0.92"),
        ("unet ten unet fcn", "5X", r"UNet \+ PIXELS at 1.84"),
        ("five ten five fcn", "U-Net, 5X", r"VGG16DrV2 \+ GAP at 1.84"),
        ("five ten fcn fcn", "U-Net, 5X", r"FCN8s \+ PIXELS at 1.84"),
        ("five ten unet unet", "FCN, 5X", r"UNet \+ PIXELS at 1.84"),
    ],
)
def test_a_pack_under_the_title_of_another_is_refused(tmp_path: Path, order: str, title: str, has: str) -> None:
    by_id = {pack.manifest.id: pack for pack in packs(tmp_path / "models")}
    with pytest.raises(ParameterError, match=f"“{title}” cannot be drawn with .*: it is {has} µm/px") as caught:
        looks(*(by_id[name] for name in order.split()))
    assert "Give a pack with" in caught.value.cure


@pytest.mark.parametrize(("mpp", "fits"), [(1.84 * 1.04, True), (1.84 * 0.96, True), (1.84 * 1.06, False), (1.84 * 0.94, False)])
def test_a_panels_resolution_has_some_latitude(tmp_path: Path, mpp: float, fits: bool) -> None:
    _, ten, unet, fcn = packs(tmp_path / "models")
    body = manifest_body("near").model_copy(update={"input": InputSpec(mpp=mpp, patch=64)})
    near = write_pack(tmp_path / "models" / "near" / "1.0.0", body, {"x/kernel": np.zeros(1)}, "")
    if fits:
        assert len(looks(near, ten, unet, fcn)) == 5
    else:
        with pytest.raises(ParameterError, match="5X"):
            looks(near, ten, unet, fcn)


def test_a_stride_that_the_model_lacks_is_said(tmp_path: Path) -> None:
    _, ten, unet, fcn = packs(tmp_path / "models")
    body = manifest_body("no-whole-step").model_copy(update={"strides": (8, 16), "default_stride": 16})
    short = write_pack(tmp_path / "models" / "short" / "1.0.0", body, {"x/kernel": np.zeros(1)}, "")
    with pytest.raises(StrideInvalidError):
        looks(short, ten, unet, fcn)


def test_what_is_wrong_is_known_before_the_first_map(row: CohortSlide, tmp_path: Path) -> None:
    """A slide too coarse for the third map, weights that are damaged in the fifth, a picture with a file in its way."""
    five, ten, unet, fcn = packs(tmp_path / "models")
    detector = RedDetector(tmp_path / "models")
    maps = KeptMaps(tmp_path / "figure-maps", detector)
    coarse = replace(row, slide=write_slide(tmp_path / "coarse.tif", toy_pixels(1)))
    with pytest.raises(ResolutionTooCoarseError):
        compute_panels(coarse, looks(five, ten, unet, fcn), maps)
    (fcn.folder / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(PackDamagedError):
        compute_panels(row, looks(five, ten, unet, fcn), maps)
    for picture in (row.slide / "figure.png", tmp_path):
        with pytest.raises(OutputNotWritableError):
            prepare_picture(picture)
    assert detector.asked_for == []


def test_the_maps_beside_a_picture_are_computed_once(row: CohortSlide, tmp_path: Path) -> None:
    ways = looks(*packs(tmp_path / "models"))
    folder = prepare_picture(tmp_path / "new" / "figure.png")
    assert [path.name for path in folder.parent.iterdir()] == ["figure-maps"]
    first = RedDetector(tmp_path / "models")
    before = compute_panels(row, ways[:2], KeptMaps(folder, first))
    assert set(first.asked_for) == {"five"}
    again = RedDetector(tmp_path / "models")
    after = compute_panels(row, ways, KeptMaps(folder, again))
    assert set(again.asked_for) == {"ten", "unet", "fcn"}
    assert [panel.iou for panel in after.panels[:3]] == [panel.iou for panel in before.panels]
