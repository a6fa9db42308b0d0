"""The check of shapes itself; needs no Groovy."""

from __future__ import annotations

import pytest

from tests.qupath.shapes import Rings, require_valid

BOX = [[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0], [0.0, 0.0]]
BOW = [[0.0, 0.0], [9.0, 9.0], [9.0, 0.0], [0.0, 9.0], [0.0, 0.0]]


def moved(ring: list[list[float]], by: float, scale: float = 1.0) -> list[list[float]]:
    return [[x * scale + by, y * scale + by] for x, y in ring]


@pytest.mark.parametrize(
    "polygons",
    [
        [[BOW]],
        [[BOX], [moved(BOX, 1.0)]],
        [[BOX, moved(BOX, 20.0)]],
        [[BOX, moved(BOX, 5.0)]],
        [[[[0, 0], [5, 5], [9, 9], [0, 0]]]],
    ],
    ids=["crossing", "overlapping parts", "hole outside", "hole across the shell", "no area"],
)
def test_what_qupath_refuses_is_found(polygons: list[Rings]) -> None:
    with pytest.raises(AssertionError):
        require_valid(polygons)


def test_what_qupath_reads_is_let_through() -> None:
    require_valid([[BOX, moved(BOX, 1.0, 0.5)], [moved(BOX, 20.0)]])
