"""How many patches annotations can hold, against patches that are laid on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from hepamap.training.capacity import most_patches
from hepamap.training.masks import ShareMap, rasterise
from hepamap.training.patches import NO_LABEL, labels_for_test, labels_for_training

NOTHING = shapely.Polygon()
SIDE, PATCH = 48, 8


def test_four_patches_share_a_pixel_at_most() -> None:
    # 10 × 10 patches of 64 px, 640 px of outline × 4: ⌊4 × (640² + 2560) / (0.75 × 64²)⌋.
    areas = {1: shapely.box(0, 0, 640, 640), 0: NOTHING}
    assert most_patches(areas, 64, test_rule=False) == {1: 536, 0: 0}
    # By the test rule half a patch suffices, and of non-tumour the other half may be tumour.
    assert most_patches(areas, 64, test_rule=True) == {1: 805, 0: 0}
    areas[0] = shapely.box(640, 0, 704, 640)
    assert most_patches(areas, 64, test_rule=True) == {1: 805, 0: 805 + 82}


@pytest.mark.parametrize(("side", "possible"), [(52, False), (56, True)])
def test_what_is_smaller_than_three_quarters_of_a_patch_holds_none(side: int, possible: bool) -> None:
    assert (most_patches({1: shapely.box(0, 0, side, side), 0: NOTHING}, 64, test_rule=False)[1] > 0) == possible


def laid(areas: dict[int, BaseGeometry], label: int, order: np.random.Generator, *, test_rule: bool) -> int:
    """Lay patches of a label, none within half a side of another, at any position, until none fits any more."""
    x, y = (values.ravel() for values in np.meshgrid(np.arange(SIDE - PATCH + 1), np.arange(SIDE - PATCH + 1)))
    tumour, non_tumour = (ShareMap(rasterise(areas[of], SIDE, SIDE)).shares(x, y, PATCH) for of in (1, 0))
    labels = labels_for_test(tumour, tumour + non_tumour) if test_rule else labels_for_training(tumour, non_tumour)
    kept: list[tuple[int, int]] = []
    for i in order.permutation(np.flatnonzero(labels == label)):
        assert labels[i] != NO_LABEL
        if all(abs(x[i] - at[0]) >= PATCH // 2 or abs(y[i] - at[1]) >= PATCH // 2 for at in kept):
            kept.append((int(x[i]), int(y[i])))
    return len(kept)


corner = st.floats(0, SIDE, allow_nan=False, width=32)
boxes = st.lists(st.tuples(corner, corner, corner, corner), max_size=4)


def union(of: list[tuple[float, float, float, float]]) -> BaseGeometry:
    return shapely.union_all([shapely.box(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in of])


@settings(max_examples=60, deadline=None)
@given(boxes, boxes, st.booleans(), st.integers(0, 9))
def test_no_more_can_be_laid(
    tumour: list[tuple[float, float, float, float]], rest: list[tuple[float, float, float, float]], test_rule: bool, seed: int
) -> None:
    areas = {1: union(tumour), 0: union(rest).difference(union(tumour))}
    most = most_patches(areas, PATCH, test_rule=test_rule)
    for label, number in itertools.product((0, 1), range(2)):
        assert laid(areas, label, np.random.default_rng([seed, number]), test_rule=test_rule) <= most[label]
