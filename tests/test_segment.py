"""Maps of networks that answer for every pixel, against the whole slide looked at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.errors import CancelledError, ParameterError, StrideInvalidError
from hepamap.maps import Piece, segment
from hepamap.model_pack import NetworkSpec, find_pack, write_pack
from hepamap.networks import build_network, read_weights
from hepamap.pipeline import Analysis, AnalysisParameters, analyse
from hepamap.predictor import Predictor
from hepamap.results import open_result
from hepamap.slide import Slide
from hepamap.tissue import is_background_pixel
from tests.conftest import WriteSlide, readers_at_close
from tests.packs import manifest_body

PATCH_M, MPP = 64, 1.84
GLASS = 245


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.predictor.predictor._PIXELS_AT_ONCE", {"cpu": 2 * 128 * 128})


@dataclass(slots=True)
class ByColour:
    """Answers with the red of each pixel, or with the mean red of the surroundings that a patch's margin holds."""

    batch_size: int = 7
    reach_m: int = 0

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        red = patches[..., 0] / np.float32(255)
        side = 2 * self.reach_m + 1
        return np.stack([cv2.blur(window, (side, side), borderType=cv2.BORDER_REFLECT) for window in red])


def pixels(height: int, width: int) -> NDArray[np.uint8]:
    """Tissue of varying red, with a gap of glass across it."""
    rng = np.random.default_rng(6)
    image = rng.integers(30, 180, (height, width, 3)).astype(np.uint8)  # none as dark as what is no H&E
    image[:, width // 3 : width // 3 + 100] = GLASS
    return image


def run(path: Path, network: object, stride_m: int, **changes: object) -> Analysis:
    with Slide.open(path) as slide:
        parameters = AnalysisParameters(MPP, PATCH_M, stride_m, 0.5, 0, 0, mode="segment", **changes)  # type: ignore[arg-type]
        return analyse(slide, network, parameters, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("stride_m", [8, 16, 32, 48, 64])
@pytest.mark.parametrize("reach_m", [0, 20])
def test_a_cell_is_the_mean_over_its_square(write_slide: WriteSlide, stride_m: int, reach_m: int) -> None:
    image = pixels(330, 420)
    analysis = run(write_slide(image, MPP), ByColour(reach_m=reach_m), stride_m)
    lattice, values = analysis.map.lattice, analysis.map.values
    # The whole slide at once: mirrored beyond its edge for the network, white for the background rule.
    pad = 192
    mirrored = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    white = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    answers, background = ByColour(reach_m=reach_m).predict(mirrored[None])[0], is_background_pixel(white)
    seen = 0
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            y, x = (lattice.row0 + row) * stride_m + pad, (lattice.column0 + column) * stride_m + pad
            if background[y : y + PATCH_M, x : x + PATCH_M].mean() > 0.5:
                assert np.isnan(values[row, column])
                continue
            seen += 1
            y, x = y + (PATCH_M - stride_m) // 2, x + (PATCH_M - stride_m) // 2
            assert values[row, column] == pytest.approx(answers[y : y + stride_m, x : x + stride_m].mean(), abs=1e-5)
    assert 0 < seen < values.size


@dataclass(slots=True)
class ShortOfMemory(ByColour):
    """Whose batches are halved within each call, as when memory runs short."""

    batch_size: int = 16

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batch_size = max(1, self.batch_size // 2)
        return ByColour.predict(self, patches)


def test_no_window_is_lost_when_batches_get_smaller(write_slide: WriteSlide) -> None:
    path = write_slide(pixels(330, 420), MPP)
    network = ShortOfMemory()
    assert np.array_equal(run(path, network, 16).map.values, run(path, ByColour(), 16).map.values, equal_nan=True)
    assert network.batch_size == 1


def test_nothing_is_seen_of_batches_blocks_and_regions(write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_slide(pixels(330, 420), MPP)
    whole = run(path, ByColour(reach_m=20), 16).map
    region = run(path, ByColour(reach_m=20), 16, region_l0=shapely.box(150, 90, 330, 250)).map
    monkeypatch.setattr(segment, "FIELD_SIDE_M", 200)
    pieces = run(path, ByColour(batch_size=1, reach_m=20), 16).map
    np.testing.assert_array_equal(pieces.values, whole.values)
    top, left = region.lattice.row0 - whole.lattice.row0, region.lattice.column0 - whole.lattice.column0
    part = whole.values[top : top + region.lattice.rows, left : left + region.lattice.columns]
    np.testing.assert_array_equal(region.values, part)
    assert np.isfinite(region.values).any()


@pytest.mark.parametrize("box", [(400, 100, 420, 140), (0, 100, 8, 140), (40, 400, 80, 420)])
def test_the_mirror_image_at_an_edge_does_not_depend_on_the_region(
    write_slide: WriteSlide, box: tuple[int, int, int, int]
) -> None:
    """Regions of one window, whose mirror image reaches further in than the window itself: right, left and lower edge.

    At the right edge the window is 368 … 496: its last pixels are the mirror image of those from 839 - 495 = 344 on.
    """
    path = write_slide(pixels(420, 420), MPP)
    network = ByColour(reach_m=60)  # from the cell 400 … 432 up to its window's end
    whole, region = run(path, network, 32).map, run(path, network, 32, region_l0=shapely.box(*box)).map
    top, left = region.lattice.row0 - whole.lattice.row0, region.lattice.column0 - whole.lattice.column0
    part = whole.values[top : top + region.lattice.rows, left : left + region.lattice.columns]
    assert np.isfinite(part).any()
    np.testing.assert_array_equal(region.values, part)


def test_a_dark_slide_stays_one_when_its_run_goes_on(write_slide: WriteSlide) -> None:
    dark = np.random.default_rng(0).integers(0, 60, (300, 1300, 3), dtype=np.uint8)
    parameters = AnalysisParameters(MPP, PATCH_M, 64, 0.5, 0, 0, mode="segment")
    pieces: dict[str, Piece] = {}

    class Kept:
        def load(self, unit: str) -> Piece | None:
            return pieces.get(unit)

        def store(self, unit: str, piece: Piece) -> None:
            pieces[unit] = piece

    with Slide.open(write_slide(dark, MPP)) as slide:
        outcomes = [analyse(slide, ByColour(), parameters, {}, checkpoint=Kept()).outcome for _ in range(2)]
    assert outcomes == ["not_evaluable", "not_evaluable"]
    assert len(pieces) > 1


def test_no_thread_reads_a_slide_that_is_closed(write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = readers_at_close(monkeypatch)
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 1

    parameters = AnalysisParameters(MPP, PATCH_M, 64, 0.5, 0, 0, mode="segment")
    with pytest.raises(CancelledError), Slide.open(write_slide(pixels(700, 2600), MPP)) as slide:
        analyse(slide, ByColour(), parameters, {}, cancelled=cancelled)
    assert seen == [0]


def test_odd_strides_are_refused(write_slide: WriteSlide) -> None:
    with pytest.raises(StrideInvalidError, match="9 px"):
        run(write_slide(pixels(100, 100), MPP), ByColour(), 9)


@pytest.mark.parametrize("backbone", ["UNet", "FCN8s"])
def test_a_pack_of_such_a_network_gives_a_result(write_slide: WriteSlide, tmp_path: Path, backbone: str) -> None:
    network = build_network(backbone, "PIXELS", PATCH_M)
    weights = {name: np.zeros_like(value) for name, value in read_weights(network).items() if "seed" not in name}
    last = "predictions/bias" if backbone == "UNet" else "score5/bias"
    weights[last] = np.array([0, 1.5], np.float32)
    body = manifest_body("pixels").model_copy(
        update={
            "network": NetworkSpec(kind="segmentation", backbone=backbone, head="PIXELS"),
            "modes": ("segment",),
            "default_mode": "segment",
        }
    )
    write_pack(tmp_path / "models" / "pixels" / "1.0.0", body, weights, "# Card\n", dtype="float32")
    slide = write_slide(pixels(120, 180), MPP)
    detect(DetectionRequest(slide, "pixels", min_area_um2=0), tmp_path / "out", Detector(tmp_path / "models", "float32"))
    result = open_result(tmp_path / "out")
    known = result.map.values[np.isfinite(result.map.values)]
    np.testing.assert_allclose(known, 1 / (1 + np.exp(-1.5)), atol=1e-6)
    assert result.summary["parameters"]["mode"] == "segment"
    assert result.contours(threshold=0.5)["features"]
    with pytest.raises(ParameterError, match="mode"):
        detect(DetectionRequest(slide, "pixels", mode="patch"), tmp_path / "no", Detector(tmp_path / "models"))


def test_the_whole_chain_is_the_network_on_windows(tmp_path: Path) -> None:
    """The loaded predictor answers for the pixels of windows, twice as large as a patch."""
    body = manifest_body("pixels").model_copy(
        update={
            "network": NetworkSpec(kind="segmentation", backbone="UNet", head="PIXELS"),
            "modes": ("segment",),
            "default_mode": "segment",
        }
    )
    network = build_network("UNet", "PIXELS", 2 * PATCH_M)
    write_pack(tmp_path / "pixels" / "1.0.0", body, read_weights(network), "", dtype="float32")
    predictor = Predictor.load(find_pack(tmp_path, "pixels"), "float32")
    windows = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.uint8)
    np.testing.assert_allclose(predictor.predict(windows), network(windows / 255.0).numpy()[..., 1], atol=1e-5)
    assert predictor.predict(windows[:0]).shape == (0, 128, 128)
