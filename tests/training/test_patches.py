from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Point, Polygon, box

from hepamap.tissue import is_background_pixel
from hepamap.training.masks import ShareMap, rasterise
from hepamap.training.patches import NO_LABEL, NON_TUMOUR, TUMOUR, is_tissue, labels_for_test, labels_for_training

P = 64


def covered(pixels: int) -> NDArray[np.bool_]:
    mask = np.zeros(P * P, np.bool_)
    mask[:pixels] = True
    return mask.reshape(P, P)


def share(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return ShareMap(mask).shares(np.array([0]), np.array([0]), P)


# 75 % of 64 × 64 px are 3,072 px and 50 % are 2,048 px, exactly.
@pytest.mark.parametrize(("pixels", "label"), [(3072, NO_LABEL), (3073, TUMOUR), (4096, TUMOUR), (0, NO_LABEL)])
def test_training_label_needs_more_than_75_percent_tumour(pixels: int, label: int) -> None:
    assert labels_for_training(share(covered(pixels)), np.zeros(1)).tolist() == [label]


@pytest.mark.parametrize(("pixels", "label"), [(3072, NO_LABEL), (3073, NON_TUMOUR)])
def test_training_label_needs_more_than_75_percent_non_tumour(pixels: int, label: int) -> None:
    assert labels_for_training(np.zeros(1), share(covered(pixels))).tolist() == [label]


@pytest.mark.parametrize(("pixels", "label"), [(2048, NON_TUMOUR), (2049, TUMOUR), (0, NON_TUMOUR)])
def test_test_label_is_tumour_above_50_percent_else_non_tumour(pixels: int, label: int) -> None:
    assert labels_for_test(share(covered(pixels)), np.ones(1)).tolist() == [label]


@pytest.mark.parametrize(("one_more", "label"), [(False, NO_LABEL), (True, TUMOUR)])
def test_an_outline_around_exactly_75_percent(one_more: bool, label: int) -> None:
    drawn = box(0, 0, 48, P).union(box(48, 0, 49, 1)) if one_more else box(0, 0, 48, P)
    assert labels_for_training(share(rasterise(drawn, P, P)), np.zeros(1)).tolist() == [label]


@pytest.mark.parametrize(("one_more", "label"), [(False, NON_TUMOUR), (True, TUMOUR)])
def test_an_outline_around_exactly_50_percent(one_more: bool, label: int) -> None:
    drawn = box(0, 0, 32, P).union(box(32, 0, 33, 1)) if one_more else box(0, 0, 32, P)
    annotated = drawn.union(box(0, 0, P, P))
    assert labels_for_test(share(rasterise(drawn, P, P)), share(rasterise(annotated, P, P))).tolist() == [label]


def test_test_label_needs_annotated_ground() -> None:
    assert labels_for_test(np.array([0.5, 0.0]), np.array([0.5, 0.51])).tolist() == [NO_LABEL, NON_TUMOUR]


@pytest.mark.parametrize(("white", "kept"), [(2048, True), (2049, False)])
def test_background_is_more_than_50_percent_bright_pixels(white: int, kept: bool) -> None:
    rgb = np.where(covered(white)[..., None], 201, 200).astype(np.uint8).repeat(3, axis=2)
    assert is_tissue(share(covered(white))).tolist() == [kept]
    assert (is_background_pixel(rgb).mean() <= 0.5) == kept


def test_a_pixel_counts_by_its_centre() -> None:
    assert rasterise(box(1, 1, 3, 2), 4, 3).tolist() == [[False] * 4, [False, True, True, False], [False] * 4]
    assert rasterise(box(0.6, 0, 1.4, 1), 2, 1).tolist() == [[False, False]]
    assert rasterise(box(0.4, 0, 1.6, 1), 2, 1).tolist() == [[True, True]]


def test_holes_islands_and_what_lies_outside() -> None:
    ring = Polygon(box(-5, -5, 9, 9).exterior.coords, [box(2, 2, 5, 6).exterior.coords])
    mask = rasterise(MultiPolygon([ring, box(10, 10, 30, 30)]), 12, 12)
    assert mask.sum() == 9 * 9 - 3 * 4 + 2 * 2
    assert not mask[3, 3]
    assert not rasterise(Polygon(), 3, 3).any()


def test_neighbours_share_no_pixel_and_miss_none() -> None:
    circle = Point(20.3, 19.7).buffer(13)
    inside, outside = rasterise(circle, 40, 40), rasterise(box(-1, -1, 41, 41).difference(circle), 40, 40)
    assert not (inside & outside).any()
    assert (inside | outside).all()
    assert inside.sum() == pytest.approx(circle.area, rel=0.01)


@given(mask=arrays(np.bool_, (9, 11)), patch=st.integers(1, 9), data=st.data())
def test_share_map_agrees_with_counting(mask: NDArray[np.bool_], patch: int, data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, 11 - patch)), data.draw(st.integers(0, 9 - patch))
    answer = ShareMap(mask).shares(np.array([x]), np.array([y]), patch)[0]
    assert answer == mask[y : y + patch, x : x + patch].mean()
