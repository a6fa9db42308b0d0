import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hepamap.contours import trace_regions
from hepamap.geometry import Grid, Lattice, PixelSize
from tests.slow_contours import slow_polygons


def unit_lattice(values: NDArray[np.float32]) -> Lattice:
    """Cells of 1 µm and 1 px, from the slide's corner."""
    return Lattice(Grid(1.0, 1, 1, PixelSize(1, 1)), 0, 0, values.shape[1], values.shape[0])


def drawn(*rows: str) -> NDArray[np.float32]:
    """`#` is 0.9, `.` is 0.1, a blank is no data."""
    return np.array([[{"#": 0.9, ".": 0.1, " ": np.nan}[mark] for mark in row] for row in rows], np.float32)


def points_of(polygon: shapely.Polygon) -> set[tuple[float, float]]:
    return {(float(x), float(y)) for x, y in shapely.get_coordinates(polygon)}


maps = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31)).map(
    lambda t: np.random.default_rng(t[2]).random(t[:2]).astype(np.float32)
)


@settings(deadline=None)
@given(maps, st.sampled_from((0.3, 0.5, 0.7)))
def test_equals_the_union_of_the_cells(values: NDArray[np.float32], threshold: float) -> None:
    regions = trace_regions(values, unit_lattice(values), threshold, smooth=False)
    cells = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(values >= threshold)]
    assert all(region.polygon_l0.is_valid for region in regions)
    united = shapely.union_all([region.polygon_l0 for region in regions])
    assert shapely.symmetric_difference(united, shapely.union_all(cells)).area == pytest.approx(0, abs=1e-9)
    assert sum(region.cells for region in regions) == len(cells)


@settings(deadline=None)
@given(maps, st.sampled_from((0.3, 0.5, 0.7)))
def test_smoothing_moves_the_outline_less_than_half_a_cell(values: NDArray[np.float32], threshold: float) -> None:
    lattice = unit_lattice(values)
    exact, smooth = (trace_regions(values, lattice, threshold, smooth=smooth) for smooth in (False, True))
    assert len(exact) == len(smooth)
    for one, other in zip(exact, smooth, strict=True):
        assert other.polygon_l0.is_valid
        assert isinstance(other.polygon_l0, shapely.Polygon)
        assert shapely.hausdorff_distance(one.polygon_l0.boundary, other.polygon_l0.boundary, densify=0.1) < 0.5


@settings(deadline=None, max_examples=200)
@given(maps, st.sampled_from((0.2, 0.35, 0.5, 0.7)), st.booleans())
def test_equal_to_one_ring_after_another(values: NDArray[np.float32], threshold: float, smooth: bool) -> None:
    regions = trace_regions(values, unit_lattice(values), threshold, smooth=smooth)
    slow = slow_polygons(values >= threshold, smooth=smooth)
    assert len(regions) == len(slow)
    for region, expected in zip(regions, slow, strict=True):
        if smooth:  # GEOS may leave a point on a line where it begins a small ring
            assert region.polygon_l0.equals(expected)
            assert points_of(region.polygon_l0) <= points_of(expected)
        else:
            assert shapely.to_wkb(region.polygon_l0) == shapely.to_wkb(expected)


def every_pattern(side: int) -> NDArray[np.float32]:
    """All patterns of tumour cells in a square, each with a free cell around it."""
    numbers = np.arange(2 ** (side * side))
    squares = (numbers[:, None] >> np.arange(side * side) & 1).reshape(-1, side, side)
    rows = 2 ** (side * side // 2)
    framed = np.pad(squares, ((0, 0), (0, 1), (0, 1))).reshape(rows, -1, side + 1, side + 1)
    return framed.transpose(0, 2, 1, 3).reshape(rows * (side + 1), -1).astype(np.float32)


def test_every_pattern_is_valid_and_near_its_cells() -> None:
    values = every_pattern(4)
    lattice = Lattice(Grid(1.84, 64, 16, PixelSize(0.2527, 0.31)), -2, 3, values.shape[1], values.shape[0])
    exact, smooth = (
        np.array([region.polygon_l0 for region in trace_regions(values, lattice, 0.5, smooth=smooth)]) for smooth in (False, True)
    )
    for shapes in (exact, smooth):
        assert shapely.is_valid(shapes).all()
        assert (shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON).all()
    scale = lattice.cell_size_l0.x, lattice.cell_size_l0.y
    one, other = (shapely.boundary(shapely.transform(shapes, lambda points: points / scale)) for shapes in (exact, smooth))
    assert shapely.hausdorff_distance(np.array(one), np.array(other), densify=0.25).max() < 0.5


def test_holes_and_islands() -> None:
    values = drawn(
        "#######",
        "#.....#",
        "#.###.#",
        "#.# #.#",
        "#.###.#",
        "#.....#",
        "#######",
    )
    outer, inner = trace_regions(values, unit_lattice(values), 0.5, smooth=False)
    assert (outer.cells, inner.cells) == (24, 8)
    assert outer.polygon_l0.equals(shapely.box(0, 0, 7, 7) - shapely.box(1, 1, 6, 6))
    assert inner.polygon_l0.equals(shapely.box(2, 2, 5, 5) - shapely.box(3, 3, 4, 4))
    assert outer.area_um2 == 24.0


def test_small_parts_and_holes() -> None:
    values = drawn("####.", "#..#.", "#.##.", "####.", "....#")
    lattice = unit_lattice(values)
    assert [r.cells for r in trace_regions(values, lattice, 0.5)] == [13, 1]
    assert [r.cells for r in trace_regions(values, lattice, 0.5, min_area_um2=1)] == [13, 1]
    (only,) = trace_regions(values, lattice, 0.5, min_area_um2=1.5, smooth=False)
    assert only.area_um2 == 13
    (filled,) = trace_regions(values, lattice, 0.5, min_area_um2=1.5, min_hole_area_um2=3.5, smooth=False)
    assert filled.area_um2 == 16
    (kept,) = trace_regions(values, lattice, 0.5, min_area_um2=1.5, min_hole_area_um2=3.0, smooth=False)
    assert kept.area_um2 == 13


def test_corners_do_not_join() -> None:
    values = drawn("#.", ".#")
    assert [region.cells for region in trace_regions(values, unit_lattice(values), 0.5)] == [1, 1]


def test_a_ring_that_closes_at_a_corner_is_valid() -> None:
    values = drawn("###", "#.#", "##.")
    (region,) = trace_regions(values, unit_lattice(values), 0.5, smooth=False)
    assert region.polygon_l0.is_valid
    assert region.polygon_l0.area == 7


def test_no_data_is_never_tumour() -> None:
    values = drawn("   ", " # ", "   ")
    (region,) = trace_regions(values, unit_lattice(values), 0.05)
    assert region.cells == 1
    assert trace_regions(np.full((3, 3), np.nan, np.float32), unit_lattice(values), 0.01) == []


def test_the_threshold_itself_counts() -> None:
    values = np.array([[0.5, 0.4999]], np.float32)
    assert [region.cells for region in trace_regions(values, unit_lattice(values), 0.5)] == [1]


def test_statistics_are_of_the_cells() -> None:
    values = np.array([[0.6, 0.8, 0.1, 0.9]], np.float32)
    pair, single = trace_regions(values, unit_lattice(values), 0.5)
    assert pair.mean_probability == pytest.approx(0.7)
    assert pair.max_probability == pytest.approx(0.8)
    assert single.mean_probability == pytest.approx(0.9)


@pytest.mark.parametrize(("patch", "stride"), [(64, s) for s in (8, 16, 32, 48, 64)] + [(128, s) for s in (16, 32, 64, 96, 128)])
def test_one_cell_lies_where_the_lattice_says(patch: int, stride: int) -> None:
    mpp = 1.84 if patch == 64 else 0.92
    lattice = Lattice(Grid(mpp, patch, stride, PixelSize(0.2527, 0.31)), 2, 3, 5, 5)
    values = np.zeros((5, 5), np.float32)
    values[1, 4] = 1
    (region,) = trace_regions(values, lattice, 0.5)
    left_m, top_m = (2 + 4) * stride + (patch - stride) / 2, (3 + 1) * stride + (patch - stride) / 2
    kx, ky = mpp / 0.2527, mpp / 0.31
    expected = (left_m * kx, top_m * ky, (left_m + stride) * kx, (top_m + stride) * ky)
    assert region.polygon_l0.bounds == pytest.approx(expected)
    assert region.area_um2 == pytest.approx((stride * mpp) ** 2)


def test_the_same_map_gives_the_same_bytes() -> None:
    noise = np.random.default_rng(1).random((200, 300)).astype(np.float32)
    values = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.float32)
    lattice = unit_lattice(values)
    one, two = (b"".join(shapely.to_wkb(r.polygon_l0) for r in trace_regions(values, lattice, 0.5)) for _ in range(2))
    assert one == two
