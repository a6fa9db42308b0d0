import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepamap.geometry import Grid, PixelSize, Point, Region, Size

STRIDES = {64: (8, 16, 32, 48, 64), 128: (16, 32, 64, 96, 128)}
grids = st.builds(
    lambda patch, index, mpp, x, y: Grid(mpp, patch, STRIDES[patch][index], PixelSize(x, y)),
    st.sampled_from((64, 128)),
    st.integers(0, 4),
    st.sampled_from((1.84, 0.92)),
    st.floats(0.1, 1.0),
    st.floats(0.1, 1.0),
)
places = st.floats(-5000, 50000)
lengths = st.floats(1, 30000)


def test_cells_of_a_whole_slide_at_5x() -> None:
    # 0.46 µm/px: a model px is 4 px, a cell 64 px; cells begin 24 model px = 96 px after their patch.
    lattice = Grid(1.84, 64, 16, PixelSize(0.46, 0.46)).covering(Region.of_size(Size(640, 320)))
    assert (lattice.column0, lattice.row0) == (-2, -2)
    assert lattice.origin_l0 == Point(-32.0, -32.0)
    assert (lattice.columns, lattice.rows) == (11, 6)
    assert lattice.cell_size_l0 == Point(64.0, 64.0)
    assert lattice.cell_area_um2 == pytest.approx(29.44**2)


def test_without_overlap_cells_are_the_patches() -> None:
    lattice = Grid(1.84, 64, 64, PixelSize(0.46, 0.46)).covering(Region.of_size(Size(512, 256)))
    assert (lattice.column0, lattice.row0, lattice.columns, lattice.rows) == (0, 0, 2, 1)
    assert lattice.region_l0 == Region(0, 0, 512, 256)


def test_a_cell_is_centred_on_its_patch() -> None:
    lattice = Grid(0.92, 128, 32, PixelSize(0.23, 0.46)).covering(Region(1000, 1000, 3000, 3000))
    patch = lattice.grid.l0_from_m(lattice.patch_region_m(3, 5))
    corner, opposite = lattice.l0_from_cell(Point(3, 5)), lattice.l0_from_cell(Point(4, 6))
    assert (corner.x + opposite.x) / 2 == pytest.approx(patch.x + patch.width / 2)
    assert (corner.y + opposite.y) / 2 == pytest.approx(patch.y + patch.height / 2)


@given(grids, places, places, lengths, lengths)
def test_covering_holds_the_region_and_no_row_more(grid: Grid, x: float, y: float, width: float, height: float) -> None:
    region = Region(x, y, width, height)
    lattice = grid.covering(region)
    covered, cell = lattice.region_l0, lattice.cell_size_l0
    slack_x, slack_y = 1e-5 * cell.x, 1e-5 * cell.y
    assert covered.x <= region.x + slack_x
    assert covered.right >= region.right - slack_x
    assert covered.x + cell.x >= region.x - slack_x
    assert covered.right - cell.x <= region.right + slack_x
    assert covered.y <= region.y + slack_y
    assert covered.bottom >= region.bottom - slack_y


@given(grids, places, places, lengths, lengths)
def test_every_region_shares_one_lattice(grid: Grid, x: float, y: float, width: float, height: float) -> None:
    whole = grid.covering(Region(0, 0, 60000, 60000))
    part = grid.covering(Region(x, y, width, height))
    at_part = part.l0_from_cell(Point(0, 0))
    at_whole = whole.l0_from_cell(Point(part.column0 - whole.column0, part.row0 - whole.row0))
    assert math.isclose(at_part.x, at_whole.x, abs_tol=1e-6)
    assert math.isclose(at_part.y, at_whole.y, abs_tol=1e-6)


def test_regions_that_only_touch_do_not_meet() -> None:
    assert Region(0, 0, 10, 10).intersection(Region(10, 0, 5, 5)) is None
    assert Region(0, 0, 10, 10).intersection(Region(8, 9, 5, 5)) == Region(8, 9, 2, 1)
