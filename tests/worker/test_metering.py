"""What is noted around a handler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hepamap.errors import CancelledError
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobProgress, JobResult, Question
from hepamap.jobs.runner import JobContext
from hepamap.jobs.store import JobStore
from hepamap.operations.tallies import Tally, read
from hepamap.worker.metering import metered

RESULT = JobResult("ok", (), "somewhere")


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    store.submit(Question(kind="analysis", key="k", work={}, payload={}))
    yield store
    store.close()


def run(store: JobStore, steps: list[tuple[str, float]], *, fails: bool = False) -> list[JobProgress]:
    """Do the waiting computation: each step says its stage, then takes so many seconds."""
    clock, reported = Seconds(), list[JobProgress]()

    def handler(work: Computation, context: JobContext) -> JobResult:
        clock.now += 50.0  # before the first stage: of none
        for stage, seconds in steps:
            context.report(JobProgress(0, 1, stage))
            clock.now += seconds
        if fails:
            raise CancelledError
        return RESULT

    work = store.claim()
    assert work is not None
    context = JobContext(report=reported.append, cancelled=lambda: False)
    assert metered(handler, store, clock=clock)(work, context) == RESULT
    return reported


def totals(store: JobStore) -> tuple[Tally, ...]:
    with store.reading() as session:
        return read(session).get("stage_seconds", ())


def test_seconds_of_each_stage(store: JobStore) -> None:
    reported = run(store, [("reading", 1.0), ("reading", 2.0), ("classifying", 10.0), ("reading", 4.0)])
    assert [progress.stage for progress in reported] == ["reading", "reading", "classifying", "reading"]
    assert totals(store) == (Tally("classifying", 1, 10.0), Tally("reading", 1, 7.0))


def test_what_did_not_end_well_does_not_count(store: JobStore) -> None:
    with pytest.raises(CancelledError):
        run(store, [("reading", 1.0)], fails=True)
    assert totals(store) == ()


def test_the_result_counts_more_than_the_numbers(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    work = store.claim()
    assert work is not None

    def unavailable() -> None:
        raise JobStoreError("The job database does not answer.", cure="Try again in a moment.")

    monkeypatch.setattr(store, "writing", unavailable)
    context = JobContext(report=lambda progress: None, cancelled=lambda: False)
    assert metered(lambda work, context: RESULT, store)(work, context) == RESULT
