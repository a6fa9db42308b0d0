"""Blocks of the world: the squares that are painted one by one.

The tissue is painted once, at `WORKING_UM` per pixel, whatever the slide's pixel size. A block is 512 µm wide and is
painted with a margin, so that blurs and cells that reach in from outside are right up to its edge. Block (i, j) starts at
world (512 i, 512 j) µm, so every window of every slide of one seed is cut from the same blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

WORKING_UM = 0.5
"""µm per working px."""
BLOCK_PX = 1024
MARGIN_PX = 48
PADDED_PX = BLOCK_PX + 2 * MARGIN_PX
BLOCK_UM = BLOCK_PX * WORKING_UM

# Smooth fields are computed on a coarse grid and enlarged. PADDED_PX is a multiple of both steps, and so are block
# origins, so that the grids of neighbouring blocks coincide.
SMOOTH_STEP_PX = 16
_OUTLINE_STEP_PX = 8
_OUTLINE_STEP_UM = _OUTLINE_STEP_PX * WORKING_UM
# How far outside the block outlines are looked at: the reach of signed distances.
REACH_UM = 160.0
_REACH_STEPS = int(REACH_UM / _OUTLINE_STEP_UM)

_FILL_SHIFT = 4

Field = NDArray[np.float32]
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class BlockFrame:
    """Where one block lies. Arrays of a block have shape (PADDED_PX, PADDED_PX)."""

    column: int
    row: int

    @property
    def origin_um(self) -> tuple[float, float]:
        """World position of the padded block's top-left corner, µm."""
        margin_um = MARGIN_PX * WORKING_UM
        return self.column * BLOCK_UM - margin_um, self.row * BLOCK_UM - margin_um

    def box_um(self, reach_um: float = 0.0) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the padded block, enlarged on all sides, µm."""
        x_um, y_um = self.origin_um
        side_um = PADDED_PX * WORKING_UM
        return x_um - reach_um, y_um - reach_um, x_um + side_um + reach_um, y_um + side_um + reach_um

    def grid_um(self, step_px: int) -> tuple[Field, Field]:
        """World x and y of the centres of all `step_px` × `step_px` squares, µm from the padded block's corner."""
        centres = (np.arange(PADDED_PX // step_px, dtype=np.float32) + 0.5) * np.float32(step_px * WORKING_UM)
        x_um, y_um = np.meshgrid(centres, centres)
        return x_um, y_um

    def px_from_um(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> tuple[Field, Field]:
        """World positions in px of the padded block (0.5 is the centre of the first pixel)."""
        x0_um, y0_um = self.origin_um
        return ((x_um - x0_um) / WORKING_UM).astype(np.float32), ((y_um - y0_um) / WORKING_UM).astype(np.float32)

    def clip(self, geometry: BaseGeometry, reach_um: float = 0.0) -> BaseGeometry:
        """The part of a geometry (µm) that this block sees."""
        return shapely.clip_by_rect(geometry, *self.box_um(reach_um + 2 * WORKING_UM))

    def fill(self, geometry: BaseGeometry) -> Mask:
        """Coverage of a polygonal geometry (µm): 255 on the pixels inside, else 0."""
        mask = np.zeros((PADDED_PX, PADDED_PX), np.uint8)
        _fill(mask, self.clip(geometry), self.origin_um, WORKING_UM)
        return mask

    def signed_distance_um(self, geometry: BaseGeometry) -> Field:
        """Distance to a geometry's outline, µm: positive inside, cut off at ± REACH_UM."""
        side = PADDED_PX // _OUTLINE_STEP_PX + 2 * _REACH_STEPS
        mask = np.zeros((side, side), np.uint8)
        x0_um, y0_um = self.origin_um
        _fill(mask, self.clip(geometry, REACH_UM), (x0_um - REACH_UM, y0_um - REACH_UM), _OUTLINE_STEP_UM)
        inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5) if mask.any() else np.zeros(mask.shape, np.float32)
        outside = cv2.distanceTransform(255 - mask, cv2.DIST_L2, 5) if not mask.all() else 0.0
        reach = _REACH_STEPS - 2
        distance = np.clip(inside, 0, reach) - np.clip(outside, 0, reach)
        smooth = cv2.GaussianBlur(distance.astype(np.float32), (5, 5), 1.0)[
            _REACH_STEPS:-_REACH_STEPS, _REACH_STEPS:-_REACH_STEPS
        ]
        return enlarged(smooth * np.float32(_OUTLINE_STEP_UM))


def enlarged(coarse: Field, side_px: int = PADDED_PX) -> Field:
    """A field on the centres of squares, on every pixel of a block (or on a finer grid of `side_px`)."""
    return np.asarray(cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_LINEAR), np.float32)


def _fill(mask: Mask, geometry: BaseGeometry, origin_um: tuple[float, float], step_um: float) -> None:
    """Fill polygons (µm) into a mask in place; holes stay empty."""
    for part in shapely.get_parts(geometry):
        if part.geom_type != "Polygon" or part.is_empty:
            continue
        # One call per polygon: OpenCV fills by the even-odd rule, so the holes go in as further rings.
        rings = [part.exterior, *part.interiors]
        points = [
            # Half a pixel less: OpenCV's integer coordinates are pixel centres.
            np.round(((shapely.get_coordinates(ring) - origin_um) / step_um - 0.5) * (1 << _FILL_SHIFT)).astype(np.int32)
            for ring in rings
        ]
        cv2.fillPoly(mask, points, 255, lineType=cv2.LINE_8, shift=_FILL_SHIFT)
