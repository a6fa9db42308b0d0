"""Contours one cell, one ring, one polygon after another: slow and obvious, to compare the product's with."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

Corner = tuple[int, int]

# Along +x, +y, -x, -y, with the labelled cell on the right hand: the step, the first corner seen from the cell, and where
# the cell beyond the edge is.
_SIDES = (((1, 0), (0, 0), (0, -1)), ((0, 1), (1, 0), (1, 0)), ((-1, 0), (1, 1), (0, 1)), ((0, -1), (0, 1), (-1, 0)))


def slow_labels(tumour: NDArray[np.bool_]) -> NDArray[np.int32]:
    _, labels = cv2.connectedComponents(tumour.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return np.asarray(labels, np.int32)


def slow_rings(labels: NDArray[np.int32]) -> list[tuple[int, list[Corner]]]:
    """Label and corners of each ring, as `trace_rings` orders them."""
    rings = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        for walk in _walks(labels == label):
            rings += [(label, _from_topmost(_corners_only(ring))) for ring in _parted(walk)]
    return sorted(rings, key=lambda ring: (ring[1][0][1], ring[1][0][0]))


def slow_area(corners: list[Corner]) -> float:
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairs) / 2


def _walks(part: NDArray[np.bool_]) -> list[list[Corner]]:
    """Along all cell edges of a part, turning right wherever that is possible."""
    cells = {(int(x), int(y)) for y, x in np.argwhere(part)}
    edges = set()
    for x, y in cells:
        for direction, (_, (corner_x, corner_y), (beyond_x, beyond_y)) in enumerate(_SIDES):
            if (x + beyond_x, y + beyond_y) not in cells:
                edges.add((x + corner_x, y + corner_y, direction))
    walks = []
    while edges:
        x, y, direction = min(edges)
        walk = []
        while (x, y, direction) in edges:
            edges.remove((x, y, direction))
            walk.append((x, y))
            step_x, step_y = _SIDES[direction][0]
            x, y = x + step_x, y + step_y
            for turn in (1, 0, 3):
                if (x, y, (direction + turn) % 4) in edges:
                    direction = (direction + turn) % 4
                    break
        walks.append(walk)
    return walks


def _parted(walk: list[Corner]) -> list[list[Corner]]:
    """A walk cut at the corners that it passes twice."""
    rings: list[list[Corner]] = []
    pending: list[Corner] = []
    for corner in walk:
        if corner in pending:
            place = pending.index(corner)
            rings.append(pending[place:])
            del pending[place:]
        pending.append(corner)
    return [*rings, pending]


def _corners_only(ring: list[Corner]) -> list[Corner]:
    return [
        (x, y)
        for (before_x, before_y), (x, y), (after_x, after_y) in zip(
            [ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True
        )
        if (x - before_x, y - before_y) != (after_x - x, after_y - y)
    ]


def _from_topmost(ring: list[Corner]) -> list[Corner]:
    """Begun with the left end of its topmost, leftmost edge to the right."""
    _, _, place = min((y, x, i) for i, (x, y) in enumerate(ring) if ring[(i + 1) % len(ring)][0] > x)
    return [*ring[place:], *ring[:place]]


def slow_polygons(tumour: NDArray[np.bool_], *, smooth: bool) -> list[Polygon]:
    """The polygon of each part in cells, the largest part first."""
    labels = slow_labels(tumour)
    polygons = []
    for label in sorted(range(1, int(labels.max(initial=0)) + 1), key=lambda label: -int((labels == label).sum())):
        rings = [ring for owner, ring in slow_rings(labels) if owner == label]
        outer = [ring for ring in rings if slow_area(ring) > 0]
        holes = [ring for ring in rings if slow_area(ring) < 0]
        assert len(outer) == 1
        points = [slow_smoothed(ring) if smooth else np.array(ring, float) for ring in [*outer, *holes]]
        polygon = Polygon(points[0], points[1:])
        assert polygon.is_valid
        polygons.append(shapely.simplify(polygon, 0.01) if smooth else polygon)
    return polygons


def slow_smoothed(ring: list[Corner]) -> NDArray[np.float64]:
    """A corner beside a step of one cell is cut from the middle of that step to at most two cells along the other."""
    corners = np.array(ring, float)
    if len(corners) == 4:
        return corners
    points: list[NDArray[np.float64]] = []
    for before, corner, after in zip(np.roll(corners, 1, axis=0), corners, np.roll(corners, -1, axis=0), strict=True):
        lengths = [float(np.abs(other - corner).sum()) for other in (before, after)]
        if min(lengths) > 1:
            points.append(corner)
            continue
        for other, length in zip((before, after), lengths, strict=True):
            points.append(corner + (other - corner) / length * min(length / 2, 2))
    return np.array(points)


def slow_clean(polygon: Polygon, offset: tuple[float, float]) -> dict[str, Any] | None:
    """The geometry of a feature: moved, on the grid of 0.01 px, valid, without slivers; `normal` makes it comparable."""
    moved = shapely.transform(polygon, lambda points: points - np.array(offset))
    rounded = shapely.set_precision(shapely.make_valid(moved), 0.01)
    parts = [part for part in _all_polygons(rounded) if part.area >= 1]
    if not parts:
        return None
    return normal(shapely.geometry.mapping(parts[0] if len(parts) == 1 else MultiPolygon(parts)))


def normal(geometry: dict[str, Any]) -> dict[str, Any]:
    """A geometry with its parts, rings and points in an order that does not depend on where they began."""
    shape = shapely.set_precision(shapely.geometry.shape(geometry), 0)
    ordered: dict[str, Any] = shapely.geometry.mapping(shapely.transform(shape, lambda points: points.round(2)).normalize())
    return ordered


def _all_polygons(geometry: Any) -> list[Polygon]:
    if isinstance(geometry, Polygon):
        return [geometry]
    return [polygon for part in getattr(geometry, "geoms", []) for polygon in _all_polygons(part)]
