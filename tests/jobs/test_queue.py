"""Workers that procrastinate wakes: whatever becomes of its entries, every computation is done, and once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from hepamap.errors import CancelledError
from hepamap.jobs import queue
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobResult
from hepamap.jobs.queue import Polling, Procrastinate, source_of
from hepamap.jobs.runner import JobContext, JobHandler, JobRunner, RunnerLimits
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.jobs.questions import add, claimed, now
from tests.jobs.test_runner import wait_for
from tests.postgres import Postgres

STALE_S = 1.0
LIMITS = RunnerLimits(beat_s=0.1, stale_s=STALE_S, attempts_max=3)
PATIENCE_S = 30.0  # nothing is timed here; the longest way is two looks around, of which there is one every five seconds


@pytest.fixture
def store(postgres: Postgres) -> Iterator[JobStore]:
    store = JobStore.open(postgres.new_database())
    yield store
    store.close()


@contextmanager
def working(store: JobStore, *handlers: JobHandler) -> Iterator[None]:
    """One worker for each handler."""
    runners = [JobRunner(store, {"k": handler}, LIMITS) for handler in handlers]
    source = Procrastinate(store.engine.url, STALE_S)
    threads = [threading.Thread(target=runner.run, args=(source,)) for runner in runners]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for runner in runners:
            runner.stop()
        for thread in threads:
            thread.join()


def at_once(work: Computation, context: JobContext) -> JobResult:
    return JobResult("ok", (), work.id)


def entries(store: JobStore, status: str) -> int:
    with store.engine.connect() as connection:
        query = text("SELECT count(*) FROM procrastinate_jobs WHERE status::text = :status")
        return int(connection.execute(query, {"status": status}).scalar_one())


def test_each_database_has_its_source(store: JobStore, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert isinstance(source_of(store.engine.url, poll_s=1, stale_s=STALE_S), Procrastinate)
    small = JobStore.open(tmp_path_factory.mktemp("small") / "jobs.sqlite3")
    assert source_of(small.engine.url, poll_s=1.5, stale_s=STALE_S) == Polling(1.5)
    small.close()


def test_two_workers_share_what_waits_and_what_comes(store: JobStore) -> None:
    done: list[tuple[int, str]] = []

    def by(number: int) -> JobHandler:
        def handle(work: Computation, context: JobContext) -> JobResult:
            done.append((number, work.id))
            time.sleep(0.02)
            return JobResult("ok", (), work.id)

        return handle

    jobs = [add(store) for _ in range(10)]
    with working(store, by(1), by(2)):
        jobs += [add(store) for _ in range(20)]
        wait_for(lambda: all(now(store, job).finished for job in jobs), PATIENCE_S)
    assert sorted(work_id for _, work_id in done) == sorted(job.computation_id for job in jobs)
    assert {number for number, _ in done} == {1, 2}


def test_entries_do_not_pile_up(store: JobStore) -> None:
    jobs = [add(store) for _ in range(20)]
    assert entries(store, "todo") == 20
    with working(store, at_once):
        wait_for(lambda: all(now(store, job).finished for job in jobs), PATIENCE_S)
        wait_for(lambda: entries(store, "todo") == 0, PATIENCE_S)
    assert [entries(store, status) for status in ("todo", "doing", "succeeded", "failed")] == [0, 0, 0, 0]


def test_a_computation_whose_entry_was_lost_is_done_all_the_same(store: JobStore) -> None:
    job = add(store)
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM procrastinate_jobs"))
    with working(store, at_once):
        wait_for(lambda: now(store, job).finished, PATIENCE_S)


def test_what_a_dead_worker_left_is_taken_over_and_cleared(store: JobStore) -> None:
    job = add(store)
    claimed(store)
    with store.engine.begin() as connection:
        # As a killed worker leaves it: taken, and nobody there.
        connection.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
    with working(store, at_once):
        wait_for(lambda: now(store, job).state is JobState.SUCCEEDED, PATIENCE_S)
        wait_for(lambda: entries(store, "doing") == 0, PATIENCE_S)


def test_idle_and_busy_workers_look_around_without_a_trace(
    postgres: Postgres, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_LOOK_AROUND_S", 0.1)
    begun, told = threading.Event(), threading.Event()

    def patient(work: Computation, context: JobContext) -> JobResult:
        begun.set()
        assert told.wait(PATIENCE_S)
        return JobResult("ok", (), work.id)

    log = postgres.folder / "log"
    before = len(log.read_text(encoding="utf-8"))
    job = add(store)
    with working(store, patient, patient):
        assert begun.wait(PATIENCE_S)
        time.sleep(1.5)  # for many looks
        assert [entries(store, status) for status in ("todo", "doing")] == [0, 1]
        told.set()
        wait_for(lambda: now(store, job).finished, PATIENCE_S)
    assert "ERROR" not in log.read_text(encoding="utf-8")[before:]


def until_cancelled(begun: threading.Event) -> JobHandler:
    """A handler that says when it has begun, and works until it is to end."""

    def patient(work: Computation, context: JobContext) -> JobResult:
        begun.set()
        while not context.cancelled():
            time.sleep(0.01)
        raise CancelledError

    return patient


def test_a_worker_that_stops_hands_its_computation_to_the_next(store: JobStore) -> None:
    begun = threading.Event()
    job = add(store)
    with working(store, until_cancelled(begun)):
        assert begun.wait(PATIENCE_S)
    assert now(store, job).state is JobState.QUEUED
    with working(store, at_once):
        wait_for(lambda: now(store, job).state is JobState.SUCCEEDED, PATIENCE_S)


@contextmanager
def dying_before_the_entry(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PostgreSQL dies before the next entry is written, and comes back a moment later."""
    app, back = queue._deferring_app(), threading.Timer(0.5, postgres.start)

    class Dying:
        def configure_task(self, *names: str, **options: Any) -> Any:
            monkeypatch.undo()
            postgres.stop()
            back.start()
            return app.configure_task(*names, **options)

    monkeypatch.setattr(queue, "_deferring_app", Dying)
    yield
    back.join()


def test_a_database_that_dies_before_the_entry_is_written_does_not_answer(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore.open(postgres.new_database())
    with dying_before_the_entry(postgres, monkeypatch), pytest.raises(JobStoreError, match="does not answer") as caught:
        add(store, key="again")
    assert "ConnectorException" not in caught.value.because
    job = add(store, key="again")
    assert [found.id for found in store.page().jobs] == [job.id]
    store.close()


def test_what_is_handed_back_while_the_database_dies_is_handed_back_all_the_same(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore.open(postgres.new_database())
    begun = threading.Event()
    job = add(store)
    with ExitStack() as stack, capture_logs() as logs, working(store, until_cancelled(begun)):
        assert begun.wait(PATIENCE_S)
        stack.enter_context(dying_before_the_entry(postgres, monkeypatch))
    assert now(store, job).state is JobState.QUEUED
    assert [entry["job"] for entry in logs if entry["event"] == "job_handed_back"] == [job.computation_id]
    store.close()


def test_a_database_that_goes_away_costs_neither_what_runs_nor_what_waits(postgres: Postgres) -> None:
    store = JobStore.open(postgres.new_database())
    begun, back = threading.Event(), threading.Event()

    def handle(work: Computation, context: JobContext) -> JobResult:
        begun.set()
        assert back.wait(PATIENCE_S)
        return JobResult("ok", (), work.id)

    jobs = [add(store) for _ in range(3)]
    with working(store, handle):
        assert begun.wait(PATIENCE_S)
        postgres.stop()
        time.sleep(0.5)  # long enough for beats to fail
        postgres.start()
        back.set()
        wait_for(lambda: all(now(store, job).state is JobState.SUCCEEDED for job in jobs), 2 * PATIENCE_S)
    store.close()
