from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from hepamap.jobs.job import Job, JobFailure, JobProgress, JobResult, WorkerSeen
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.jobs.conftest import Clock

RESULT = JobResult("ok_with_warnings", ({"code": "pale", "message": "Pale."},), "result-1")
FAILURE = JobFailure("slide_damaged", "It is damaged.", "Copy it again.")


def add(store: JobStore, **values: Any) -> Job:
    return store.add(kind="count", payload={"to": 3}, key="k", **values)


def claimed(store: JobStore) -> Job:
    job = store.claim()
    assert job is not None
    return job


def again(store: JobStore, job: Job) -> Job:
    found = store.get(job.id)
    assert found is not None
    return found


def test_a_new_job_waits(store: JobStore) -> None:
    job = add(store, priority=2)
    assert again(store, job) == job
    assert (job.state, job.attempts, job.priority, job.result, job.failure) == (JobState.QUEUED, 0, 2, None, None)
    assert job.created_at.tzinfo is UTC
    assert job.progress == JobProgress(0, None, "queued")


def test_nothing_is_claimed_from_an_empty_queue(store: JobStore) -> None:
    assert store.claim() is None


def test_claims_go_by_priority_then_age(store: JobStore) -> None:
    ids = [add(store, priority=priority).id for priority in (0, 5, 0, 5)]
    assert [claimed(store).id for _ in range(4)] == [ids[1], ids[3], ids[0], ids[2]]


def test_success_is_stored_whole(store: JobStore) -> None:
    add(store)
    job = claimed(store)
    assert store.succeed(job, RESULT)
    after = again(store, job)
    assert (after.state, after.result, after.failure, after.attempts) == (JobState.SUCCEEDED, RESULT, None, 1)
    assert after.finished_at is not None
    assert after.started_at is not None


def test_failure_is_stored_whole(store: JobStore) -> None:
    add(store)
    job = claimed(store)
    assert store.fail(job, FAILURE)
    assert (again(store, job).state, again(store, job).failure) == (JobState.FAILED, FAILURE)


def test_a_beat_stores_progress_and_the_stage_keeps_its_start(store: JobStore, clock: Clock) -> None:
    add(store)
    job = claimed(store)
    store.beat(job, JobProgress(1, 10, "reading"))
    first = again(store, job)
    clock.advance(5)
    beat = store.beat(job, JobProgress(4, 10, "reading"))
    second = again(store, job)
    assert beat.owned
    assert not beat.cancel_requested
    assert second.progress == JobProgress(4, 10, "reading")
    assert second.stage_started_at == first.stage_started_at
    assert second.heartbeat_at is not None
    assert first.heartbeat_at is not None
    assert (second.heartbeat_at - first.heartbeat_at).total_seconds() >= 5
    store.beat(job, JobProgress(0, 3, "tracing"))
    third = again(store, job).stage_started_at
    assert third is not None
    assert third > second.heartbeat_at


def test_cancelling_a_queued_job_ends_it(store: JobStore) -> None:
    job = add(store)
    after = store.request_cancel(job.id)
    assert after is not None
    assert after.state is JobState.CANCELLED
    assert store.claim() is None


def test_cancelling_a_running_job_asks_its_worker(store: JobStore) -> None:
    add(store)
    job = claimed(store)
    asked = store.request_cancel(job.id)
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert store.beat(job, job.progress).cancel_requested
    assert store.cancel(job)
    assert again(store, job).state is JobState.CANCELLED


def test_cancelling_a_finished_or_unknown_job_changes_nothing(store: JobStore) -> None:
    add(store)
    job = claimed(store)
    store.succeed(job, RESULT)
    before = again(store, job)
    assert store.request_cancel(job.id) == before
    assert store.request_cancel("nobody") is None


def test_only_finished_jobs_are_deleted(store: JobStore) -> None:
    job = add(store)
    assert not store.delete_finished(job.id)
    store.request_cancel(job.id)
    assert store.delete_finished(job.id)
    assert store.get(job.id) is None
    assert not store.delete_finished(job.id)


def test_a_job_that_is_handed_back_has_lost_no_attempt(store: JobStore) -> None:
    add(store)
    job = claimed(store)
    store.beat(job, JobProgress(5, 9, "reading"))
    assert store.hand_back(job)
    after = again(store, job)
    assert (after.state, after.attempts, after.started_at, after.lease) == (JobState.QUEUED, 0, None, None)
    assert after.progress == JobProgress(0, None, "queued")


def test_recovery_leaves_jobs_with_a_heartbeat_alone(store: JobStore, clock: Clock) -> None:
    add(store)
    job = claimed(store)
    clock.advance(50)
    store.beat(job, job.progress)
    clock.advance(50)
    assert store.recover(attempts_max=3, silent_for_s=60) == ()
    clock.advance(20)
    assert [found.id for found in store.recover(attempts_max=3, silent_for_s=60)] == [job.id]
    assert again(store, job).state is JobState.QUEUED


def test_recovery_gives_up_after_the_last_attempt(store: JobStore) -> None:
    job = add(store)
    for attempt in (1, 2, 3):
        assert claimed(store).attempts == attempt
        (settled,) = store.recover(attempts_max=3)
        assert settled.state is (JobState.FAILED if attempt == 3 else JobState.QUEUED)
    failure = again(store, job).failure
    assert failure is not None
    assert failure.code == "worker_lost"


def test_recovery_does_not_revive_a_job_that_was_to_be_cancelled(store: JobStore) -> None:
    add(store)
    store.request_cancel(claimed(store).id)
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


def test_pages_follow_each_other_newest_first(store: JobStore) -> None:
    ids = [add(store).id for _ in range(5)]
    first = store.page(limit=2)
    last = first.jobs[-1]
    second = store.page(limit=3, before=(last.created_at, last.id))
    assert [job.id for job in (*first.jobs, *second.jobs)] == ids[::-1]
    assert first.has_more
    assert not second.has_more


def test_pages_are_limited_to_a_state(store: JobStore) -> None:
    add(store)
    running = (add(store), claimed(store))[1]
    assert [job.id for job in store.page(state=JobState.RUNNING).jobs] == [running.id]
    assert store.page(state=JobState.FAILED).jobs == ()


def test_workers_are_seen_until_they_fall_silent(store: JobStore, clock: Clock) -> None:
    now = clock()
    for name in ("a", "b"):
        store.report_worker(WorkerSeen(name, "host", 17, now, now))
    assert [worker.id for worker in store.workers(silent_for_s=60)] == ["a", "b"]
    store.forget_workers(silent_for_s=60, worker_id="a")
    clock.advance(50)
    assert [worker.id for worker in store.workers(silent_for_s=60)] == ["b"]
    clock.advance(50)
    assert store.workers(silent_for_s=60) == ()


@pytest.mark.parametrize("claimers", [4])
def test_no_job_is_claimed_twice(tmp_path: Path, store: JobStore, claimers: int) -> None:
    ids = {add(store).id for _ in range(40)}
    # Each with a store of its own: as in other processes, nothing but the database is between them.
    stores = [JobStore.open(tmp_path / "jobs.sqlite3") for _ in range(claimers)]
    taken: list[str] = []
    start = threading.Barrier(claimers)

    def claim_all(own: JobStore) -> None:
        start.wait()
        while (job := own.claim()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=claim_all, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in stores:
        own.close()
    assert Counter(taken) == Counter(ids)
