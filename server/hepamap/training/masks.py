"""Polygons as pixel masks, and the share of a mask under many patches at once (pure arrays)."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry


def rasterise(geometry: BaseGeometry, width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels have their centre inside a geometry.

    A pixel counts by its centre, so that a mask's area is right to within rounding and two areas that touch share no
    pixel; cv2.fillPoly would draw every outline half a pixel too fat.

    Args:
        geometry: polygon or multipolygon in px of the mask: pixel (column, row) covers column to column + 1.
        width: of the mask.
        height: of the mask.

    Returns:
        (H, W).
    """
    rings = shapely.get_rings(shapely.get_parts(geometry))
    starts = [shapely.get_coordinates(ring)[:-1] for ring in rings]
    ends = [shapely.get_coordinates(ring)[1:] for ring in rings]
    if not starts:
        return np.zeros((height, width), np.bool_)
    rows, columns = _crossings(np.concatenate(starts), np.concatenate(ends), height)
    # A row's parity flips at each outline that lies left of a pixel's centre: even-odd filling, holes included.
    first_inside = np.clip(np.ceil(columns - 0.5), 0, width).astype(np.intp)
    flips = np.zeros((height, width + 1), np.int32)
    np.add.at(flips, (rows, first_inside), 1)
    return np.asarray(np.cumsum(flips[:, :-1], axis=1) % 2 == 1)


def _crossings(start: NDArray[np.float64], end: NDArray[np.float64], height: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Where edges (n, 2) cross the middle lines of rows: row numbers and x."""
    upper = np.minimum(start[:, 1], end[:, 1])
    lower = np.maximum(start[:, 1], end[:, 1])
    # Rows whose middle y + 0.5 lies in [upper, lower): half open, so that a corner is counted once.
    first = np.clip(np.ceil(upper - 0.5), 0, height).astype(np.intp)
    stop = np.clip(np.ceil(lower - 0.5), 0, height).astype(np.intp)
    count = stop - first
    edge = np.repeat(np.arange(len(start)), count)
    rows = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    return rows, x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)


class ShareMap:
    """Answers “which share of this patch does the mask cover” for any patch of a window, in constant time."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
        self._sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)

    def shares(self, x: NDArray[np.intp], y: NDArray[np.intp], patch: int) -> NDArray[np.float64]:
        """Covered share of patches.

        Args:
            x: (n,) left edges, px of the window.
            y: (n,) top edges.
            patch: side, px.

        Returns:
            (n,) from 0 to 1.
        """
        sums, right, bottom = self._sums, x + patch, y + patch
        covered = sums[bottom, right] - sums[y, right] - sums[bottom, x] + sums[y, x]
        return np.asarray(covered / patch**2)
