"""What clients do with jobs: asking, sharing, repeating, cancelling, deleting."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hepamap.jobs.disposal import known_files
from hepamap.jobs.errors import IdempotencyKeyReusedError, JobStoreError
from hepamap.jobs.job import Idempotency, Job, JobProgress, Leftovers, Submission
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from tests.clock import Clock
from tests.jobs.questions import FAILURE, RESULT, add, claimed, now, question, work_now
from tests.postgres import Postgres


def test_a_new_job_waits(store: JobStore) -> None:
    job = add(store, priority=2)
    assert now(store, job) == job
    assert (job.state, job.priority, job.result, job.failure) == (JobState.QUEUED, 2, None, None)
    assert job.created_at.tzinfo is UTC
    assert job.progress == JobProgress(0, None, "queued")
    assert (job.payload, work_now(store, job).payload) == ({"by": "me"}, {"to": 3})


# ---- sharing ---------------------------------------------------------------------------------------------------------


def test_equal_questions_are_computed_once(store: JobStore) -> None:
    first = add(store, key="same")
    second = add(store, key="same", payload={"by": "you"})
    work = claimed(store)
    third = store.submit(question(key="same"))
    assert third.shared
    assert store.claim() is None
    assert [now(store, job).state for job in (first, second, third.job)] == [JobState.RUNNING] * 3
    store.succeed(work, RESULT)
    assert [now(store, job).result for job in (first, second, third.job)] == [RESULT] * 3
    assert len({first.id, second.id, third.job.id}) == 3
    assert now(store, second).payload == {"by": "you"}


def test_a_question_that_was_answered_is_answered_at_once(store: JobStore, clock: Clock) -> None:
    add(store, key="same")
    store.succeed(claimed(store), RESULT)
    clock.advance(60)
    late = add(store, key="same")
    assert (late.state, late.result) == (JobState.SUCCEEDED, RESULT)
    assert late.started_at == late.finished_at == late.created_at
    assert store.claim() is None


@pytest.mark.parametrize("end", ["fail", "cancel", "worker lost"])
def test_what_failed_or_was_cancelled_is_tried_again(store: JobStore, end: str) -> None:
    first = add(store, key="same")
    work = claimed(store)
    if end == "fail":
        store.fail(work, FAILURE)
    elif end == "cancel":
        store.request_cancel(first.id)
    else:
        store.recover(attempts_max=1)
    second = add(store, key="same")
    assert second.computation_id != first.computation_id
    assert claimed(store).id == second.computation_id


def test_a_result_that_was_lost_answers_nobody_any_more(store: JobStore) -> None:
    first = add(store, key="same")
    store.succeed(claimed(store), RESULT)
    again = store.submit(question(key="same"), usable=lambda result: result != RESULT)
    assert not again.shared
    assert again.job.state is JobState.QUEUED
    assert now(store, first).result == RESULT


def test_only_who_follows_one_that_is_being_given_up_goes_on_from_its_pieces(store: JobStore) -> None:
    first = add(store, key="same")
    claimed(store)
    store.request_cancel(first.id)
    second = add(store, key="same")
    assert work_now(store, second).pieces == work_now(store, first).pieces
    store.request_cancel(second.id)
    third = add(store, key="same", anew=True)
    other = add(store, key="other")
    assert len({work_now(store, job).pieces for job in (second, third, other)}) == 3


def test_what_is_computed_again_begins_without_the_pieces_that_were_left(store: JobStore) -> None:
    first = add(store, key="same")
    store.succeed(claimed(store), RESULT)
    again = store.submit(question(key="same"), usable=lambda _: False).job
    assert work_now(store, again).pieces != work_now(store, first).pieces
    assert not store.wanted(work_now(store, first).pieces)
    assert store.wanted(work_now(store, again).pieces)


def test_pieces_stay_the_same_from_start_to_start(store: JobStore) -> None:
    add(store)
    first = claimed(store)
    store.hand_back(first)
    second = claimed(store)
    store.recover(attempts_max=9)
    assert first.pieces == second.pieces == claimed(store).pieces


def test_who_joins_with_more_urgency_pulls_the_computation_forward(store: JobStore) -> None:
    add(store, key="slow", priority=0)
    add(store, key="other", priority=5)
    urgent = add(store, key="slow", priority=9)
    add(store, key="other", priority=-9)
    assert [claimed(store).key for _ in range(2)] == ["slow", "other"]
    assert urgent.priority == 9


def test_a_region_overtakes_a_batch(store: JobStore) -> None:
    batch = [add(store).computation_id for _ in range(5)]
    running = claimed(store)
    region = add(store, priority=10)
    store.succeed(running, RESULT)
    assert [claimed(store).id for _ in range(5)] == [region.computation_id, *batch[1:]]


# ---- idempotency -----------------------------------------------------------------------------------------------------


def test_a_request_that_comes_again_is_the_same_job(store: JobStore) -> None:
    mark = Idempotency("order-1", "hash")
    first = store.submit(question(key="a"), idempotency=mark)
    assert store.find_repeated(mark) == first.job
    again = store.submit(question(key="a"), idempotency=mark)
    assert (again.job, again.repeated) == (first.job, True)
    assert not first.repeated
    assert len(store.page().jobs) == 1


def test_a_mark_on_another_request_is_refused(store: JobStore) -> None:
    store.submit(question(), idempotency=Idempotency("order-1", "hash"))
    with pytest.raises(IdempotencyKeyReusedError):
        store.submit(question(), idempotency=Idempotency("order-1", "other"))
    with pytest.raises(IdempotencyKeyReusedError):
        store.find_repeated(Idempotency("order-1", "other"))
    assert len(store.page().jobs) == 1


@pytest.mark.parametrize("marked", [True, False])
def test_many_that_ask_the_same_at_once_share_one_computation(place: Path | str, store: JobStore, marked: bool) -> None:
    mark = Idempotency("order-1", "hash") if marked else None
    stores = [JobStore.open(place) for _ in range(6)]
    submissions: list[Submission] = []
    start = threading.Barrier(len(stores))

    def ask(own: JobStore) -> None:
        start.wait()
        submissions.append(own.submit(question(key="same"), idempotency=mark))

    threads = [threading.Thread(target=ask, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in stores:
        own.close()
    assert len({found.job.computation_id for found in submissions}) == 1
    assert len({found.job.id for found in submissions}) == (1 if marked else 6)
    assert Counter(found.shared for found in submissions) == {False: 1, True: 5}


# ---- cancelling ------------------------------------------------------------------------------------------------------


def test_cancelling_a_queued_job_ends_its_computation(store: JobStore) -> None:
    job = add(store)
    after = store.request_cancel(job.id)
    assert after is not None
    assert after.state is JobState.CANCELLED
    assert work_now(store, job).state is JobState.CANCELLED
    assert store.claim() is None


def test_cancelling_a_running_job_ends_it_at_once_and_tells_its_worker(store: JobStore) -> None:
    job = add(store)
    work = claimed(store)
    asked = store.request_cancel(job.id)
    assert asked is not None
    assert asked.state is JobState.CANCELLED
    assert asked.finished_at is not None
    assert store.beat(work, work.progress).cancel_requested
    assert store.cancel(work)
    assert now(store, job) == asked


def test_a_result_that_comes_too_late_does_not_undo_a_cancel(store: JobStore) -> None:
    job = add(store)
    work = claimed(store)
    store.request_cancel(job.id)
    assert store.succeed(work, RESULT)
    assert (now(store, job).state, now(store, job).result) == (JobState.CANCELLED, None)


@pytest.mark.parametrize("running", [True, False])
def test_cancelling_one_of_several_leaves_the_others_alone(store: JobStore, running: bool) -> None:
    first, second = add(store, key="same"), add(store, key="same")
    work = claimed(store) if running else None
    store.request_cancel(first.id)
    assert now(store, first).state is JobState.CANCELLED
    work = work or claimed(store)
    assert not store.beat(work, work.progress).cancel_requested
    store.succeed(work, RESULT)
    assert (now(store, first).state, now(store, second).state) == (JobState.CANCELLED, JobState.SUCCEEDED)


def test_the_last_one_to_cancel_ends_the_computation(store: JobStore) -> None:
    jobs = [add(store, key="same") for _ in range(3)]
    work = claimed(store)
    for job in jobs:
        assert not store.beat(work, work.progress).cancel_requested
        store.request_cancel(job.id)
    assert store.beat(work, work.progress).cancel_requested


def test_cancelling_a_finished_or_unknown_job_changes_nothing(store: JobStore) -> None:
    job = add(store)
    store.succeed(claimed(store), RESULT)
    before = now(store, job)
    assert store.request_cancel(job.id) == before
    assert store.request_cancel("nobody") is None


def race(*actions: Callable[[], object]) -> None:
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        start.wait()
        action()

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_who_joins_while_the_last_one_cancels_is_never_left_without_a_computation(place: Path | str, store: JobStore) -> None:
    with_other = JobStore.open(place)
    for number in range(30):
        first = add(store, key=f"same-{number}")
        joined: list[Job] = []
        race(
            lambda first=first: store.request_cancel(first.id),  # type: ignore[misc]
            lambda number=number, joined=joined: joined.append(add(with_other, key=f"same-{number}")),  # type: ignore[misc]
        )
        assert work_now(store, joined[0]).state is JobState.QUEUED
        assert now(store, first).state is JobState.CANCELLED
    with_other.close()


# ---- deleting --------------------------------------------------------------------------------------------------------


def test_only_finished_jobs_are_deleted(store: JobStore) -> None:
    job = add(store)
    assert store.delete_finished(job.id) is None
    store.request_cancel(job.id)
    assert store.delete_finished(job.id) == Leftovers(jobs=(job.id,))
    assert store.get(job.id) is None
    assert store.delete_finished(job.id) is None


def test_a_result_goes_with_the_last_job_that_has_it(store: JobStore) -> None:
    first, second = add(store, key="same", upload="slide"), add(store, key="same")
    store.succeed(claimed(store), RESULT)
    assert store.delete_finished(first.id) == Leftovers(jobs=(first.id,))
    assert now(store, second).result == RESULT
    assert store.delete_finished(second.id) == Leftovers((second.id,), (RESULT.location,), ("slide",))
    assert add(store, key="same").state is JobState.QUEUED


def test_an_upload_stays_while_another_computation_reads_it(store: JobStore) -> None:
    first, _ = add(store, upload="slide"), add(store, upload="slide")
    store.succeed(claimed(store), RESULT)
    assert store.delete_finished(first.id) == Leftovers((first.id,), (RESULT.location,), ())
    assert known_files(store).uploads == {"slide"}


def test_a_deleted_job_does_not_take_a_running_computation_with_it(store: JobStore) -> None:
    job = add(store, upload="slide")
    work = claimed(store)
    store.request_cancel(job.id)
    assert store.delete_finished(job.id) == Leftovers(jobs=(job.id,))
    assert known_files(store).uploads == {"slide"}
    assert store.cancel(work)


# ---- lists and hooks -------------------------------------------------------------------------------------------------


def test_pages_follow_each_other_newest_first(store: JobStore) -> None:
    ids = [add(store).id for _ in range(5)]
    first = store.page(limit=2)
    last = first.jobs[-1]
    second = store.page(limit=3, before=(last.created_at, last.id))
    assert [job.id for job in (*first.jobs, *second.jobs)] == ids[::-1]
    assert first.has_more
    assert not second.has_more


def test_pages_and_counts_tell_a_cancelled_job_from_its_running_computation(store: JobStore) -> None:
    one, two, _ = add(store, key="same"), add(store, key="same"), add(store)
    claimed(store)
    store.request_cancel(one.id)
    assert [job.id for job in store.page(state=JobState.RUNNING).jobs] == [two.id]
    assert [job.id for job in store.page(state=JobState.CANCELLED).jobs] == [one.id]
    counts = {state: number for state, number in store.counts().items() if number}
    assert counts == {JobState.QUEUED: 1, JobState.RUNNING: 1, JobState.CANCELLED: 1}


def test_the_hook_hears_of_every_end_once_and_in_its_transaction(place: Path | str) -> None:
    heard: list[tuple[str, JobState]] = []
    store = JobStore.open(place, on_finished=lambda session, jobs: heard.extend((job.id, job.state) for job in jobs))
    one, two = add(store, key="same"), add(store, key="same")
    store.request_cancel(one.id)
    store.succeed(claimed(store), RESULT)
    three = add(store, key="same")
    four = add(store)
    store.fail(claimed(store), FAILURE)
    five = add(store)
    store.request_cancel(five.id)
    store.close()
    assert heard == [
        (one.id, JobState.CANCELLED),
        (two.id, JobState.SUCCEEDED),
        (three.id, JobState.SUCCEEDED),
        (four.id, JobState.FAILED),
        (five.id, JobState.CANCELLED),
    ]


def test_an_end_whose_hook_fails_has_not_happened(place: Path | str) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the outbox is full")

    store = JobStore.open(place, on_finished=refuse)
    job = add(store)
    work = claimed(store)
    with pytest.raises(RuntimeError):
        store.succeed(work, RESULT)
    assert now(store, job).state is JobState.RUNNING
    store.close()


def test_a_job_and_its_queue_entry_are_written_together_or_not_at_all(postgres: Postgres) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the outbox is full")

    store = JobStore.open(postgres.new_database(), on_finished=refuse)
    add(store, key="same")

    def entries() -> tuple[int, int]:
        with store.engine.connect() as connection:
            count = connection.execute(text("SELECT count(*) FROM procrastinate_jobs")).scalar_one()
        return len(store.page().jobs), count

    assert entries() == (1, 1)
    add(store, key="other")
    assert entries() == (2, 2)
    # Handing back writes an entry too; the one that is refused here must not leave it behind.
    work = claimed(store)
    with pytest.raises(RuntimeError):
        store.succeed(work, RESULT)
    assert entries() == (2, 2)
    assert store.hand_back(work)
    assert entries() == (2, 3)
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs ADD CONSTRAINT nobody CHECK (priority < 5)"))
    with pytest.raises(JobStoreError):
        add(store, priority=7)
    assert entries() == (2, 3)
    store.close()


def test_what_is_large_stays_in_the_database_where_a_list_does_not_want_it(store: JobStore) -> None:
    marker = "a point of the region"
    large = {"region": [marker] * 10, "threshold": 0.5}
    add(store, payload={"request": large, "identity": None}, work={"detection": large})
    add(store, payload={"request": {"threshold": 0.7}, "identity": {"accession": "é"}}, work={"detection": large})
    loaded: list[str] = []

    def watch(value: str) -> Any:
        loaded.append(value)
        return json.loads(value)

    engine = store.engine
    if engine.dialect.name == "sqlite":
        engine.dialect._json_deserializer = watch
    page = store.page(without=("request", "region"))
    assert [dict(job.payload) for job in page.jobs] == [
        {"request": {"threshold": 0.7}, "identity": {"accession": "é"}},
        {"request": {"threshold": 0.5}, "identity": None},
    ]
    assert marker not in "".join(loaded)
    whole = [job.payload["request"].get("region") for job in store.page().jobs]
    assert whole == [None, [marker] * 10]
    if loaded:
        assert sum(marker in text for text in loaded) == 1  # the job's own; not the worker's beside it
