from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from hepamap.errors import RegionTooComplexError
from hepamap.geometry import Point, Size
from hepamap.verdicts.judging import drawn_area, intersection_over_union, plain
from tests.shapes import tangled
from tests.verdicts.opinions import box

SIDE = st.integers(0, 12)


def cells(area: BaseGeometry) -> set[tuple[int, int]]:
    """The slow way: which squares of a grid lie in an area of whole numbers."""
    return {(x, y) for x in range(13) for y in range(13) if area.contains(shapely.Point(x + 0.5, y + 0.5))}


@settings(deadline=None, max_examples=40)  # a busy machine is no fault of the arithmetic
@given(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=4), st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=4))
def test_the_overlap_is_that_of_counted_squares(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> None:
    def area(sides: list[tuple[int, ...]]) -> BaseGeometry:
        boxes = [box(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in sides if a != c and b != d]
        return shapely.union_all(boxes) if boxes else shapely.MultiPolygon()

    one, other = area(first), area(second)
    counted, others = cells(one), cells(other)
    together = len(counted | others)
    expected = len(counted & others) / together if together else 1.0
    assert abs(intersection_over_union(one, other) - expected) < 1e-9
    assert abs(intersection_over_union(other, one) - expected) < 1e-9
    assert abs(shape(plain(one)).area - len(counted)) < 1e-9 if counted else plain(one)["coordinates"] == []


def test_an_area_in_the_frame_of_the_bounds_is_moved_to_level_0() -> None:
    drawn = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]}
    assert drawn_area(drawn, Point(100.0, 50.0), Size(1000, 1000)).bounds == (100.0, 50.0, 110.0, 60.0)
    assert drawn_area(drawn, Point(95.0, 95.0), Size(100, 100)).bounds == (95.0, 95.0, 100.0, 100.0)


def test_an_outline_where_the_hand_slipped_is_mended_and_one_of_crossings_only_is_refused_at_once() -> None:
    around = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    circle = 500 + 400 * np.column_stack([np.cos(around), np.sin(around)])
    circle[100:103] = circle[102:99:-1]  # three points in the wrong order: loops smaller than a pixel
    slipped = drawn_area(ring_of(circle), Point(0.0, 0.0), Size(1000, 1000))
    assert abs(slipped.area - np.pi * 400**2) < 10
    started = time.monotonic()
    for ring in (tangled(200), [[int(x) * 7919 % 1000, int(x) * 104729 % 997] for x in range(60_000)]):
        with pytest.raises(RegionTooComplexError, match="crosses itself"):
            drawn_area(ring_of(np.array(ring)), Point(0.0, 0.0), Size(1000, 1000))
    assert time.monotonic() - started < 5  # mending the first took a quarter of a minute


def ring_of(points: NDArray[Any]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*points.tolist(), points[0].tolist()]]}


def test_overlapping_parts_count_once_and_holes_stay() -> None:
    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    hole = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring, hole]}},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[x + 5, y] for x, y in ring]]}},
    ]
    area = drawn_area({"type": "FeatureCollection", "features": features}, Point(0.0, 0.0), Size(100, 100))
    assert area.area == 100 - 4 + 50
