"""A coarse look first: where on the slide there cannot be tissue, so that nobody reads it in full."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.geometry import Lattice, Region
from hepamap.slide import Slide
from hepamap.tissue import BACKGROUND_MEAN_RGB, BACKGROUND_SHARE

_SQUARE_M = 16  # side of what one pixel of the overview stands for, model px
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
        make the look cheap.
    """
    grid = lattice.grid
    if grid.patch_m % _SQUARE_M or grid.stride_m % (_SQUARE_M // 2):
        return None
    if slide.decoded_share(grid.mpp * _SQUARE_M, grid.mpp) > _WORTH_IT:
        return None
    limit = BACKGROUND_SHARE * BACKGROUND_MEAN_RGB + (1 - BACKGROUND_SHARE) * 255 + _MARGIN
    possible = np.zeros((lattice.rows, lattice.columns), np.bool_)
    step = max(1, _BLOCK * _SQUARE_M // grid.stride_m)
    for row in range(0, lattice.rows, step):
        for column in range(0, lattice.columns, step):
            rows, columns = min(step, lattice.rows - row), min(step, lattice.columns - column)
            brightness = _patch_brightness(slide, lattice, lattice.patch_region_m(column, row, columns, rows))
            possible[row : row + rows, column : column + columns] = (brightness <= limit)[:rows, :columns]
    return possible


def _patch_brightness(slide: Slide, lattice: Lattice, region_m: Region) -> NDArray[np.float64]:
    """Mean of R, G and B of each patch of a block, (rows, columns); patches between squares get the darkest place near them."""
    grid = lattice.grid
    left, top = (int(np.floor(edge / _SQUARE_M)) for edge in (region_m.x, region_m.y))
    right, bottom = (int(np.ceil(edge / _SQUARE_M)) for edge in (region_m.right, region_m.bottom))
    squares_m = Region(left * _SQUARE_M, top * _SQUARE_M, (right - left) * _SQUARE_M, (bottom - top) * _SQUARE_M)
    overview = slide.read_region(grid.l0_from_m(squares_m), grid.mpp * _SQUARE_M).mean(axis=-1)
    n = grid.patch_m // _SQUARE_M
    means = cv2.blur(overview, (n, n), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    # Row r, column c: the patch that begins at square (r, c). One that begins within a square takes the darker of its neighbours.
    x = (
        region_m.x - squares_m.x + grid.stride_m * np.arange(round((region_m.width - grid.patch_m) / grid.stride_m) + 1)
    ) / _SQUARE_M
    y = (
        region_m.y - squares_m.y + grid.stride_m * np.arange(round((region_m.height - grid.patch_m) / grid.stride_m) + 1)
    ) / _SQUARE_M
    corners = [
        means[np.ix_(np.clip(fy(y).astype(int), 0, means.shape[0] - 1), np.clip(fx(x).astype(int), 0, means.shape[1] - 1))]
        for fy in (np.floor, np.ceil)
        for fx in (np.floor, np.ceil)
    ]
    return np.asarray(np.minimum.reduce(corners), np.float64)
