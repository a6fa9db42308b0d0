"""Masks of patches: a label for every pixel, for networks that answer for every pixel (pure arrays)."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Point
from hepamap.training.masks import rasterise
from hepamap.training.patches import NO_LABEL, NON_TUMOUR, TUMOUR

MEDIAN_M = 9
"""Side of the median filter that rounds what was drawn, model px. The paper does not say its own."""


def pixel_mask(areas_m: Mapping[int, BaseGeometry], corner_m: Point, patch_m: int) -> NDArray[np.int8]:
    """The mask of one patch, smoothed by a median filter that sees beyond the patch's border.

    Args:
        areas_m: areas of a slide by label, model px, from `Sampler.areas_m`.
        corner_m: of the patch, whole model px.
        patch_m: its side.

    Returns:
        (P, P): TUMOUR, NON_TUMOUR, or NO_LABEL where nothing was annotated.
    """
    mask = np.full((patch_m, patch_m), NO_LABEL, np.int8)
    margin = MEDIAN_M // 2
    left, top, side = corner_m.x - margin, corner_m.y - margin, patch_m + 2 * margin
    for label in (NON_TUMOUR, TUMOUR):
        area = shapely.clip_by_rect(areas_m[label], left, top, left + side, top + side)
        moved = shapely.transform(area, lambda xy: np.asarray(xy - [left, top]))
        smooth = cv2.medianBlur(rasterise(moved, side, side).astype(np.uint8), MEDIAN_M)
        mask[smooth[margin : margin + patch_m, margin : margin + patch_m] == 1] = label
    return mask
