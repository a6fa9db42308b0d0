"""How many patches annotations can hold: known from their areas, before a pixel is read (pure geometry)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shapely.geometry.base import BaseGeometry

from hepamap.training.patches import LABEL_SHARE, NON_TUMOUR, TEST_SHARE, TUMOUR

_OVERLAP = 4
"""Patches that lie half a side apart, along one axis at least, cover a point at most so many times: two by two."""


def most_patches(areas_m: Mapping[int, BaseGeometry], patch_m: int, *, test_rule: bool) -> dict[int, int]:
    """At most so many patches of each class can lie on a slide, none within half a side of another.

    Nearer ones show the same tissue again. Tissue and focus, which are not known yet, only lower the numbers.

    Args:
        areas_m: areas of a slide by label, model px.
        patch_m: side of a patch.
        test_rule: patches get their label by the test rule.

    Returns:
        By label; 0 where not a single patch can.
    """
    share = TEST_SHARE if test_rule else LABEL_SHARE
    tumour, non_tumour = (areas_m[label] for label in (TUMOUR, NON_TUMOUR))
    # By the test rule a patch of non-tumour may be half tumour.
    beside = _pixels(tumour) if test_rule and non_tumour.area > 0 else 0.0
    return {
        TUMOUR: _patches(_pixels(tumour), share * patch_m**2),
        NON_TUMOUR: _patches(_pixels(non_tumour) + beside, share * patch_m**2),
    }


def _pixels(area_m: BaseGeometry) -> float:
    """How many pixels an area holds, at most: they count by their centres, so its outline adds up to its length."""
    return float(area_m.area + area_m.length)


def _patches(pixels: float, least: float) -> int:
    """How many patches can share so many pixels, where each needs more than the least and no pixel serves more than four."""
    return math.floor(_OVERLAP * pixels / least) if pixels > least else 0
