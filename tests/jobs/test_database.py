from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from hepamap.jobs.database import open_database
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import JobResult
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from hepamap.jobs.tables import Base
from tests.jobs.questions import add
from tests.postgres import Postgres


def test_migrations_make_the_tables_that_the_code_describes(place: Path | str) -> None:
    engine = open_database(place)
    own = set(Base.metadata.tables)

    def is_ours(_item: object, name: str | None, kind: str, *_: object) -> bool:
        # Other packages have their own tables in the same database, and procrastinate its own.
        return kind != "table" or name in own

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        differences = compare_metadata(context, Base.metadata)
    engine.dispose()
    assert differences == []


def test_opening_again_changes_nothing(place: Path | str) -> None:
    def everything(engine: sa.Engine) -> list[tuple[str, int]]:
        with engine.connect() as connection:
            names = sorted(sa.inspect(connection).get_table_names())
            return [(name, connection.scalar(sa.text(f"SELECT count(*) FROM {name}")) or 0) for name in names]

    first = open_database(place)
    before = everything(first)
    first.dispose()
    second = open_database(place)
    assert everything(second) == before
    second.dispose()


def test_sqlite_keeps_its_log_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    open_database(path).dispose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_several_that_start_together_all_open_it(place: Path | str) -> None:
    failures: list[Exception] = []

    def start() -> None:
        try:
            open_database(place).dispose()
        except JobStoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.write_text("this is no database, but it is long enough to look like one " * 40)
    with pytest.raises(JobStoreError, match="cannot be used"):
        open_database(path)


@pytest.mark.parametrize("url", ["mysql://host/jobs", "nonsense", "sqlite:///jobs.sqlite3"])
def test_a_url_of_another_database_is_refused(url: str) -> None:
    with pytest.raises(JobStoreError, match="none of PostgreSQL") as caught:
        open_database(url)
    assert "HEPAMAP_DATABASE_URL" in caught.value.cure


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(JobStoreError, match="cannot be used") as caught:
        open_database(f"postgresql://user:secret@/jobs?host={tmp_path}")
    assert "secret" not in caught.value.message
    assert "PostgreSQL" in caught.value.cure


def test_a_newer_database_is_refused(place: Path | str) -> None:
    engine = open_database(place)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(JobStoreError, match="9999"):
        open_database(place)


def test_a_newer_release_of_the_queue_brings_its_changes(postgres: Postgres) -> None:
    """A database that has not seen the last change of procrastinate gets that one, and no other."""
    place = postgres.new_database()
    engine = open_database(place)
    with engine.begin() as connection:
        last = connection.scalar(sa.text("SELECT max(version) FROM queue_schema"))
        # That change replaces a trigger: without it, an older one is there, as it was before the change.
        connection.execute(sa.text("DELETE FROM queue_schema WHERE version = :version"), {"version": last})
        before = connection.scalar(sa.text("SELECT count(*) FROM queue_schema"))
    engine.dispose()
    engine = open_database(place)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM queue_schema")) == (before or 0) + 1
        assert connection.scalar(sa.text("SELECT max(version) FROM queue_schema")) == last
    engine.dispose()


def test_the_jobs_of_an_older_database_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    _old_database(path)
    store = JobStore.open(path)
    done, cancelled, waiting = (store.get(name) for name in ("done", "cancelled", "waiting"))
    assert done is not None
    assert cancelled is not None
    assert waiting is not None
    assert (done.state, done.result) == (JobState.SUCCEEDED, JobResult("ok", (), "done"))
    assert (done.payload["identity"], done.upload) == ({"accession": "S26"}, "done")
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.finished_at == datetime(2026, 1, 2, tzinfo=UTC)
    work = store.claim()
    assert work is not None
    assert work.pieces == "same"  # where the version before has put them
    assert (work.id, work.payload["detection"]) == (waiting.computation_id, {"slide_path": "a.tif"})
    assert add(store, key="same").state is JobState.QUEUED
    store.close()


def _old_database(path: Path) -> None:
    """As version 0001 left it: three jobs of one key."""
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "hepamap.jobs:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        jobs = sa.Table("jobs", sa.MetaData(), autoload_with=connection)
        same = {"key": "same", "kind": "k", "priority": 0, "warnings": [], "progress_done": 0, "progress_stage": "x"}
        same |= {"attempts": 0, "cancel_requested": False, "created_at": datetime(2026, 1, 1)}
        payload = {"detection": {"slide_path": "a.tif"}, "identity": {"accession": "S26"}, "upload": None}
        over = {"finished_at": datetime(2026, 1, 2)}
        connection.execute(
            sa.insert(jobs).values(
                **same,
                **over,
                id="done",
                state="succeeded",
                outcome="ok",
                result_location="done",
                payload=payload | {"upload": "done"},
            )
        )
        connection.execute(sa.insert(jobs).values(**same, **over, id="cancelled", state="cancelled", payload=payload))
        connection.execute(sa.insert(jobs).values(**same, id="waiting", state="queued", payload=payload))
    engine.dispose()


def test_a_database_that_goes_away_is_an_error_and_comes_back_without_a_restart(postgres: Postgres) -> None:
    store = JobStore.open(postgres.new_database())
    job = add(store)
    postgres.stop()
    try:
        with pytest.raises(JobStoreError, match="does not answer"):
            store.get(job.id)
    finally:
        postgres.start()
    found = store.get(job.id)
    store.close()
    assert found is not None
