"""Questions, claims and answers that the tests of this folder share."""

from __future__ import annotations

import itertools
from typing import Any

from hepamap.jobs.job import Computation, Job, JobFailure, JobResult, Question
from hepamap.jobs.store import JobStore

RESULT = JobResult("ok_with_warnings", ({"code": "pale", "message": "Pale."},), "result-1")
FAILURE = JobFailure("slide_damaged", "It is damaged.", "Copy it again.")

_numbers = itertools.count()


def question(**values: Any) -> Question:
    """A question of its own, unless it is given the key of another one."""
    return Question(**{"kind": "k", "work": {"to": 3}, "payload": {"by": "me"}, "key": f"key-{next(_numbers)}"} | values)


def add(store: JobStore, **values: Any) -> Job:
    return store.submit(question(**values)).job


def claimed(store: JobStore) -> Computation:
    work = store.claim()
    assert work is not None
    return work


def now(store: JobStore, job: Job) -> Job:
    found = store.get(job.id)
    assert found is not None
    return found


def work_now(store: JobStore, job: Job | Computation) -> Computation:
    found = store.computation(job.computation_id if isinstance(job, Job) else job.id)
    assert found is not None
    return found
