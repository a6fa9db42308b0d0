from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm.exc import StaleDataError
from structlog.testing import capture_logs

from hepamap.errors import CancelledError, SlideDamagedError
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobContext, JobHandler, JobRunner, RunnerLimits
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.jobs.questions import add, now, work_now

LIMITS = RunnerLimits(beat_s=0.02, stale_s=5.0, attempts_max=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


@contextmanager
def running(store: JobStore, handler: JobHandler, **options: Any) -> Iterator[JobRunner]:
    runner = JobRunner(store, {"k": handler}, LIMITS, **options)
    thread = threading.Thread(target=runner.run, args=(Polling(0.01),))
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def until_cancelled(work: Computation, context: JobContext) -> JobResult:
    context.report(JobProgress(1, 4, "classifying"))
    while not context.cancelled():
        time.sleep(0.005)
    raise CancelledError


def test_what_helps_to_go_on_stays_for_one_that_was_asked_for_again(store: JobStore) -> None:
    cleaned: list[str] = []
    wanted_again: list[str] = []

    def handle(work: Computation, context: JobContext) -> JobResult:
        if wanted_again:
            return JobResult("ok", (), work.id)
        # Cancelled while it runs, and asked for again before its worker hears of it.
        store.request_cancel(first.id)
        wanted_again.append(add(store, key="same").computation_id)
        return until_cancelled(work, context)

    first = add(store, key="same")
    with running(store, handle, clean_up=lambda work: cleaned.append(work.id)):
        wait_for(lambda: bool(cleaned))
    assert cleaned == wanted_again != [first.computation_id]
    assert work_now(store, first).state is JobState.CANCELLED


def test_what_cannot_be_cleaned_up_ends_no_worker(store: JobStore) -> None:
    def refuse(_work: Computation) -> None:
        raise ValueError("no name of a computation")

    jobs = [add(store) for _ in range(2)]
    with running(store, lambda work, context: JobResult("ok", (), work.id), clean_up=refuse), capture_logs() as logs:
        wait_for(lambda: all(now(store, job).finished for job in jobs))
        wait_for(lambda: [entry["event"] for entry in logs].count("job_not_cleaned_up") == 2)
    assert [now(store, job).state for job in jobs] == [JobState.SUCCEEDED] * 2


def test_jobs_are_done_one_after_the_other(store: JobStore) -> None:
    jobs = [add(store) for _ in range(3)]
    order: list[str] = []

    def handle(work: Computation, context: JobContext) -> JobResult:
        order.append(work.id)
        return JobResult("ok", (), work.id)

    with running(store, handle):
        wait_for(lambda: all(now(store, job).finished for job in jobs))
    assert order == [job.computation_id for job in jobs]
    assert [now(store, job).state for job in jobs] == [JobState.SUCCEEDED] * 3


def test_progress_and_heartbeat_are_stored_while_it_runs(store: JobStore) -> None:
    job = add(store)
    with running(store, until_cancelled):
        wait_for(lambda: now(store, job).progress == JobProgress(1, 4, "classifying"))
        first = work_now(store, job).heartbeat_at
        wait_for(lambda: work_now(store, job).heartbeat_at != first)
        assert len(store.workers(silent_for_s=5)) == 1
    assert store.workers(silent_for_s=5) == ()


def test_a_client_can_cancel_a_running_job(store: JobStore) -> None:
    job = add(store)
    with running(store, until_cancelled):
        wait_for(lambda: now(store, job).state is JobState.RUNNING)
        store.request_cancel(job.id)
        assert now(store, job).state is JobState.CANCELLED
        wait_for(lambda: work_now(store, job).state is JobState.CANCELLED, seconds=2.0)


def test_a_worker_that_stops_hands_its_job_back(store: JobStore) -> None:
    job = add(store)
    with running(store, until_cancelled):
        wait_for(lambda: now(store, job).state is JobState.RUNNING)
    assert (work_now(store, job).state, work_now(store, job).attempts) == (JobState.QUEUED, 0)


def test_a_client_who_cancelled_wins_over_a_worker_that_stops(store: JobStore) -> None:
    job = add(store)
    seen = threading.Event()

    def handle(work: Computation, context: JobContext) -> JobResult:
        while not context.cancelled():
            time.sleep(0.005)
        seen.set()
        time.sleep(0.1)
        raise CancelledError

    with running(store, handle):
        wait_for(lambda: now(store, job).state is JobState.RUNNING)
        store.request_cancel(job.id)
        seen.wait(5)
    assert work_now(store, job).state is JobState.CANCELLED


def test_a_foreseen_failure_keeps_its_words(store: JobStore) -> None:
    job = add(store)

    def handle(work: Computation, context: JobContext) -> JobResult:
        raise SlideDamagedError("Level 2 is damaged.", cure="Copy it again.")

    with running(store, handle):
        wait_for(lambda: now(store, job).finished)
    failure = now(store, job).failure
    assert failure is not None
    assert (failure.code, failure.message, failure.cure) == ("slide_damaged", "Level 2 is damaged.", "Copy it again.")


def test_an_unforeseen_failure_is_logged_whole_and_told_without_its_inside(store: JobStore) -> None:
    job, following = add(store), add(store)

    def handle(work: Computation, context: JobContext) -> JobResult:
        if work.id == job.computation_id:
            raise ZeroDivisionError("secret of the inside")
        return JobResult("ok", (), "x")

    with capture_logs() as logs, running(store, handle):
        wait_for(lambda: now(store, following).finished)
    failure = now(store, job).failure
    assert failure is not None
    assert failure.code == "internal_error"
    assert "secret" not in failure.message + failure.cure
    assert [entry["exc_info"] for entry in logs if entry["event"] == "job_crashed"] == [True]


def test_a_result_outlasts_a_database_that_is_busy_for_a_moment(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = add(store)
    succeed, refusals = store.succeed, [JobStoreError("busy", cure="-")] * 2

    def sometimes(work: Computation, result: JobResult) -> bool:
        if refusals:
            raise refusals.pop()
        return succeed(work, result)

    monkeypatch.setattr(store, "succeed", sometimes)
    with running(store, lambda work, context: JobResult("ok", (), "x")):
        wait_for(lambda: now(store, job).state is JobState.SUCCEEDED)


def test_a_job_that_was_given_away_is_left_alone(store: JobStore) -> None:
    job = add(store)
    with running(store, until_cancelled):
        wait_for(lambda: now(store, job).state is JobState.RUNNING)
        store.recover(attempts_max=1)
        assert now(store, job).state is JobState.FAILED
        time.sleep(0.1)
    assert now(store, job).state is JobState.FAILED


def test_a_worker_says_what_keeps_it_from_working(store: JobStore) -> None:
    with running(store, until_cancelled, trouble=lambda: "no memory"):
        wait_for(lambda: [seen.trouble for seen in store.workers(silent_for_s=60.0)] == ["no memory"])


def test_nothing_that_goes_wrong_ends_the_pulse(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the sign of life of the worker nor in that of its job: it still hears of a cancel."""
    job = add(store)
    report_worker, beat = store.report_worker, store.beat
    surprises: list[Exception] = [StaleDataError("gone"), ZeroDivisionError("odd")]

    def surprising(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            if surprises and now(store, job).state is JobState.RUNNING:
                raise surprises.pop()
            return method(*values, **options)

        return call

    monkeypatch.setattr(store, "report_worker", surprising(report_worker))
    monkeypatch.setattr(store, "beat", surprising(beat))
    with capture_logs() as logs, running(store, until_cancelled):
        wait_for(lambda: not surprises)
        wait_for(lambda: now(store, job).progress == JobProgress(1, 4, "classifying"))
        assert len(store.workers(silent_for_s=5)) == 1
        store.request_cancel(job.id)
        wait_for(lambda: work_now(store, job).state is JobState.CANCELLED)
    assert [entry["log_level"] for entry in logs if entry["event"] == "job_pulse_crashed"] == ["error", "error"]
