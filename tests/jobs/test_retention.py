from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.jobs import retention
from hepamap.jobs.disposal import register_upload
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Job, JobResult
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.retention import Removed, collect_garbage
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from hepamap.operations.keeping import noted_in
from tests.clock import Clock
from tests.jobs.questions import FAILURE, add, claimed, now, question

DAY_S = 24 * 3600.0


@pytest.fixture
def clock() -> Clock:
    """The store's clock begins 40 days ago."""
    clock = Clock()
    clock.now = datetime.now(UTC) - timedelta(days=40)
    return clock


def put(folder: Path, *, days_ago: float = 0.0, size: int = 1000) -> Path:
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * size)
    at = time.time() - days_ago * DAY_S
    os.utime(folder, (at, at))
    return folder


def done(store: JobStore, keeping: Keeping, name: str, **values: str) -> Job:
    """A job that has succeeded, with its result on the disk."""
    job = add(store, **values)
    store.succeed(claimed(store), JobResult("ok", (), name))
    put(keeping.results / name, days_ago=30)
    return now(store, job)


def names(removed: Removed) -> list[str]:
    return sorted(folder.name for folder in removed.folders)


def test_nothing_goes_by_age_unless_it_is_said(store: JobStore, keeping: Keeping) -> None:
    done(store, keeping, "old", upload="slide")
    put(keeping.uploads / "slide", days_ago=40)
    assert collect_garbage(store, keeping) == Removed((), (), 0)


def test_what_finished_long_ago_goes_with_its_files(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    old = done(store, keeping, "old", upload="slide")
    put(keeping.uploads / "slide", size=500)
    clock.advance(20 * DAY_S)
    new = done(store, keeping, "new")
    removed = collect_garbage(store, replace(keeping, results_days=30))
    assert (removed.jobs, names(removed), removed.bytes) == ((old.id,), ["old", "slide"], 1500)
    assert store.get(old.id) is None
    assert now(store, new).result is not None
    assert [path.name for path in keeping.results.iterdir()] == ["new"]
    assert list(keeping.uploads.iterdir()) == []


def test_others_get_in_while_many_expire(
    store: JobStore, keeping: Keeping, place: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 3)
    old = [done(store, keeping, f"old-{number}").id for number in range(8)]
    at_once: list[int] = []
    waited: list[int] = []
    another = JobStore.open(place)
    trail = AuditTrail(another.engine)

    def speak() -> None:
        trail.append(AuditEvent("other", "act", 200))
        waited.append(len(at_once))

    speaking = threading.Thread(target=speak)

    def note(session: Session, job_ids: Sequence[str]) -> None:
        noted_in(AuditTrail(store.engine), "me")(session, job_ids)
        at_once.append(len(job_ids))
        if not speaking.is_alive() and not waited:
            speaking.start()  # its entry has to wait until this transaction is over, and no longer

    removed = collect_garbage(store, replace(keeping, results_days=30), on_removed=note)
    speaking.join()
    assert at_once == [3, 3, 2]
    assert waited == [1]
    assert (set(removed.jobs), names(removed)) == (set(old), sorted(f"old-{number}" for number in range(8)))
    assert removed.bytes == 8000
    assert trail.verify().seq == 9
    another.close()


def test_what_expired_before_the_database_went_away_leaves_nothing(
    store: JobStore, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    for number in range(5):
        done(store, keeping, f"old-{number}")
    times: list[int] = []

    def note(_session: Session, _job_ids: Sequence[str]) -> None:
        times.append(1)
        if len(times) == 2:
            raise JobStoreError("It went away.", cure="Wait.")

    with pytest.raises(JobStoreError):
        collect_garbage(store, replace(keeping, results_days=30), on_removed=note)
    left = {job.result.location for job in store.page().jobs if job.result is not None}
    assert len(left) == 3
    assert {path.name for path in keeping.results.iterdir()} == left


def test_a_dry_run_says_the_same_and_does_nothing(store: JobStore, keeping: Keeping) -> None:
    old = done(store, keeping, "old", upload="slide")
    put(keeping.uploads / "slide")
    register_upload(store, "stray")
    put(keeping.uploads / "stray", days_ago=2)
    month = replace(keeping, results_days=30)
    said = collect_garbage(store, month, dry_run=True)
    assert now(store, old).result is not None
    assert (keeping.results / "old").exists()
    assert collect_garbage(store, month) == said
    assert (said.jobs, names(said)) == ((old.id,), ["old", "slide", "stray"])
    assert collect_garbage(store, month) == Removed((), (), 0)


def test_what_waits_or_runs_never_expires(store: JobStore, keeping: Keeping) -> None:
    add(store, upload="waiting")
    running = add(store, upload="running", priority=1)
    work = claimed(store)
    for name in ("waiting", "running"):
        put(keeping.uploads / name, days_ago=39)
    put(keeping.results / f".{work.id}.1.partial", days_ago=39)
    put(keeping.scratch / work.pieces, days_ago=39)
    assert collect_garbage(store, replace(keeping, results_days=1, uploads_days=1)) == Removed((), (), 0)
    assert now(store, running).state is JobState.RUNNING


def test_an_upload_goes_before_its_result(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    job = done(store, keeping, "result", upload="slide")
    put(keeping.uploads / "slide", days_ago=40)
    assert names(collect_garbage(store, replace(keeping, uploads_days=50))) == []
    assert names(collect_garbage(store, replace(keeping, uploads_days=30))) == ["slide"]
    assert now(store, job).result is not None


def test_an_upload_that_is_read_again_stays(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    done(store, keeping, "result", upload="slide")
    put(keeping.uploads / "slide", days_ago=40)
    clock.advance(39 * DAY_S)
    add(store, upload="slide")
    store.fail(claimed(store), FAILURE)
    assert names(collect_garbage(store, replace(keeping, uploads_days=30))) == []


def test_a_shared_result_stays_as_long_as_the_newest_job_that_has_it(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    old = done(store, keeping, "result", key="same")
    clock.advance(39 * DAY_S)
    new = add(store, key="same")
    removed = collect_garbage(store, replace(keeping, results_days=30))
    assert (removed.jobs, names(removed)) == ((old.id,), [])
    assert now(store, new).result == JobResult("ok", (), "result")
    assert (keeping.results / "result").exists()


def test_what_a_crash_left_goes_when_it_is_a_day_old(store: JobStore, keeping: Keeping) -> None:
    work = store.computation(done(store, keeping, "wanted").computation_id)
    assert work is not None
    for name in ("old-stray", "young-stray", "file"):
        register_upload(store, name)
    put(keeping.results / f"{work.id}.1", days_ago=1.1)
    put(keeping.results / f".{work.id}.2-abc.partial", days_ago=0.9)
    put(keeping.uploads / "old-stray", days_ago=1.1)
    put(keeping.uploads / "young-stray", days_ago=0.9)
    put(keeping.scratch / work.pieces, days_ago=1.1)
    (keeping.uploads / "file").write_bytes(b"not a folder")
    os.utime(keeping.uploads / "file", (0, 0))
    assert names(collect_garbage(store, keeping)) == sorted([f"{work.id}.1", "file", "old-stray", work.pieces])
    assert {path.name for path in keeping.results.iterdir()} == {"wanted", f".{work.id}.2-abc.partial"}
    assert [path.name for path in keeping.uploads.iterdir()] == ["young-stray"]


def test_whoever_ends_while_much_expires_leaves_the_rest_to_the_next_time(
    store: JobStore, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 2)
    for number in range(5):
        done(store, keeping, f"old-{number}")
    ending: list[bool] = []

    def note(_session: Session, _job_ids: Sequence[str]) -> None:
        ending.append(True)

    first = collect_garbage(store, replace(keeping, results_days=30), on_removed=note, stopping=lambda: bool(ending))
    assert (len(first.jobs), len(first.folders)) == (2, 2)
    rest = collect_garbage(store, replace(keeping, results_days=30))
    assert (len(rest.jobs), len(rest.folders)) == (3, 3)


def test_a_computation_that_outlived_its_jobs_goes_when_it_has_ended(store: JobStore, keeping: Keeping) -> None:
    job = add(store, upload="slide")
    put(keeping.uploads / "slide", days_ago=2)
    work = claimed(store)
    store.request_cancel(job.id)
    store.delete_finished(job.id)
    assert names(collect_garbage(store, keeping)) == []
    store.cancel(work)
    assert names(collect_garbage(store, keeping)) == ["slide"]
    assert store.computation(work.id) is None


def test_folders_that_are_not_there_yet_are_no_trouble(store: JobStore, tmp_path: Path) -> None:
    data = tmp_path / "data"
    nowhere = Keeping(data / "a", data / "b", data / "c", 1, 1)
    assert collect_garbage(store, nowhere) == Removed((), (), 0)


def test_a_job_that_joins_while_its_computation_expires_keeps_it(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    old = done(store, keeping, "shared", key="same")
    clock.advance(39 * DAY_S)
    expired: list[Removed | Exception] = []

    def expire() -> None:
        try:
            expired.append(collect_garbage(store, replace(keeping, results_days=30)))
        except Exception as error:
            expired.append(error)

    expiring = threading.Thread(target=expire)

    def usable(_result: JobResult) -> bool:
        # Asked while the one that joins holds the computation: what expires now must wait for it, and look again.
        expiring.start()
        time.sleep(1.0)
        return True

    joined = store.submit(question(key="same"), usable=usable).job
    expiring.join()
    assert expired == [Removed((old.id,), (), 0)]
    assert now(store, joined).result == JobResult("ok", (), "shared")
