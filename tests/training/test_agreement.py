import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity

from hepamap.geometry import Grid, Lattice, PixelSize
from hepamap.training import agreement
from hepamap.training.agreement import best_shift, intersection_over_union

# 16 model px of 1.84 µm on a slide of 0.46 µm/px: a cell is 64 px wide.
LATTICE = Lattice(Grid(1.84, 64, 16, PixelSize(0.46, 0.46)), -2, -2, 40, 30)
BLOB = shapely.Point(1000, 800).buffer(500) - shapely.box(900, 700, 1000, 850)


def test_overlap_of_known_squares() -> None:
    one, two = shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10)
    assert intersection_over_union(one, two) == pytest.approx(50 / 150)
    assert intersection_over_union(one, one) == 1
    assert intersection_over_union(one, shapely.box(20, 20, 30, 30)) == 0
    assert intersection_over_union(shapely.Polygon(), shapely.Polygon()) == 1
    assert intersection_over_union(shapely.Polygon(), one) == 0


@settings(deadline=None, max_examples=30)
@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_a_known_displacement_is_found(x_cell: float, y_cell: float) -> None:
    moved = affinity.translate(BLOB, -x_cell * 64, -y_cell * 64)
    shift = best_shift(moved, BLOB, LATTICE)
    assert shift is not None
    # The masks have an eighth of a cell; the parabola finds the rest to about half of that.
    assert shift.x_cell == pytest.approx(x_cell, abs=0.07)
    assert shift.y_cell == pytest.approx(y_cell, abs=0.07)


def test_nothing_has_no_displacement() -> None:
    assert best_shift(shapely.Polygon(), BLOB, LATTICE) is None
    assert best_shift(BLOB, shapely.Polygon(), LATTICE) is None


def test_a_large_map_is_drawn_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_MOST_PIXELS", 12_000)  # 3 × 3 px for each of 40 × 30 cells
    shift = best_shift(affinity.translate(BLOB, -64, 0), BLOB, LATTICE)
    assert shift is not None
    assert (shift.x_cell, shift.y_cell) == pytest.approx((1, 0), abs=0.15)
