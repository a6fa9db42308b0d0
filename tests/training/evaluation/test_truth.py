from __future__ import annotations

import numpy as np
import pytest
import shapely

from hepamap.geometry import Grid, PixelSize, Region
from hepamap.training.evaluation import truth
from hepamap.training.evaluation.truth import cell_pixels, patch_labels

GRID = Grid(1.84, 64, 16, PixelSize(0.46, 0.46))
LATTICE = GRID.covering(Region(0, 0, 2048, 1024))  # cells of 64 × 64 level-0 px, 16 × 16 px of 1.84 µm
LEFT, RIGHT = shapely.box(0, 0, 1024, 1024), shapely.box(1024, 0, 2048, 1024)


def test_iou_of_a_map_by_hand() -> None:
    """The map says tumour from x = 512 to 1536: half of the tumour is found, and as much beside it."""
    middles = LATTICE.origin_l0.x + (np.arange(LATTICE.columns) + 0.5) * LATTICE.cell_size_l0.x
    values = np.tile(np.where((middles > 512) & (middles < 1536), 0.9, 0.1), (LATTICE.rows, 1)).astype(np.float32)
    pixels = cell_pixels(LEFT, RIGHT, LATTICE)
    shared, united, tumour = pixels.overlap(values, 0.5)
    assert tumour == 256 * 256
    # Cells begin 24 model px to the right of their patch: edges lie 8 px off 512, 1024 and 1536, by less than a cell.
    cells = int((values[0] > 0.5).sum())
    assert cells * 16 * 256 == shared + int(pixels.non_tumour[values > 0.5].sum())
    assert shared / united == pytest.approx(1 / 3, abs=0.03)


def test_pixels_are_counted_exactly() -> None:
    pixels = cell_pixels(LEFT, RIGHT, LATTICE)
    assert int(pixels.tumour.sum()) == int(pixels.non_tumour.sum()) == 256 * 256
    assert pixels.tumour.max() == 16 * 16


@pytest.mark.parametrize(("mpp", "patch_m", "stride_m", "side"), [(0.92, 128, 32, 16), (0.92, 128, 16, 8), (1.84, 64, 8, 8)])
def test_pixels_have_the_papers_size(mpp: float, patch_m: int, stride_m: int, side: int) -> None:
    lattice = Grid(mpp, patch_m, stride_m, PixelSize(0.46, 0.46)).covering(Region(0, 0, 2048, 1024))
    pixels = cell_pixels(LEFT, RIGHT, lattice)
    assert pixels.tumour.max() == side * side
    assert int(pixels.tumour.sum()) == 256 * 256


def test_no_data_is_not_found() -> None:
    values = np.full((LATTICE.rows, LATTICE.columns), np.nan, np.float32)
    assert cell_pixels(LEFT, RIGHT, LATTICE).overlap(values, 0.5) == (0, 256 * 256, 256 * 256)


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shapely.Point(900, 500).buffer(430).difference(shapely.Point(900, 500).buffer(111))
    ground = shapely.box(100, 60, 1900, 990)
    whole = patch_labels(shape, ground, LATTICE), cell_pixels(shape, ground, LATTICE)
    monkeypatch.setattr(truth, "_BAND_PIXELS", 20_000)
    assert len(list(truth._bands(LATTICE.rows, 16, LATTICE.columns * 16))) > 5
    banded = patch_labels(shape, ground, LATTICE), cell_pixels(shape, ground, LATTICE)
    assert np.array_equal(whole[0], banded[0])
    assert np.array_equal(whole[1].tumour, banded[1].tumour)
    assert np.array_equal(whole[1].non_tumour, banded[1].non_tumour)
