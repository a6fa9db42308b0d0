"""The states of a job and the legal moves between them: the one table that the store enforces."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
        JobState.RUNNING: frozenset(
            {
                JobState.SUCCEEDED,
                JobState.FAILED,
                JobState.CANCELLED,
                # Its worker stops or has vanished, and another one starts it anew.
                JobState.QUEUED,
            }
        ),
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: frozenset(),
        JobState.CANCELLED: frozenset(),
    }
)

FINISHED = frozenset(state for state, targets in TRANSITIONS.items() if not targets)


def sources_of(target: JobState) -> frozenset[JobState]:
    """The states from which a job may come into a state."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)
