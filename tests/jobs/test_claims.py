"""What workers do with computations."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from hepamap.jobs.job import JobProgress, WorkerSeen
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.clock import Clock
from tests.jobs.questions import FAILURE, RESULT, add, claimed, now, work_now
from tests.postgres import Postgres


def test_nothing_is_claimed_from_an_empty_queue(store: JobStore) -> None:
    assert store.claim() is None


def test_claims_go_by_priority_then_age(store: JobStore) -> None:
    ids = [add(store, priority=priority).computation_id for priority in (0, 5, 0, 5)]
    assert [claimed(store).id for _ in range(4)] == [ids[1], ids[3], ids[0], ids[2]]


def test_success_is_stored_whole(store: JobStore) -> None:
    job = add(store)
    work = claimed(store)
    assert store.succeed(work, RESULT)
    after = now(store, job)
    assert (after.state, after.result, after.failure) == (JobState.SUCCEEDED, RESULT, None)
    assert work_now(store, work).attempts == 1
    assert after.finished_at is not None
    assert after.started_at is not None


def test_failure_is_stored_whole(store: JobStore) -> None:
    job = add(store)
    assert store.fail(claimed(store), FAILURE)
    assert (now(store, job).state, now(store, job).failure) == (JobState.FAILED, FAILURE)


def test_a_beat_stores_progress_and_the_stage_keeps_its_start(store: JobStore, clock: Clock) -> None:
    add(store)
    work = claimed(store)
    store.beat(work, JobProgress(1, 10, "reading"))
    first = work_now(store, work)
    clock.advance(5)
    beat = store.beat(work, JobProgress(4, 10, "reading"))
    second = work_now(store, work)
    assert beat.owned
    assert not beat.cancel_requested
    assert second.progress == JobProgress(4, 10, "reading")
    assert second.stage_started_at == first.stage_started_at
    assert second.heartbeat_at is not None
    assert first.heartbeat_at is not None
    assert (second.heartbeat_at - first.heartbeat_at).total_seconds() >= 5
    store.beat(work, JobProgress(0, 3, "tracing"))
    third = work_now(store, work).stage_started_at
    assert third is not None
    assert third > second.heartbeat_at


def test_one_that_is_handed_back_has_lost_no_attempt(store: JobStore) -> None:
    job = add(store)
    work = claimed(store)
    store.beat(work, JobProgress(5, 9, "reading"))
    assert store.hand_back(work)
    after = work_now(store, work)
    assert (after.state, after.attempts, after.started_at, after.lease) == (JobState.QUEUED, 0, None, None)
    assert now(store, job).progress == JobProgress(0, None, "queued")


def test_recovery_leaves_those_with_a_heartbeat_alone(store: JobStore, clock: Clock) -> None:
    add(store)
    work = claimed(store)
    clock.advance(50)
    store.beat(work, work.progress)
    clock.advance(50)
    assert store.recover(attempts_max=3, silent_for_s=60) == ()
    clock.advance(20)
    assert [found.id for found in store.recover(attempts_max=3, silent_for_s=60)] == [work.id]
    assert work_now(store, work).state is JobState.QUEUED


def test_recovery_gives_up_after_the_last_attempt(store: JobStore) -> None:
    job = add(store)
    for attempt in (1, 2, 3):
        assert claimed(store).attempts == attempt
        (settled,) = store.recover(attempts_max=3)
        assert settled.state is (JobState.FAILED if attempt == 3 else JobState.QUEUED)
    failure = now(store, job).failure
    assert failure is not None
    assert failure.code == "worker_lost"


def test_a_start_that_has_stored_something_is_not_in_vain(store: JobStore) -> None:
    job = add(store)
    for _ in range(5):
        store.beat(claimed(store), JobProgress(1, 2, "classifying"), kept=True)
        (settled,) = store.recover(attempts_max=2)
        assert settled.state is JobState.QUEUED
    # The count begins anew; progress alone, which goes with the start, does not move it.
    for state in (JobState.QUEUED, JobState.FAILED):
        store.beat(claimed(store), JobProgress(2, 2, "classifying"))
        (settled,) = store.recover(attempts_max=2)
        assert settled.state is state
    assert work_now(store, job).attempts == 7


def test_one_that_is_handed_back_is_not_in_vain(store: JobStore) -> None:
    add(store)
    for kept in (True, False, False):
        work = claimed(store)
        store.beat(work, JobProgress(1, 2, "classifying"), kept=kept)
        assert store.hand_back(work)
    for state in (JobState.QUEUED, JobState.FAILED):
        claimed(store)
        (settled,) = store.recover(attempts_max=2)
        assert settled.state is state


def test_one_that_kills_its_workers_does_not_block_the_queue(store: JobStore) -> None:
    add(store)
    following = add(store)
    for _ in range(3):
        claimed(store)
        store.recover(attempts_max=3)
    assert claimed(store).id == following.computation_id


def test_recovery_does_not_revive_what_nobody_wants(store: JobStore) -> None:
    job = add(store)
    claimed(store)
    store.request_cancel(job.id)
    (settled,) = store.recover(attempts_max=3)
    assert settled.state is JobState.CANCELLED


def test_a_claim_that_was_taken_over_changes_nothing(store: JobStore) -> None:
    add(store)
    old = claimed(store)
    store.recover(attempts_max=3)
    new = claimed(store)
    assert new.id == old.id
    assert not store.beat(old, old.progress).owned
    assert not store.succeed(old, RESULT)
    assert not store.fail(old, FAILURE)
    assert not store.cancel(old)
    assert not store.hand_back(old)
    assert store.succeed(new, RESULT)


def test_workers_are_seen_until_they_fall_silent(store: JobStore, clock: Clock) -> None:
    at = clock()
    for name in ("a", "b"):
        store.report_worker(WorkerSeen(name, "host", 17, at, at))
    assert [worker.id for worker in store.workers(silent_for_s=60)] == ["a", "b"]
    store.forget_workers(silent_for_s=60, worker_id="a")
    clock.advance(50)
    assert [worker.id for worker in store.workers(silent_for_s=60)] == ["b"]
    clock.advance(50)
    assert store.workers(silent_for_s=60) == ()


def test_a_worker_that_is_taken_off_the_list_as_it_speaks_is_put_on_again(postgres: Postgres, clock: Clock) -> None:
    """Another one takes it for dead between its look at the row and its change of it; SQLite's writers wait for each other."""
    store = JobStore.open(postgres.new_database(), clock=clock)
    at = clock()
    seen = WorkerSeen("a", "host", 17, at, at)
    store.report_worker(seen)
    removals = [lambda: store.forget_workers(silent_for_s=60, worker_id="a")]

    def remove_once(_session: object, _context: object, _instances: object) -> None:
        while removals:
            removals.pop()()

    event.listen(Session, "before_flush", remove_once)
    try:
        clock.advance(1)
        store.report_worker(seen)
    finally:
        event.remove(Session, "before_flush", remove_once)
    assert [worker.id for worker in store.workers(silent_for_s=60)] == ["a"]
    store.close()


@pytest.mark.parametrize("claimers", [4])
def test_nothing_is_claimed_twice(place: Path | str, store: JobStore, claimers: int) -> None:
    ids = {add(store).computation_id for _ in range(40)}
    # Each with a store of its own: as in other processes, nothing but the database is between them.
    stores = [JobStore.open(place) for _ in range(claimers)]
    taken: list[str] = []
    start = threading.Barrier(claimers)

    def claim_all(own: JobStore) -> None:
        start.wait()
        while (work := own.claim()) is not None:
            taken.append(work.id)

    threads = [threading.Thread(target=claim_all, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in stores:
        own.close()
    assert Counter(taken) == Counter(ids)


def test_five_hundred_that_wait_are_done_in_their_order(store: JobStore) -> None:
    asked = [add(store, priority=number % 3).computation_id for number in range(500)]
    by_urgency = [asked[number] for urgency in (2, 1, 0) for number in range(500) if number % 3 == urgency]
    done = []
    while (work := store.claim()) is not None:
        store.succeed(work, RESULT)
        done.append(work.id)
    assert done == by_urgency
    assert store.counts()[JobState.SUCCEEDED] == 500
