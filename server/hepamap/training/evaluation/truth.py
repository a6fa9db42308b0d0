"""What annotations say of a map's patches and cells, drawn in bands so that memory does not grow with the slide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Lattice
from hepamap.training.masks import ShareMap, rasterise
from hepamap.training.patches import labels_for_test

IOU_MPP = 1.84
"""Pixel size at which areas are compared, µm/px: the paper's 5X."""
_BAND_PIXELS = 8_000_000


@dataclass(frozen=True, slots=True)
class CellPixels:
    """Annotated pixels of each cell, (rows, columns) int32, of about `IOU_MPP` (as many as divide a cell evenly)."""

    tumour: NDArray[np.int32]
    non_tumour: NDArray[np.int32]

    def overlap(self, values: NDArray[np.float32], threshold: float) -> tuple[int, int, int]:
        """Pixels that are tumour and found, that are one or the other, that are tumour; cells without data are not found.

        Args:
            values: (rows, columns) the map.
            threshold: from which a cell counts as tumour.
        """
        found = values >= np.float32(threshold)  # NaN is not
        shared = int(self.tumour[found].sum(dtype=np.int64))
        tumour = int(self.tumour.sum(dtype=np.int64))
        return shared, tumour + int(self.non_tumour[found].sum(dtype=np.int64)), tumour


def patch_labels(tumour_l0: BaseGeometry, annotated_l0: BaseGeometry, lattice: Lattice) -> NDArray[np.int8]:
    """The paper's test labels of a map's patches: 1 where over 50 % of the patch is tumour, else 0.

    Patches of which half or less is annotated have no label.

    Returns:
        (rows, columns); -1 for no label.
    """
    grid = lattice.grid
    whole_m = lattice.patch_region_m(0, 0, lattice.columns, lattice.rows)
    width = round(whole_m.width)
    x = np.arange(lattice.columns) * grid.stride_m
    labels = np.empty((lattice.rows, lattice.columns), np.int8)
    shapes = [_in_pixels(area, lattice, whole_m.x, whole_m.y, 1.0) for area in (tumour_l0, annotated_l0)]
    for first, last in _bands(lattice.rows, grid.stride_m, width):
        y = np.arange(last - first) * grid.stride_m
        height = int(y[-1]) + grid.patch_m
        columns, rows = np.meshgrid(x, y)
        tumour, annotated = (
            ShareMap(_band(shape, first * grid.stride_m, width, height)).shares(columns.ravel(), rows.ravel(), grid.patch_m)
            for shape in shapes
        )
        labels[first:last] = labels_for_test(tumour, annotated).reshape(last - first, lattice.columns)
    return labels


def cell_pixels(tumour_l0: BaseGeometry, non_tumour_l0: BaseGeometry, lattice: Lattice) -> CellPixels:
    """Count the annotated pixels of each cell."""
    grid = lattice.grid
    side = max(1, round(grid.stride_m * grid.mpp / IOU_MPP))
    left_m, top_m = (first * grid.stride_m + grid.cell_offset_m for first in (lattice.column0, lattice.row0))
    counts = [np.empty((lattice.rows, lattice.columns), np.int32) for _ in range(2)]
    width = lattice.columns * side
    shapes = [_in_pixels(area, lattice, left_m, top_m, side / grid.stride_m) for area in (tumour_l0, non_tumour_l0)]
    for first, last in _bands(lattice.rows, side, width):
        for shape, count in zip(shapes, counts, strict=True):
            mask = _band(shape, first * side, width, (last - first) * side)
            cells = mask.reshape(last - first, side, lattice.columns, side)
            count[first:last] = cells.sum(axis=(1, 3), dtype=np.int32)
    return CellPixels(*counts)


def _bands(rows: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows of cells that are drawn at once, first and behind last, by the pixels' height of one row."""
    step = max(1, _BAND_PIXELS // (height * max(1, width)))
    return ((first, min(rows, first + step)) for first in range(0, rows, step))


def _in_pixels(area_l0: BaseGeometry, lattice: Lattice, left_m: float, top_m: float, scale: float) -> BaseGeometry:
    """A shape in pixels of `scale` per model px that begin at a model px."""
    grid = lattice.grid

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((points / np.array([grid.scale_x, grid.scale_y]) - np.array([left_m, top_m])) * scale)

    return shapely.transform(area_l0, to_pixels)


def _band(shape: BaseGeometry, top: int, width: int, height: int) -> NDArray[np.bool_]:
    return rasterise(shapely.transform(shape, lambda points: points - np.array([0.0, float(top)])), width, height)
