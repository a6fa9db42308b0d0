"""Opening the job database: engine, SQLite's settings, migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from hepamap.jobs.errors import JobStoreError

# How long a process waits for another one's write, seconds. Writes take milliseconds; this bridges a slow disk.
_BUSY_TIMEOUT_S = 15.0


def open_database(path: Path) -> Engine:
    """Open the database, and create it or bring its schema up to date.

    Args:
        path: the SQLite file; its folder must exist.

    Raises:
        JobStoreError: it cannot be opened or written, is no database, or was made by a newer version of the program.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_connection)
    try:
        migrate(engine)
    except (SQLAlchemyError, CommandError) as error:
        engine.dispose()
        cause = error.orig if hasattr(error, "orig") else error
        raise JobStoreError(
            f"The job database {path} cannot be used: {cause}.",
            cure="Check that its folder is writable and its disk not full, and that no newer hepamap has used it.",
        ) from error
    return engine


def migrate(engine: Engine) -> None:
    """Run all migrations that the database has not seen."""
    config = Config()
    config.set_main_option("script_location", "hepamap.jobs:migrations")
    with engine.connect() as connection:
        # The write lock first: two processes that start together must not both create the tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _configure_connection(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers never wait for the writer, and a killed process leaves a whole database.
    cursor.execute("PRAGMA journal_mode=WAL")
    # A job that was answered with 202 must survive a power cut, so every commit reaches the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
