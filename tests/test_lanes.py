from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hepamap.lanes import Lane, plan_lanes

WIDTHS = (4, 10)
SPARE_COLUMNS = 3.25


def plan(wanted: NDArray[np.bool_]) -> list[Lane]:
    return plan_lanes(wanted, WIDTHS, spare_columns=SPARE_COLUMNS, spare_rows=5)


def few(places: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """Only some positions wanted, so that there are gaps."""
    wanted = np.zeros((4, 20), np.bool_)
    wanted[tuple(np.array(places, int).reshape(-1, 2).T)] = True
    return wanted


MANY = arrays(np.bool_, st.tuples(st.integers(1, 60), st.integers(1, 60)), elements=st.sampled_from([False] * 20 + [True]))
FEW = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19)), min_size=5, max_size=15).map(few)


@example(few([(0, 0), (0, 8), (0, 12), (0, 17)]))
@given(st.one_of(MANY, FEW))
def test_every_wanted_position_is_in_a_lane_and_lanes_meet_only_over_a_gap(wanted: NDArray[np.bool_]) -> None:
    lanes = plan(wanted)
    covered = np.zeros((wanted.shape[0], wanted.shape[1] + max(WIDTHS)), np.bool_)
    for lane in lanes:
        assert lane.width in WIDTHS
        covered[lane.row : lane.row + lane.rows, lane.column : lane.column + lane.width] = True
    assert np.all(covered[:, : wanted.shape[1]][wanted])
    for left, right in combinations(lanes, 2):
        same_rows = max(left.row, right.row) < min(left.row + left.rows, right.row + right.rows)
        if same_rows and left.column + left.width > right.column:
            between = np.flatnonzero(np.any(wanted[:, left.column : right.column + 1], axis=0))
            assert np.diff(between).max() - 1 > SPARE_COLUMNS


def test_a_lane_may_reach_over_a_gap_into_the_next() -> None:
    wanted = np.zeros((3, 40), np.bool_)
    wanted[:, [0, 20]] = True
    assert plan_lanes(wanted, (29,), spare_columns=SPARE_COLUMNS, spare_rows=5) == [Lane(0, 0, 29, 3), Lane(20, 0, 29, 3)]


def test_nothing_wanted_no_lanes() -> None:
    assert plan(np.zeros((9, 9), np.bool_)) == []


def test_a_gap_is_walked_where_that_is_cheaper_than_a_new_lane() -> None:
    wanted = np.zeros((40, 3), np.bool_)
    wanted[[2, 8, 20]] = True  # 5 empty rows between the first two, 11 before the third
    assert plan(wanted) == [Lane(0, 2, 4, 7), Lane(0, 20, 4, 1)]


@pytest.mark.parametrize(("columns", "widths"), [(4, [4]), (5, [10]), (8, [10]), (12, [4, 4, 4]), (20, [10, 10])])
def test_the_width_is_chosen_by_area(columns: int, widths: list[int]) -> None:
    # With 3.25 columns spared by each lane, 2 lanes of 4 cost 14.5 and one of 10 costs 13.25; 3 of 4 cost 21.75, 2 of 10 26.5.
    assert [lane.width for lane in plan(np.ones((30, columns), np.bool_))] == widths


def test_narrow_lanes_follow_a_diagonal() -> None:
    wanted = np.eye(200, dtype=np.bool_).repeat(2, axis=1)[:, :200]
    assert {lane.width for lane in plan(wanted)} == {4}
