"""A coarse look first: where on the slide there cannot be tissue, so that nobody reads it in full."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.geometry import Grid, Lattice, Region
from hepamap.slide import Slide
from hepamap.tissue import BACKGROUND_MEAN_RGB, BACKGROUND_SHARE

_SQUARES_M = (16, 8)  # sides of what one pixel of the overview may stand for, model px; the first on which patches begin
_WORTH_IT = 1 / 8  # the overview decodes at most this share of what it may spare
_MARGIN = 4.0  # grey levels that a scanner's small levels may be brighter than the average of its large ones
_BLOCK = 2048  # longest side of what is looked at at once, overview px


def possible_tissue(slide: Slide, lattice: Lattice) -> NDArray[np.bool_] | None:
    """Which cells of a lattice may have tissue in their patch.

    A patch is tissue if at most half of its pixels are background: black, or brighter than 200 in the mean of R, G and B.
    Then its average cannot be above half of 200 and half of 255. So a patch whose average, taken from a small pyramid level,
    lies above that by more than a margin is certainly background.

    Returns:
        (rows, columns), False where the patch is certainly background; None where a slide has no small level that would
        make the look cheap, or patches begin at places that no overview has.
    """
    grid = lattice.grid
    square_m = _square_of(grid)
    if square_m is None or slide.decoded_share(grid.mpp * square_m, grid.mpp) > _WORTH_IT:
        return None
    limit = BACKGROUND_SHARE * BACKGROUND_MEAN_RGB + (1 - BACKGROUND_SHARE) * 255 + _MARGIN
    possible = np.zeros((lattice.rows, lattice.columns), np.bool_)
    step = max(1, _BLOCK * square_m // grid.stride_m)
    for row in range(0, lattice.rows, step):
        for column in range(0, lattice.columns, step):
            rows, columns = min(step, lattice.rows - row), min(step, lattice.columns - column)
            brightness = _patch_brightness(slide, grid, lattice.patch_region_m(column, row, columns, rows), square_m)
            possible[row : row + rows, column : column + columns] = (brightness <= limit)[:rows, :columns]
    return possible


def _square_of(grid: Grid) -> int | None:
    """Side of the largest squares of which every patch is made up whole, model px: parts of squares say nothing of the rest."""
    return next((side for side in _SQUARES_M if grid.patch_m % side == 0 and grid.stride_m % side == 0), None)


def _patch_brightness(slide: Slide, grid: Grid, region_m: Region, square_m: int) -> NDArray[np.float64]:
    """Mean of R, G and B of each patch of a block, (rows, columns) or more."""
    overview = slide.read_region(grid.l0_from_m(region_m), grid.mpp * square_m).mean(axis=-1)
    n, step = grid.patch_m // square_m, grid.stride_m // square_m
    # Row r, column c: the patch that begins at square (r, c).
    means = cv2.blur(overview, (n, n), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(means[::step, ::step], np.float64)
