"""Opening the job database, SQLite or PostgreSQL: engine, settings of the connections, migrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hepamap.jobs.errors import JobStoreError, JobStoreMissingError
from hepamap.jobs.queue import apply_queue_schema

# How long a process waits for another one's write, seconds. Writes take milliseconds; this bridges a slow disk.
_BUSY_TIMEOUT_S = 15.0
# Any number that no other program on this database uses: who holds it migrates.
_MIGRATION_LOCK = 0x68657061
CHECK_POSTGRESQL = "Check that PostgreSQL runs and takes this user, and that no newer hepamap has used the database."
"""The cure where a database of PostgreSQL cannot be used."""


def open_database(place: Path | str) -> Engine:
    """Open the database, and create its tables or bring them up to date.

    Args:
        place: an SQLite file, whose folder must exist; or the URL of a PostgreSQL database, `postgresql://…`.

    Raises:
        JobStoreError: it cannot be opened or written, is no database, or was made by a newer version of the program.
    """
    url = _url_of(place)
    return _up_to_date(connect(place), url)


def open_existing(place: Path | str) -> Engine:
    """Open a database that is there, for commands that would say something wrong of a new one.

    Args:
        place: as for `open_database`.

    Raises:
        JobStoreMissingError: there is none, or it has no tables.
        JobStoreError: as for `open_database`.
    """
    url = _url_of(place)
    if not is_postgresql(url) and not Path(place).is_file():
        raise _missing(url)
    engine = connect(place)
    try:
        with engine.connect() as connection:
            made = MigrationContext.configure(connection).get_current_revision() is not None
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(url, error) from error
    if not made:
        engine.dispose()
        raise _missing(url)
    return _up_to_date(engine, url)


def _up_to_date(engine: Engine, url: URL) -> Engine:
    try:
        migrate(engine)
    except (SQLAlchemyError, CommandError) as error:
        engine.dispose()
        raise _unusable(url, error) from error
    return engine


def _unusable(url: URL, error: Exception) -> JobStoreError:
    cause = error.orig if hasattr(error, "orig") else error
    return JobStoreError(
        f"The job database {_name_of(url)} cannot be used: {str(cause).strip()}.",
        cure=CHECK_POSTGRESQL
        if is_postgresql(url)
        else "Check that its folder is writable and its disk not full, and that no newer hepamap has used it.",
    )


def _missing(url: URL) -> JobStoreMissingError:
    return JobStoreMissingError(
        f"There is no job database at {_name_of(url)}.",
        cure="Name the data folder of the server (--data-dir, HEPAMAP_DATA_DIR), or its database (HEPAMAP_DATABASE_URL).",
    )


def _name_of(url: URL) -> str:
    return str(url.database) if url.drivername == "sqlite" else url.render_as_string(hide_password=True)


def connect(place: Path | str) -> Engine:
    """The database as it is, whatever its schema; for looking at it.

    Raises:
        JobStoreError: the URL is none.
    """
    url = _url_of(place)
    return _postgresql(url) if is_postgresql(url) else _sqlite(url)


def newest_schema() -> str:
    """The schema that this program works with: the name of its last migration."""
    return ScriptDirectory.from_config(_migrations()).get_current_head() or ""


def is_postgresql(url: URL) -> bool:
    """Whether this is the database of many machines."""
    return url.get_backend_name() == "postgresql"


def migrate(engine: Engine) -> None:
    """Run all migrations that the database has not seen."""
    with engine.connect() as connection:
        # The lock first: two processes that start together must not both create the tables.
        if is_postgresql(engine.url):
            from hepamap.jobs.patience import unhurried

            with unhurried(connection):
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                _upgrade(connection)
                apply_queue_schema(connection)
                connection.commit()
        else:
            begin_writing(connection)
            _upgrade(connection)
            connection.commit()


def _upgrade(connection: Connection) -> None:
    config = _migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", "hepamap.jobs:migrations")
    return config


def begin_writing(connection: Connection) -> None:
    """Have SQLite's write lock from the start of a transaction; PostgreSQL locks rows and needs nothing.

    Otherwise a transaction that reads before it writes fails where another one wrote in between.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _url_of(place: Path | str) -> URL:
    if isinstance(place, Path):
        return URL.create("sqlite", database=str(place))
    try:
        url = make_url(place)
    except ArgumentError:
        url = None
    if url is None or not is_postgresql(url):
        raise JobStoreError(
            "The URL of the job database is none of PostgreSQL.",
            cure="Set HEPAMAP_DATABASE_URL to postgresql://user:password@host/database, or leave it away for SQLite.",
        )
    return url.set(drivername="postgresql+psycopg")


# Parameters are hidden in both: an error's text goes into the log, and among them is whose slide it is.


def _postgresql(url: URL) -> Engine:
    from hepamap.jobs.patience import PatientConnection, missing_from

    # Asked before each use: a database that was restarted costs nobody an error.
    engine = create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=missing_from(url))

    def do_connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> PatientConnection:
        return PatientConnection.connect(*arguments, **options)

    event.listen(engine, "do_connect", do_connect)
    return engine


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_connection)
    return engine


def _configure_connection(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers never wait for the writer, and a killed process leaves a whole database.
    cursor.execute("PRAGMA journal_mode=WAL")
    # A job that was answered with 202 must survive a power cut, so every commit reaches the disk.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
