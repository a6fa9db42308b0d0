from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.errors import CancelledError, ResolutionTooCoarseError, StrideInvalidError
from hepamap.geometry import Point
from hepamap.pipeline import Analysis, AnalysisParameters, Progress, analyse, require_stride
from hepamap.slide import Slide
from tests.conftest import WriteSlide

PINK = (190, 110, 160)


@dataclass
class Constant:
    """A network that always answers the same."""

    value: float
    batch_size: int = 7

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full(len(patches), self.value, np.float32)


@dataclass
class CentreIsDark:
    """Answers the share of dark pixels in the patch's own cell."""

    stride: int
    batch_size: int = 16

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        edge = (patches.shape[1] - self.stride) // 2
        cell = patches[:, edge : edge + self.stride, edge : edge + self.stride]
        return np.asarray((cell.max(axis=-1) < 60).mean(axis=(1, 2)), np.float32)


@dataclass
class Fingerprint:
    """A different answer for every different patch."""

    batch_size: int = 13

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        weights = np.random.default_rng(9).random(patches[0].size)
        return np.asarray((patches.reshape(len(patches), -1) @ weights) / (255 * weights.sum()), np.float32)


def parameters(patch: int = 64, stride: int = 16) -> AnalysisParameters:
    return AnalysisParameters(1.84 * 64 / patch, patch, stride, 0.5, 0.0, 0.0)


def tissue(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width, 1))
    return (np.array(PINK) + noise).astype(np.uint8)


def run(path: Path, classifier: object, chosen: AnalysisParameters) -> Analysis:
    with Slide.open(path) as slide:
        return analyse(slide, classifier, chosen, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("mpp", [0.23, 0.2527, 0.46, 0.5])
def test_a_constant_network_gives_a_constant_map_on_all_tissue(write_slide: WriteSlide, mpp: float) -> None:
    analysis = run(write_slide(tissue(1300, 900), mpp), Constant(0.7), parameters())
    known = np.isfinite(analysis.map.values)
    assert np.all(analysis.map.values[known] == np.float32(0.7))
    # Patches at the slide's edge see white where the slide ends; those that are at least half on it are tissue.
    lattice = analysis.map.lattice
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            seen = lattice.grid.l0_from_m(lattice.patch_region_m(column, row))
            on_x = max(0.0, min(seen.right, 1300) - max(seen.x, 0)) / seen.width
            on_y = max(0.0, min(seen.bottom, 900) - max(seen.y, 0)) / seen.height
            if abs(on_x * on_y - 0.5) > 0.03:
                assert known[row, column] == (on_x * on_y > 0.5)


@pytest.mark.parametrize(("patch", "stride"), [(64, s) for s in (8, 16, 32, 48, 64)] + [(128, s) for s in (16, 32, 64, 96, 128)])
def test_a_dark_square_lands_in_its_cell(write_slide: WriteSlide, patch: int, stride: int) -> None:
    mpp = 0.46
    scale = round(1.84 * 64 / patch / mpp)  # level-0 px per model px: 4 at 5X, 2 at 10X
    side, offset = stride * scale, (patch - stride) // 2 * scale
    left, top = 4 * side + offset, 3 * side + offset  # the cell of patch (4, 3)
    image = tissue(left + side * 3 + 300, top + side * 3 + 300)
    image[top : top + side, left : left + side] = 40
    analysis = run(write_slide(image, mpp), CentreIsDark(stride), parameters(patch, stride))
    lattice = analysis.map.lattice
    ((row, column),) = np.argwhere(analysis.map.values > 0)
    assert (column + lattice.column0, row + lattice.row0) == (4, 3)
    assert analysis.map.values[row, column] == 1.0
    corner = lattice.l0_from_cell(Point(column, row))
    assert (corner.x, corner.y) == pytest.approx((left, top), rel=1e-6)
    (region,) = analysis.regions
    assert region.polygon_l0.bounds == pytest.approx((left, top, left + side, top + side), rel=1e-6)


@pytest.mark.parametrize("mpp", [0.2527, 0.46])
def test_a_region_gives_the_values_of_the_whole(write_slide: WriteSlide, mpp: float) -> None:
    path = write_slide(np.random.default_rng(1).integers(0, 200, (1500, 1700, 3), dtype=np.uint8), mpp, levels=3)
    whole = run(path, Fingerprint(), parameters()).map
    shape = shapely.Polygon([(310.5, 200), (1200, 333.3), (900, 1400), (250, 1000)])
    part = run(path, Fingerprint(), replace(parameters(), region_l0=shape)).map
    row0, column0 = part.lattice.row0 - whole.lattice.row0, part.lattice.column0 - whole.lattice.column0
    same_cells = whole.values[row0 : row0 + part.lattice.rows, column0 : column0 + part.lattice.columns]
    asked = np.isfinite(part.values)
    assert np.array_equal(part.values[asked], same_cells[asked])
    # Exactly the cells that share area with the region are computed.
    for row in range(part.lattice.rows):
        for column in range(part.lattice.columns):
            a, b = part.lattice.l0_from_cell(Point(column, row)), part.lattice.l0_from_cell(Point(column + 1, row + 1))
            meets = shape.intersection(shapely.box(a.x, a.y, b.x, b.y)).area > 0
            assert asked[row, column] == (meets and np.isfinite(same_cells[row, column]))


def test_an_all_white_slide_is_a_valid_empty_result(write_slide: WriteSlide) -> None:
    analysis = run(write_slide(np.full((800, 900, 3), 244, np.uint8)), Constant(0.9), parameters())
    assert analysis.outcome == "not_evaluable"
    assert [warning.code for warning in analysis.warnings] == ["no_tissue"]
    assert analysis.regions == []
    assert np.isnan(analysis.map.values).all()


def black(width: int, height: int) -> NDArray[np.uint8]:
    """What a scanner did not see, or a cover: black, but for its noise."""
    return np.random.default_rng(2).integers(0, 25, (height, width, 3), dtype=np.uint8)


def test_black_is_no_tissue(write_slide: WriteSlide) -> None:
    image = np.hstack([black(1024, 1024), tissue(1024, 1024)])
    analysis = run(write_slide(image, 0.46), Constant(0.9), parameters())
    lattice = analysis.map.lattice
    # A patch covers 256 px, and patch i begins at 64 · i: half of it at least has to lie between the black and the slide's end.
    columns = [i for i in range(40) if 64 * i + 256 - 1024 >= 128 and 64 * i + 128 <= 2048]
    assert (columns[0], columns[-1]) == (14, 30)
    for row in range(8):
        known = np.flatnonzero(np.isfinite(analysis.map.values[row - lattice.row0])) + lattice.column0
        assert known.tolist() == columns
    assert min(region.polygon_l0.bounds[0] for region in analysis.regions) == 64 * 14 + 96


def test_a_black_slide_is_a_valid_empty_result(write_slide: WriteSlide) -> None:
    analysis = run(write_slide(black(900, 800)), Constant(0.9), parameters())
    assert (analysis.outcome, [warning.code for warning in analysis.warnings]) == ("not_evaluable", ["no_tissue"])
    assert analysis.regions == []
    assert np.isnan(analysis.map.values).all()


def test_a_dark_slide_is_not_evaluable(write_slide: WriteSlide) -> None:
    image = np.random.default_rng(0).integers(0, 60, (800, 900, 3), dtype=np.uint8)
    analysis = run(write_slide(image), Fingerprint(), parameters())
    assert (analysis.outcome, [w.code for w in analysis.warnings]) == ("not_evaluable", ["not_h_and_e"])


def test_implausible_maps_are_named(write_slide: WriteSlide) -> None:
    analysis = run(write_slide(tissue(1300, 1300)), Constant(0.9), parameters())
    assert analysis.outcome == "ok_with_warnings"
    assert {warning.code for warning in analysis.warnings} == {"map_constant", "nearly_all_tumour"}


def test_progress_grows_to_the_end(write_slide: WriteSlide) -> None:
    steps: list[Progress] = []
    with Slide.open(write_slide(tissue(2600, 1300))) as slide:
        analyse(slide, Constant(0.2), parameters(), {}, progress=steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert steps[-1].done == steps[-1].total == steps[0].total > 0


def test_cancel_stops_between_batches(write_slide: WriteSlide) -> None:
    asked: list[None] = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) == 3

    with Slide.open(write_slide(tissue(2600, 1300))) as slide, pytest.raises(CancelledError):
        analyse(slide, Constant(0.2), parameters(), {}, cancelled=cancelled)
    assert len(asked) == 3


def test_too_coarse_a_slide_is_refused(write_slide: WriteSlide) -> None:
    with pytest.raises(ResolutionTooCoarseError):
        run(write_slide(tissue(300, 300), 2.5), Constant(0.2), parameters())


def test_a_damaged_slide_ends_the_run(shared_data: Path) -> None:
    from hepamap.errors import SlideDamagedError

    with pytest.raises(SlideDamagedError):
        run(shared_data / "slides/slaid/Mirax2-Fluorescence-2.mrxs", Constant(0.2), parameters(128, 32))


def test_strides_are_checked() -> None:
    require_stride(16, (8, 16))
    with pytest.raises(StrideInvalidError, match="17"):
        require_stride(17, (8, 16))
