"""Only what the database made itself, and knows that nobody needs, is ever taken for a stray."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from hepamap.jobs.disposal import Place, computation_in, dispose, forget_disposed, known_files, register_upload
from hepamap.jobs.job import Computation, JobResult
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.retention import collect_garbage
from hepamap.jobs.store import JobStore
from hepamap.jobs.strays import unfinished_results
from hepamap.jobs.tables import ComputationRow
from tests.clock import Clock
from tests.jobs.questions import FAILURE, add, claimed, now, question, work_now
from tests.jobs.test_retention import put
from tests.postgres import Postgres


@pytest.fixture
def other(request: pytest.FixtureRequest, place: Path | str, tmp_path: Path) -> Iterator[JobStore]:
    """Another database of the same kind, empty."""
    if isinstance(place, Path):
        store = JobStore.open(tmp_path / "other.sqlite3")
    else:
        server: Postgres = request.getfixturevalue("postgres")
        store = JobStore.open(server.new_database())
    yield store
    store.close()


def analysed(store: JobStore, keeping: Keeping, name: str) -> Computation:
    """A slide that was sent and analysed days ago, and what a worker that was given up left beside it."""
    register_upload(store, name)
    add(store, upload=name)
    work = claimed(store)
    location = f"{work.id}.{work.attempts}"
    store.succeed(work, JobResult("ok", (), location))
    put(keeping.results / location, days_ago=9)
    put(keeping.uploads / name, days_ago=9)
    return work_now(store, work)


def leave_strays(store: JobStore, keeping: Keeping, work: Computation) -> set[str]:
    """One of each kind, days old."""
    upload = f"{work.id}-upload"
    register_upload(store, upload)
    put(keeping.results / f".{work.id}.7-abc.partial", days_ago=9)
    put(keeping.uploads / upload, days_ago=9)
    put(keeping.scratch / work.pieces, days_ago=9)
    return {f".{work.id}.7-abc.partial", upload, work.pieces}


def here(keeping: Keeping) -> set[str]:
    return {path.name for folder in (keeping.results, keeping.uploads, keeping.scratch) for path in folder.iterdir()}


def test_two_databases_in_one_folder_tidy_each_its_own(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    works = {one: analysed(one, keeping, name) for one, name in ((store, "ours"), (other, "theirs"))}
    needed = here(keeping)
    strays = {one: leave_strays(one, keeping, work) for one, work in works.items()}
    for one, another in ((store, other), (other, store)):
        unknown = (needed & {"theirs" if one is store else "ours", f"{works[another].id}.1"}) | (strays[another] & here(keeping))
        removed = collect_garbage(one, keeping)
        assert {path.name for path in removed.folders} == strays[one]
        assert {path.name for path in removed.unknown} == unknown
    assert here(keeping) == needed


def test_an_empty_database_removes_nothing(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    leave_strays(store, keeping, analysed(store, keeping, "ours"))
    before = here(keeping)
    removed = collect_garbage(other, replace(keeping, results_days=1, uploads_days=1))
    assert (removed.folders, {path.name for path in removed.unknown}) == ((), before)
    assert here(keeping) == before
    assert collect_garbage(other, keeping, unknown=True, dry_run=True).unknown == ()
    assert here(keeping) == before
    put(keeping.uploads / "young")
    assert {path.name for path in collect_garbage(other, keeping, unknown=True).folders} == before
    assert here(keeping) == {"young"}


def test_an_older_backup_removes_nothing_that_was_made_since(tmp_path: Path, keeping: Keeping) -> None:
    path, backup = tmp_path / "jobs.sqlite3", tmp_path / "backup.sqlite3"
    with closing(JobStore.open(path)) as store:
        analysed(store, keeping, "before")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        analysed(store, keeping, "since")
        put(keeping.scratch / claimed_pieces(store), days_ago=9)
    before = here(keeping)
    shutil.copyfile(backup, path)
    for journal in tmp_path.glob("jobs.sqlite3-*"):
        journal.unlink()
    with closing(JobStore.open(path)) as store:
        assert len(store.page().jobs) == 1
        assert collect_garbage(store, keeping).folders == ()
    assert here(keeping) == before


def claimed_pieces(store: JobStore) -> str:
    add(store)
    return claimed(store).pieces


def test_an_upload_is_nobodys_until_a_computation_takes_it(store: JobStore, keeping: Keeping) -> None:
    for name in ("taken", "given", "forgotten"):
        register_upload(store, name)
        put(keeping.uploads / name, days_ago=2)
    add(store, upload="taken")
    # A job that joins brings a copy of the slide for a computation that reads it at a path.
    assert not store.submit(question(key="same")).shared
    assert not store.submit(question(key="same", upload="given")).shared
    assert {path.name for path in collect_garbage(store, keeping).folders} == {"forgotten"}
    assert here(keeping) == {"taken", "given"}


def test_an_upload_that_is_under_way_stays(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    register_upload(store, "slow")
    # Registered, and not there yet, for longer than a round of tidying.
    clock.advance(3 * 3600.0)
    collect_garbage(store, keeping)
    put(keeping.uploads / "slow")
    assert collect_garbage(store, keeping).folders == ()
    assert "slow" in known_files(store).uploads_over


def test_whoever_is_killed_before_the_files_are_gone_has_said_which_they_are(store: JobStore, keeping: Keeping) -> None:
    work = analysed(store, keeping, "slide")
    put(keeping.scratch / work.pieces, days_ago=2)
    before = here(keeping)
    (job,) = store.page().jobs
    assert store.delete_finished(job.id) is not None  # and here it is killed
    assert store.computation(work.id) is None
    removed = collect_garbage(store, keeping)
    assert ({path.name for path in removed.folders}, removed.unknown) == (before, ())
    assert here(keeping) == set()


def test_what_a_deleted_computation_wrote_late_is_known_for_a_month(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    work = analysed(store, keeping, "slide")
    (job,) = store.page().jobs
    store.delete_finished(job.id)
    collect_garbage(store, keeping)
    clock.advance(29 * 86_400.0)
    forget_disposed(store)
    put(keeping.results / f"{work.id}.1", days_ago=2)
    assert {path.name for path in collect_garbage(store, keeping).folders} == {f"{work.id}.1"}
    clock.advance(2 * 86_400.0)
    forget_disposed(store)
    put(keeping.results / f"{work.id}.1", days_ago=2)
    assert {path.name for path in collect_garbage(store, keeping).unknown} == {f"{work.id}.1"}


def test_what_a_failed_computation_wrote_goes(store: JobStore, keeping: Keeping) -> None:
    add(store)
    work = claimed(store)
    put(keeping.results / f"{work.id}.1", days_ago=2)
    assert collect_garbage(store, keeping).folders == ()
    store.fail(work, FAILURE)
    assert {path.name for path in collect_garbage(store, keeping).folders} == {f"{work.id}.1"}


def test_a_shared_upload_is_kept_for_the_other_one(store: JobStore, keeping: Keeping) -> None:
    jobs = [add(store, upload="slide") for _ in range(2)]
    put(keeping.uploads / "slide", days_ago=2)
    for _ in jobs:
        store.fail(claimed(store), FAILURE)
    store.delete_finished(jobs[0].id)
    assert collect_garbage(store, keeping).folders == ()
    store.delete_finished(jobs[1].id)
    assert {path.name for path in collect_garbage(store, keeping).folders} == {"slide"}


def test_a_worker_removes_only_what_its_own_database_was_writing(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    mine, theirs = analysed(store, keeping, "ours"), analysed(other, keeping, "theirs")
    for work in (mine, theirs):
        put(keeping.results / f".{work.id}.2-abc.partial")
    put(keeping.results / ".of-nobody")
    assert [path.name for path in unfinished_results(store, keeping.results)] == [f".{mine.id}.2-abc.partial"]


def as_an_older_version_made_it(store: JobStore) -> None:
    """A server of the version before, which still runs, knows no pieces."""
    with store.writing() as session:
        session.execute(update(ComputationRow).values(pieces=""))


def test_a_job_of_an_older_version_has_its_pieces_at_its_key(store: JobStore, keeping: Keeping) -> None:
    job = add(store, key="the-key")
    as_an_older_version_made_it(store)
    work = claimed(store)
    assert (work.pieces, store.wanted("the-key"), store.wanted("")) == ("the-key", True, False)
    put(keeping.scratch / "the-key", days_ago=2)
    assert collect_garbage(store, keeping).folders == ()
    # The same question again, where its first computation is being given up, goes on from there.
    store.request_cancel(job.id)
    assert work_now(store, add(store, key="the-key")).pieces == "the-key"
    store.cancel(work)
    assert collect_garbage(store, keeping).folders == ()
    store.fail(claimed(store), FAILURE)
    assert now(store, job).finished
    assert {path.name for path in collect_garbage(store, keeping).folders} == {"the-key"}


def test_pieces_that_an_older_worker_puts_at_the_key_stay_while_it_works(store: JobStore, keeping: Keeping) -> None:
    add(store, key="the-key")
    claimed(store)
    put(keeping.scratch / "the-key", days_ago=2)
    assert collect_garbage(store, keeping).folders == ()


def test_pieces_that_another_database_has_at_the_key_stay(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    """Equal questions have equal keys in every database."""
    add(store, key="the-key")
    store.fail(claimed(store), FAILURE)
    add(other, key="the-key")
    as_an_older_version_made_it(other)
    assert claimed(other).pieces == "the-key"
    put(keeping.scratch / "the-key", days_ago=2)
    assert collect_garbage(store, keeping).folders == ()
    assert collect_garbage(other, keeping).folders == ()


def test_an_upload_whose_place_another_one_took_is_disposed_of(store: JobStore, keeping: Keeping) -> None:
    add(store, key="same", upload="first")
    put(keeping.uploads / "first", days_ago=2)
    gone_for_a_moment = store.submit(question(key="same", upload="second"), is_there=lambda _: False)
    assert not gone_for_a_moment.shared
    assert {path.name for path in collect_garbage(store, keeping).folders} == {"first"}


def test_what_a_round_that_ends_has_not_removed_is_known_to_the_next(store: JobStore, keeping: Keeping, clock: Clock) -> None:
    register_upload(store, "stray")
    put(keeping.uploads / "stray", days_ago=2)
    clock.advance(40 * 86_400.0)
    assert collect_garbage(store, keeping, stopping=lambda: True).folders == ()
    assert {path.name for path in collect_garbage(store, keeping).folders} == {"stray"}


def test_what_two_dispose_of_at_once_is_disposed_of(store: JobStore) -> None:
    """On PostgreSQL the second one waits for the first, whose row it cannot see; SQLite takes one after the other."""
    one_is_in, failures = threading.Event(), list[BaseException]()

    def say(names: list[str], *, first: bool) -> None:
        try:
            with store.writing() as session:
                dispose(session, Place.SCRATCH, names, store.now())
                if first:
                    one_is_in.set()
                    time.sleep(0.5)
        except BaseException as error:
            failures.append(error)

    first = threading.Thread(target=say, args=(["a", "b"],), kwargs={"first": True})
    first.start()
    one_is_in.wait()
    say(["b", "a", "c"], first=False)
    first.join()
    assert failures == []
    assert known_files(store).pieces_over == {"a", "b", "c"}


def test_what_the_system_puts_into_folders_is_none_of_its_business(store: JobStore, keeping: Keeping) -> None:
    put(keeping.results / "lost+found", days_ago=99)
    put(keeping.uploads / ".snapshot", days_ago=99)
    removed = collect_garbage(store, keeping, unknown=True)
    assert (removed.folders, here(keeping)) == ((), {"lost+found", ".snapshot"})


def test_many_names_at_once(store: JobStore, keeping: Keeping) -> None:
    for number in range(1200):
        add(store, upload=f"slide-{number}")
        store.fail(claimed(store), FAILURE)
    leftovers = store.expire(store.now() + timedelta(hours=1))
    assert len(leftovers.jobs) == 1200
    known = known_files(store)
    assert (len(known.over), len(known.uploads_over), len(known.pieces_over)) == (1200, 1200, 1200)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("0f8fad5b-d9cb-469f-a165-70867728950e.3", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        (".0f8fad5b-d9cb-469f-a165-70867728950e.3-x1.partial", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("0f8fad5b-d9cb-469f-a165", None),
        ("17", None),
    ],
)
def test_a_results_name_says_whose_it_is(name: str, found: str | None) -> None:
    assert computation_in(name) == found


def test_places_are_not_taken_for_each_other(store: JobStore, keeping: Keeping) -> None:
    register_upload(store, "name")
    put(keeping.uploads / "name", days_ago=2)
    put(keeping.scratch / "name", days_ago=2)
    removed = collect_garbage(store, keeping)
    assert (removed.folders, removed.unknown) == ((keeping.uploads / "name",), (keeping.scratch / "name",))
    assert [place.value for place in Place] == ["results", "uploads", "scratch"]
