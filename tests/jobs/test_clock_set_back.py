"""The machine's clock is set back by two hours: nobody lives on who is dead, nothing waits that is due, no chain breaks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.api.upload_room import UploadLimits
from hepamap.api.upload_store import UploadStore
from hepamap.delivery.outbox import Attempt, DeliveryState, Outbox
from hepamap.jobs.job import WorkerSeen
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.clock import Clock
from tests.delivery.conftest import put
from tests.jobs.questions import RESULT, add, claimed, now, work_now
from tests.uploads import ignored

HOURS = 2 * 3600.0


def test_what_a_dead_worker_left_is_taken_over_in_the_usual_time(store: JobStore, clock: Clock) -> None:
    job = add(store)
    lost = claimed(store)
    clock.advance(-HOURS)
    # Seen for the first time: it may live, so that its silence counts from now on.
    assert store.recover(attempts_max=3, silent_for_s=60.0) == ()
    clock.advance(59)
    assert store.recover(attempts_max=3, silent_for_s=60.0) == ()
    clock.advance(2)
    assert [work.state for work in store.recover(attempts_max=3, silent_for_s=60.0)] == [JobState.QUEUED]
    again = claimed(store)
    assert not store.succeed(lost, RESULT)
    assert store.succeed(again, RESULT)
    assert now(store, job).state is JobState.SUCCEEDED


def test_a_worker_that_lives_keeps_its_lease(store: JobStore, clock: Clock) -> None:
    add(store)
    work = claimed(store)
    clock.advance(-HOURS)
    for _ in range(5):
        assert store.beat(work, work.progress).owned
        clock.advance(30)
        assert store.recover(attempts_max=3, silent_for_s=60.0) == ()
    assert store.succeed(work, RESULT)
    assert work_now(store, work).state is JobState.SUCCEEDED


def test_a_dead_worker_does_not_look_alive_until_the_clock_has_caught_up(store: JobStore, clock: Clock) -> None:
    store.report_worker(WorkerSeen("dead", "here", 1, clock(), clock()))
    clock.advance(-HOURS)
    store.report_worker(WorkerSeen("new", "here", 2, clock(), clock()))
    store.forget_workers(silent_for_s=60.0)
    clock.advance(61)
    store.report_worker(WorkerSeen("new", "here", 2, clock(), clock()))
    store.forget_workers(silent_for_s=60.0)
    assert [worker.id for worker in store.workers(silent_for_s=1e9)] == ["new"]


def test_jobs_are_neither_lost_nor_out_of_reach(store: JobStore, clock: Clock) -> None:
    first = add(store)
    clock.advance(-HOURS)
    second = add(store)
    assert {claimed(store).id, claimed(store).id} == {first.computation_id, second.computation_id}
    pages = store.page(limit=1)
    assert pages.has_more
    rest = store.page(limit=1, before=(pages.jobs[0].created_at, pages.jobs[0].id))
    assert {pages.jobs[0].id, rest.jobs[0].id} == {first.id, second.id}


def test_the_audit_trail_stays_whole(store: JobStore, clock: Clock) -> None:
    trail = AuditTrail(store.engine, clock=clock)
    event = AuditEvent(actor="local", action="get_analysis", status=200)
    later = trail.append(event)
    clock.advance(-HOURS)
    earlier = trail.append(event)
    assert earlier.at < later.at
    assert trail.verify().seq == 2


def test_an_upload_is_kept_at_least_as_long_as_it_was_promised(tmp_path: Path, clock: Clock) -> None:
    limits = UploadLimits(tmp_path / "uploads", 1000, 1000, 0)
    uploads = UploadStore(limits, keep_for=timedelta(hours=24), register=ignored, clock=clock)
    upload = uploads.create(name="a.svs", length=10)
    clock.advance(-HOURS)
    assert uploads.remove_expired() == []
    opened = uploads.open(upload.id, 0)
    opened.write(bytes(10))
    opened.commit()
    opened.close()
    # From its last byte, by the clock as it is now.
    assert uploads.get(upload.id).expires_at < upload.expires_at
    clock.advance(24 * 3600 + 1)
    assert uploads.remove_expired() == [upload.id]


def test_a_callback_is_sent_at_once_and_tried_again_later(store: JobStore, clock: Clock) -> None:
    clock.now = datetime.now(UTC) - timedelta(seconds=HOURS)  # it is written down by the time of the worker's machine
    outbox = Outbox(store.engine, clock=clock)
    put(store.engine, "http://127.0.0.1/")
    (taken,) = outbox.take(10)
    assert outbox.take(10) == []
    assert outbox.settle(taken, Attempt(clock(), 0.1, 500, "no")) is DeliveryState.PENDING
    assert outbox.take(10) == []
    clock.advance(6)
    assert [again.attempts for again in outbox.take(10)] == [2]


@pytest.mark.parametrize(("tries", "wait_s"), [(1, 5), (4, 300)])
def test_a_callback_waits_for_its_next_try_no_longer_than_without(
    store: JobStore, clock: Clock, tries: int, wait_s: float
) -> None:
    clock.now = datetime.now(UTC)
    outbox = Outbox(store.engine, clock=clock)
    put(store.engine, "http://127.0.0.1/")
    for _ in range(tries):
        clock.advance(3600)
        (taken,) = outbox.take(10)
        outbox.settle(taken, Attempt(clock(), 0.1, 500, "no"))
    clock.advance(-HOURS)
    assert outbox.take(10) == []
    clock.advance(wait_s - 1)
    assert outbox.take(10) == []
    clock.advance(2)
    assert [again.attempts for again in outbox.take(10)] == [tries + 1]


def test_a_callback_that_is_under_way_is_not_sent_by_another_one_until_its_lease_is_over(store: JobStore, clock: Clock) -> None:
    clock.now = datetime.now(UTC)
    outbox = Outbox(store.engine, clock=clock)
    put(store.engine, "http://127.0.0.1/")
    outbox.take(10)
    clock.advance(-HOURS)
    assert outbox.take(10) == []
    clock.advance(119)
    assert outbox.take(10) == []
    clock.advance(2)
    assert [again.attempts for again in outbox.take(10)] == [2]
