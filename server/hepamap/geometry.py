"""Frames and conversions: the one place where coordinate systems are defined.

Four frames, named in every variable:

- `_l0`: level-0 pixels of the slide, origin at OpenSlide's level-0 corner (not at its bounds), x right, y down.
- `_m`: model pixels, i.e. the slide resampled to the model's µm/px, anchored at the same corner.
- `_cell`: cells of a probability map, (column, row) counted from the map's first cell.
- `_um`: micrometres from the same corner.

Sizes are (width, height), points (x, y), arrays (H, W, C).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# A lattice edge that lies within this share of a cell of the region's edge counts as lying on it: floating point,
# not geometry, would otherwise add an empty row of cells.
_EDGE_TOLERANCE_CELL = 1e-6


@dataclass(frozen=True, slots=True)
class Point:
    """A point (x, y) in the frame that the variable's name says."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Size:
    """A size in whole pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Micrometres per pixel along x and y."""

    x_um: float
    y_um: float

    @property
    def mean_um(self) -> float:
        """Geometric mean of both sides, µm/px."""
        return math.sqrt(self.x_um * self.y_um)

    @property
    def area_um2(self) -> float:
        """Area of one pixel, µm²."""
        return self.x_um * self.y_um


@dataclass(frozen=True, slots=True)
class Region:
    """An axis-aligned rectangle, real-valued, in the frame that the variable's name says."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @classmethod
    def of_size(cls, size: Size) -> Region:
        """The rectangle from the origin to a size."""
        return cls(0.0, 0.0, float(size.width), float(size.height))

    def intersection(self, other: Region) -> Region | None:
        """The common part, or None where there is none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        if right <= x or bottom <= y:
            return None
        return Region(x, y, right - x, bottom - y)


@dataclass(frozen=True, slots=True)
class Grid:
    """How one model looks at one slide: resolution, patch side and stride.

    Patch (i, j) has its top-left corner at model px (stride_m · i, stride_m · j), whatever region is asked for; i and j
    may be negative. Its cell is the stride_m × stride_m square centred on the patch. So every region of a slide
    shares one infinite lattice, and a cell has one value.
    """

    mpp: float
    """Model resolution, µm per model px."""
    patch_m: int
    """Patch side, model px."""
    stride_m: int
    """Step between patches, model px."""
    pixel_size: PixelSize
    """Level-0 pixel size of the slide."""

    @property
    def scale_x(self) -> float:
        """Level-0 px per model px, along x."""
        return self.mpp / self.pixel_size.x_um

    @property
    def scale_y(self) -> float:
        """Level-0 px per model px, along y."""
        return self.mpp / self.pixel_size.y_um

    @property
    def cell_offset_m(self) -> float:
        """From a patch's corner to its cell's corner, model px."""
        return (self.patch_m - self.stride_m) / 2

    def l0_from_m(self, region_m: Region) -> Region:
        """A rectangle in model px, in level-0 px."""
        return Region(
            region_m.x * self.scale_x,
            region_m.y * self.scale_y,
            region_m.width * self.scale_x,
            region_m.height * self.scale_y,
        )

    def covering(self, region_l0: Region) -> Lattice:
        """The lattice of every cell that meets a rectangle of the slide."""
        cell_x, cell_y = self.stride_m * self.scale_x, self.stride_m * self.scale_y
        first_x, first_y = self.cell_offset_m * self.scale_x, self.cell_offset_m * self.scale_y
        column0 = math.floor((region_l0.x - first_x) / cell_x + _EDGE_TOLERANCE_CELL)
        row0 = math.floor((region_l0.y - first_y) / cell_y + _EDGE_TOLERANCE_CELL)
        column_end = math.ceil((region_l0.right - first_x) / cell_x - _EDGE_TOLERANCE_CELL)
        row_end = math.ceil((region_l0.bottom - first_y) / cell_y - _EDGE_TOLERANCE_CELL)
        return Lattice(self, column0, row0, max(1, column_end - column0), max(1, row_end - row0))


@dataclass(frozen=True, slots=True)
class Lattice:
    """The cells of one probability map: a rectangle of a grid's infinite lattice."""

    grid: Grid
    column0: int
    """Index i of the patch in the map's first column (may be negative)."""
    row0: int
    """Index j of the patch in the map's first row (may be negative)."""
    columns: int
    rows: int

    @property
    def cell_size_l0(self) -> Point:
        """Width and height of a cell, level-0 px."""
        return Point(self.grid.stride_m * self.grid.scale_x, self.grid.stride_m * self.grid.scale_y)

    @property
    def cell_area_um2(self) -> float:
        """Area of a cell, µm²."""
        return (self.grid.stride_m * self.grid.mpp) ** 2

    @property
    def origin_l0(self) -> Point:
        """Top-left corner of the map's first cell, level-0 px."""
        return self.l0_from_cell(Point(0.0, 0.0))

    @property
    def region_l0(self) -> Region:
        """The rectangle that the map's cells cover, level-0 px."""
        origin, cell = self.origin_l0, self.cell_size_l0
        return Region(origin.x, origin.y, self.columns * cell.x, self.rows * cell.y)

    def l0_from_cell(self, point_cell: Point) -> Point:
        """A point in map cells (corner of cell (column, row) is (column, row)), in level-0 px."""
        grid = self.grid
        return Point(
            ((self.column0 + point_cell.x) * grid.stride_m + grid.cell_offset_m) * grid.scale_x,
            ((self.row0 + point_cell.y) * grid.stride_m + grid.cell_offset_m) * grid.scale_y,
        )

    def patch_region_m(self, column: int, row: int, columns: int = 1, rows: int = 1) -> Region:
        """The model pixels that the patches of a block of cells see.

        Args:
            column: first column of the block, counted from the map's first cell.
            row: first row of the block.
            columns: columns in the block.
            rows: rows in the block.
        """
        stride, patch = self.grid.stride_m, self.grid.patch_m
        return Region(
            float((self.column0 + column) * stride),
            float((self.row0 + row) * stride),
            float((columns - 1) * stride + patch),
            float((rows - 1) * stride + patch),
        )
