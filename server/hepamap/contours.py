"""From a map and a threshold to tumour regions with holes.

Cell outlines are traced exactly; then the staircase of the cells is smoothed by less than half a cell. Everything is
deterministic: the same map and parameters give the same regions, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from hepamap.geometry import Lattice
from hepamap.rings import Rings, neighbours, trace_rings

_Points: TypeAlias = NDArray[np.float64]  # (N, 2) x, y

_CUT_CELL = 2.0  # how far a staircase's corner is cut along its longer step: moves the outline by under 0.49 cell


@dataclass(frozen=True, slots=True)
class TumourRegion:
    """One connected region at or above the threshold.

    Attributes:
        polygon_l0: its outline with holes, level-0 px, valid by shapely's rules.
        cells: number of cells at or above the threshold.
        area_um2: area of the outline, holes left out, µm².
        mean_probability: mean over its cells.
        max_probability: maximum over its cells.
    """

    polygon_l0: Polygon
    cells: int
    area_um2: float
    mean_probability: float
    max_probability: float


def trace_regions(
    values: NDArray[np.float32],
    lattice: Lattice,
    threshold: float,
    *,
    min_area_um2: float = 0.0,
    min_hole_area_um2: float = 0.0,
    smooth: bool = True,
) -> list[TumourRegion]:
    """Outline the connected parts of a map (cells that share an edge) at or above a threshold.

    Args:
        values: (rows, columns) tumour probability, NaN where there is no data.
        lattice: where the cells lie.
        threshold: probability from which a cell counts.
        min_area_um2: smaller parts are left out (by the area of their cells, holes left out), µm².
        min_hole_area_um2: smaller holes are filled, µm².
        smooth: smooth the staircase of the cells; without it outlines follow the cells exactly.

    Returns:
        The regions, largest first; ties from top to bottom.
    """
    tumour = values >= threshold  # never where there is no data: NaN is not
    count, found = cv2.connectedComponents(tumour.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    cells, means, peaks = _statistics(values, labels, count)
    kept = cells * lattice.cell_area_um2 >= min_area_um2
    kept[0] = False
    if not kept.any():
        return []
    kept_label = np.where(kept, np.arange(count), 0).astype(np.int32)
    rings = _ordered(trace_rings(kept_label[labels]), cells, min_hole_area_um2 / lattice.cell_area_um2)
    outer = rings.areas_cell > 0
    polygons = _polygons(rings, lattice, smooth=smooth)
    areas_um2 = shapely.area(polygons) * lattice.grid.pixel_size.area_um2
    return [
        TumourRegion(polygon, int(cells[label]), float(area), float(means[label]), float(peaks[label]))
        for polygon, area, label in zip(polygons, areas_um2, rings.labels[outer], strict=True)
    ]


def _statistics(
    values: NDArray[np.float32], labels: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of cells, mean and maximum of the values under each label; nothing for label 0."""
    # Run by run of cells that lie one after another and have one label: there are few, and a million cells.
    flat, probability = labels.ravel(), values.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1))
    lengths = np.diff(starts, append=len(flat))
    label = flat[starts]
    sums, tops = np.add.reduceat(probability, starts, dtype=np.float64), np.maximum.reduceat(probability, starts)
    known = label != 0
    label = label[known]
    cells = np.bincount(label, weights=lengths[known], minlength=count).astype(np.int64)
    peaks = np.zeros(count)
    np.maximum.at(peaks, label, tops[known].astype(np.float64))
    return cells, np.bincount(label, weights=sums[known], minlength=count) / np.maximum(cells, 1), peaks


def _ordered(rings: Rings, cells: NDArray[np.int64], min_hole_cells: float) -> Rings:
    """Part after part, the largest first; of each its outline, then its holes that are large enough."""
    outer = rings.areas_cell > 0
    wanted = np.flatnonzero(outer | (-rings.areas_cell >= min_hole_cells))
    rank = np.zeros(len(cells), np.int64)
    outlines = rings.labels[outer]
    rank[outlines[np.argsort(-cells[outlines], kind="stable")]] = np.arange(len(outlines))
    return rings.take(wanted[np.lexsort((~outer[wanted], rank[rings.labels[wanted]]))])


def _polygons(rings: Rings, lattice: Lattice, *, smooth: bool) -> NDArray[np.object_]:
    """The polygons of rings in level-0 px; each begins with its outline.

    They are valid as they are. Exact rings meet in corners at most; and what is cut off a corner lies within the cells along
    its longer step, where no other outline runs, and reaches less than half-way into them.
    """
    points, sizes = _smoothed(rings) if smooth else (rings.corners_cell.astype(np.float64), rings.sizes)
    origin, cell = lattice.origin_l0, lattice.cell_size_l0
    points_l0 = points * (cell.x, cell.y) + (origin.x, origin.y)
    lines = shapely.linearrings(points_l0, indices=np.repeat(np.arange(len(rings)), sizes))
    polygon = np.cumsum(rings.areas_cell > 0) - 1
    return np.asarray(shapely.polygons(np.asarray(lines), indices=polygon), np.object_)


def _smoothed(rings: Rings) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cut the corners of staircases.

    A corner beside a step of one cell is cut from the middle of that step to at most `_CUT_CELL` along the other, which
    moves the outline by under 0.49 cell. Other corners and plain rectangles stay.

    Returns:
        x, y of the points of all rings in cells, and how many of them are each ring's.
    """
    corners, (before, after) = rings.corners_cell.astype(np.float64), neighbours(rings.sizes)
    to_next = corners[after] - corners
    length = np.abs(to_next).sum(axis=1)
    cut = (np.minimum(length[before], length) <= 1) & np.repeat(rings.sizes > 4, rings.sizes)
    direction = to_next / length[:, None]
    entry = corners - direction[before] * np.minimum(length[before] / 2, _CUT_CELL)[:, None]
    leave = corners + direction * np.minimum(length / 2, _CUT_CELL)[:, None]
    pairs = np.stack([np.where(cut[:, None], entry, corners), np.where(cut[:, None], leave, corners)], axis=1).reshape(-1, 2)
    points, sizes = _chosen(pairs, 2 * rings.sizes, lambda before, this, after: np.any(this != before, axis=1))
    return _chosen(points, sizes, _bends)


def _bends(before: _Points, this: _Points, after: _Points) -> NDArray[np.bool_]:
    """Whether an outline turns at a point; exact, because all coordinates are halves."""
    (x, y), (next_x, next_y) = (this - before).T, (after - this).T
    return np.asarray(x * next_y != y * next_x)


def _chosen(
    points: _Points, sizes: NDArray[np.int64], wanted: Callable[[_Points, _Points, _Points], NDArray[np.bool_]]
) -> tuple[_Points, NDArray[np.int64]]:
    """The points of rings that are wanted, judged by the one before and the one after; and how many are left in each ring."""
    before, after = neighbours(sizes)
    chosen = wanted(points[before], points, points[after])
    return points[chosen], np.add.reduceat(chosen, np.cumsum(sizes) - sizes, dtype=np.int64)
