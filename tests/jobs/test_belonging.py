"""A server on another database, or on a new one, takes nobody's results for what a crash left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from structlog.testing import capture_logs

from hepamap.jobs import belonging
from hepamap.jobs.belonging import MARK_NAME, belongs, bind
from hepamap.jobs.database import open_database
from hepamap.jobs.job import JobResult
from hepamap.jobs.retention import Keeping, collect_garbage
from hepamap.jobs.store import JobStore
from tests.clock import Clock
from tests.jobs.questions import add, claimed
from tests.jobs.test_retention import put
from tests.postgres import Postgres


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("results", "uploads", "scratch"):
        (data / name).mkdir()
    return Keeping(data, data / "results", data / "uploads", data / "scratch", results_days=0, uploads_days=0)


@pytest.fixture
def store(place: Path | str) -> Iterator[JobStore]:
    store = JobStore.open(place)
    yield store
    store.close()


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


def make_result(store: JobStore, keeping: Keeping, name: str) -> None:
    """As a worker leaves it, days ago."""
    add(store, upload=f"{name}-slide")
    store.succeed(claimed(store), JobResult("ok", (), name))
    put(keeping.results / name, days_ago=9)
    put(keeping.uploads / f"{name}-slide", days_ago=9)


def here(keeping: Keeping) -> set[str]:
    return {path.name for folder in (keeping.results, keeping.uploads, keeping.scratch) for path in folder.iterdir()}


def test_what_another_database_made_is_kept(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    assert not collect_garbage(store, keeping).foreign  # the folder is new, and this database's from now on
    make_result(store, keeping, "ours")
    put(keeping.scratch / "pieces", days_ago=9)
    before = here(keeping)
    assert collect_garbage(other, keeping).foreign
    assert here(keeping) == before
    # Back at its own, what is a stray goes.
    assert not collect_garbage(store, keeping).foreign
    assert here(keeping) == {"ours", "ours-slide"}


def test_what_expires_goes_wherever_it_lies(store: JobStore, other: JobStore, keeping: Keeping) -> None:
    bind(store, keeping.data)
    make_result(store, keeping, "ours")
    clock = Clock()
    clock.now = datetime.now(UTC) - timedelta(days=9)
    make_result(JobStore(other.engine, clock=clock), keeping, "theirs")
    removed = collect_garbage(other, replace(keeping, results_days=5))
    assert ({path.name for path in removed.folders}, removed.foreign) == ({"theirs", "theirs-slide"}, True)
    assert here(keeping) == {"ours", "ours-slide"}


def test_a_new_database_never_takes_a_folder_that_was_used_before(store: JobStore, keeping: Keeping) -> None:
    """Not even one from before there were marks, and not when it has worked there itself."""
    put(keeping.results / "of-somebody", days_ago=9)
    for name in ("first", "second"):
        assert collect_garbage(store, keeping).foreign
        make_result(store, keeping, name)
    assert collect_garbage(store, keeping).foreign
    assert "of-somebody" in here(keeping)
    assert not (keeping.data / MARK_NAME).exists()


def test_a_database_from_before_there_were_marks_takes_its_own_folder(
    place: Path | str, other: JobStore, keeping: Keeping
) -> None:
    clock = Clock()
    clock.now = datetime.now(UTC) - timedelta(days=9)
    old = JobStore.open(place, clock=clock)
    make_result(old, keeping, "ours")
    put(keeping.uploads / "stray", days_ago=9)
    assert collect_garbage(other, keeping).foreign
    assert not collect_garbage(old, keeping, dry_run=True).foreign
    assert not (keeping.data / MARK_NAME).exists()
    assert not collect_garbage(old, keeping).foreign
    assert here(keeping) == {"ours", "ours-slide"}
    assert not belongs(other, keeping.data, keeping.results, keeping.uploads)
    old.close()


def test_a_database_is_named_when_it_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "hepamap.jobs:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
    engine.dispose()
    for _ in range(2):
        open_database(path).dispose()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        ((name, made_at),) = connection.execute(text("SELECT id, made_at FROM installation"))
    engine.dispose()
    assert len(name) == 36
    assert abs(datetime.fromisoformat(made_at).replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=5)


def test_the_name_has_the_time_of_the_jobs(store: JobStore) -> None:
    """On PostgreSQL the zone of the session must not come into it."""
    assert abs(belonging._name_of(store).made_at - add(store).created_at) < timedelta(minutes=5)


def test_a_disk_that_takes_no_mark_is_tidied_all_the_same(
    store: JobStore, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    put(keeping.scratch / "pieces")
    with capture_logs() as logs:
        assert not collect_garbage(store, keeping).foreign
    assert [entry["event"] for entry in logs] == ["data_folder_not_marked"]
    assert here(keeping) == set()
    assert {path.name for path in keeping.data.iterdir()} == {"results", "uploads", "scratch"}


def test_a_mark_that_cannot_be_made_out_is_nobodys(store: JobStore, keeping: Keeping) -> None:
    (keeping.data / MARK_NAME).write_bytes(b"\xff\x00")
    put(keeping.uploads / "stray", days_ago=9)
    assert collect_garbage(store, keeping).foreign
    assert here(keeping) == {"stray"}
