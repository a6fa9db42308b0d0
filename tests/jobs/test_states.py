from __future__ import annotations

import pytest

from hepamap.jobs.states import FINISHED, TRANSITIONS, JobState, sources_of


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_finished_states_are_those_that_nothing_leaves() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == FINISHED


@pytest.mark.parametrize("target", JobState)
def test_sources_are_the_table_read_backwards(target: JobState) -> None:
    assert sources_of(target) == {state for state in JobState if target in TRANSITIONS[state]}


def test_every_state_is_reached_from_queued() -> None:
    reached = {JobState.QUEUED}
    for _ in JobState:
        reached |= {target for state in reached for target in TRANSITIONS[state]}
    assert reached == set(JobState)
