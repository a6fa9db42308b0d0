import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hepamap.rings import Rings, neighbours, trace_rings
from tests.slow_contours import slow_area, slow_labels, slow_rings

masks = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**31), st.sampled_from((0.3, 0.5, 0.65, 0.8))).map(
    lambda t: np.random.default_rng(t[2]).random(t[:2]) < t[3]
)


def of_each(rings: Rings) -> list[tuple[int, list[tuple[int, int]]]]:
    parts = np.split(rings.corners_cell, np.cumsum(rings.sizes)[:-1]) if len(rings) else []
    return [(int(label), [(int(x), int(y)) for x, y in corners]) for label, corners in zip(rings.labels, parts, strict=True)]


@settings(deadline=None, max_examples=300)
@given(masks)
def test_equal_to_a_walk_from_edge_to_edge(mask: NDArray[np.bool_]) -> None:
    labels = slow_labels(mask)
    rings = trace_rings(labels)
    assert of_each(rings) == slow_rings(labels)
    assert rings.areas_cell.tolist() == [slow_area(corners) for _, corners in of_each(rings)]


@settings(deadline=None)
@given(masks)
def test_the_areas_add_up_to_the_cells(mask: NDArray[np.bool_]) -> None:
    labels = slow_labels(mask)
    rings = trace_rings(labels)
    sums = np.bincount(rings.labels, weights=rings.areas_cell, minlength=int(labels.max()) + 1)
    assert sums[1:].tolist() == np.bincount(labels.ravel())[1:].tolist()
    for _, corners in of_each(rings):
        assert len(set(corners)) == len(corners)  # no ring meets itself


def test_nothing_has_no_outline() -> None:
    rings = trace_rings(np.zeros((3, 4), np.int32))
    assert len(rings) == 0
    assert rings.corners_cell.shape == (0, 2)
    assert len(rings.take(np.zeros(0, np.int64))) == 0


def test_one_row_and_one_column() -> None:
    assert of_each(trace_rings(np.array([[1, 1, 0, 2]], np.int32))) == [
        (1, [(0, 0), (2, 0), (2, 1), (0, 1)]),
        (2, [(3, 0), (4, 0), (4, 1), (3, 1)]),
    ]
    assert of_each(trace_rings(np.array([[7], [7]], np.int32))) == [(7, [(0, 0), (1, 0), (1, 2), (0, 2)])]


def test_taking_rings_keeps_what_is_theirs() -> None:
    rings = trace_rings(slow_labels(np.random.default_rng(2).random((30, 40)) < 0.6))
    order = np.random.default_rng(3).permutation(len(rings))[:-3]
    before = of_each(rings)
    assert of_each(rings.take(order)) == [before[place] for place in order]
    assert rings.take(order).areas_cell.tolist() == [rings.areas_cell[place] for place in order]


def test_neighbours_go_round_each_ring() -> None:
    before, after = neighbours(np.array([3, 1, 2]))
    assert before.tolist() == [2, 0, 1, 3, 5, 4]
    assert after.tolist() == [1, 2, 0, 3, 5, 4]
