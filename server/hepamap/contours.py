"""From a map and a threshold to tumour regions with holes.

Cell outlines are traced exactly; then the staircase of the cells is smoothed by less than half a cell. Everything is
deterministic: the same map and parameters give the same regions, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, affinity, make_valid
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Lattice
from hepamap.rings import Ring, trace_rings

_CUT_CELL = 2.0  # how far a staircase's corner is cut along its longer step: moves the outline by under 0.49 cell
_SIMPLIFY_CELL = 0.01  # drops points on a line; with the cut, still under half a cell


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

    polygon_l0: Polygon | MultiPolygon
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
    tumour = np.nan_to_num(values, nan=-1.0) >= threshold
    count, found = cv2.connectedComponents(tumour.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    cells = np.bincount(labels.ravel(), minlength=count)
    kept = np.flatnonzero(cells * lattice.cell_area_um2 >= min_area_um2)
    kept = kept[kept != 0]
    if not len(kept):
        return []
    rings = _rings_by_label(labels, np.isin(labels, kept), min_hole_area_um2 / lattice.cell_area_um2)
    means, peaks = _statistics(values, labels, count)
    regions = []
    for label in kept:
        polygon = _polygon(rings[label], lattice, smooth=smooth)
        area_um2 = polygon.area * lattice.grid.pixel_size.area_um2
        regions.append(TumourRegion(polygon, int(cells[label]), area_um2, float(means[label]), float(peaks[label])))
    return sorted(regions, key=lambda region: -region.cells)


def _rings_by_label(labels: NDArray[np.int32], wanted: NDArray[np.bool_], min_hole_cells: float) -> dict[int, list[Ring]]:
    """The rings of each wanted part: its outline first, then its holes that are large enough."""
    rings: dict[int, list[Ring]] = {}
    for ring in trace_rings(np.where(wanted, labels, 0)):
        if ring.area_cells > 0:
            rings.setdefault(ring.label, []).insert(0, ring)
        elif -ring.area_cells >= min_hole_cells:
            rings.setdefault(ring.label, []).append(ring)
    return rings


def _statistics(
    values: NDArray[np.float32], labels: NDArray[np.int32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and maximum of the values under each label."""
    flat, probability = labels.ravel(), np.nan_to_num(values).ravel().astype(np.float64)
    sizes = np.maximum(np.bincount(flat, minlength=count), 1)
    peaks = np.zeros(count)
    np.maximum.at(peaks, flat, probability)
    return np.bincount(flat, weights=probability, minlength=count) / sizes, peaks


def _polygon(rings: list[Ring], lattice: Lattice, *, smooth: bool) -> Polygon | MultiPolygon:
    outlines = [_smoothed(ring.corners_cell) if smooth else ring.corners_cell.astype(np.float64) for ring in rings]
    shape: BaseGeometry = Polygon(outlines[0], outlines[1:])
    if smooth:
        shape = shape.simplify(_SIMPLIFY_CELL, preserve_topology=True)
    if not shape.is_valid:
        shape = make_valid(shape)
    origin, cell = lattice.origin_l0, lattice.cell_size_l0
    moved = affinity.affine_transform(shape, [cell.x, 0, 0, cell.y, origin.x, origin.y])
    assert isinstance(moved, Polygon | MultiPolygon)
    return moved


def _smoothed(corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cut the corners of a staircase.

    A corner beside a step of one cell is cut from the middle of that step to at most `_CUT_CELL` along the other, which
    moves the outline by under 0.49 cell. Other corners and plain rectangles stay.

    Args:
        corners: (N, 2) x, y of a closed ring's corners in cells, the first not repeated.
    """
    points = corners.astype(np.float64)
    if len(points) == 4:
        return points
    to_next = np.roll(points, -1, axis=0) - points
    length = np.abs(to_next).sum(axis=1)
    before, after = np.roll(length, 1), length
    cut = (np.minimum(before, after) <= 1)[:, None]
    direction = to_next / length[:, None]
    entry = points - np.roll(direction, 1, axis=0) * np.minimum(before / 2, _CUT_CELL)[:, None]
    leave = points + direction * np.minimum(after / 2, _CUT_CELL)[:, None]
    pairs = np.stack([np.where(cut, entry, points), np.where(cut, leave, points)], axis=1).reshape(-1, 2)
    different = np.any(pairs != np.roll(pairs, 1, axis=0), axis=1)
    return pairs[different]
