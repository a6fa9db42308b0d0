from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from hepamap.access.tables import AuditRow
from hepamap.delivery.tables import DeliveryRow
from hepamap.jobs.database import open_database
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.tables import Base
from hepamap.operations.tallies import TallyRow


def test_migrations_make_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    # Tables are described where they are used; naming one of each module makes sure that it is loaded.
    assert {AuditRow.__tablename__, DeliveryRow.__tablename__, TallyRow.__tablename__} <= set(Base.metadata.tables)
    engine = open_database(tmp_path / "jobs.sqlite3")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()
    assert differences == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    open_database(path).dispose()
    open_database(path).dispose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_several_that_start_together_all_open_it(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def start() -> None:
        try:
            open_database(tmp_path / "jobs.sqlite3").dispose()
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


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    open_database(path).dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(JobStoreError, match="9999"):
        open_database(path)
