import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hepamap.lanes import Lane, plan_lanes

WIDTHS = (4, 10)


def plan(wanted: NDArray[np.bool_]) -> list[Lane]:
    return plan_lanes(wanted, WIDTHS, spare_columns=3.25, spare_rows=5)


@given(arrays(np.bool_, st.tuples(st.integers(1, 60), st.integers(1, 60)), elements=st.sampled_from([False] * 20 + [True])))
def test_every_wanted_position_is_in_exactly_one_lane(wanted: NDArray[np.bool_]) -> None:
    covered = np.zeros((wanted.shape[0], wanted.shape[1] + max(WIDTHS)), int)
    for lane in plan(wanted):
        assert lane.width in WIDTHS
        covered[lane.row : lane.row + lane.rows, lane.column : lane.column + lane.width] += 1
    assert np.all(covered[:, : wanted.shape[1]][wanted] == 1)
    assert covered.max(initial=0) <= 1


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
