"""Checks of the job database: is it there, whole, of this version; has it keys; is its past really past."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from hepamap.access.audit import AuditTrail
from hepamap.access.keys import KeyStore
from hepamap.jobs.database import CHECK_POSTGRESQL, connect, newest_schema
from hepamap.jobs.retention import UNKNOWN_CURE
from hepamap.jobs.store import JobStore
from hepamap.jobs.strays import find_strays
from hepamap.jobs.tables import JobRow
from hepamap.operations.findings import Finding, broken, ok, warning
from hepamap.operations.keeping import keeping_of
from hepamap.settings import Settings

_SOON = timedelta(days=14)
_CLOCK_TOLERANCE = timedelta(minutes=5)
_LOST = "Restore the last backup, or set HEPAMAP_DATA_DIR to an empty folder to begin anew; results stay in their folders."


def database(settings: Settings) -> Iterator[Finding]:
    """Everything about the database."""
    if not settings.database_url and not settings.database_path.exists():
        yield ok("database", "There is no job database yet; the server makes it when it starts.")
        return
    engine = connect(settings.database)
    try:
        yield from _content(engine, settings)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", error)).strip()
        # A server that does not answer has lost nothing.
        cure = CHECK_POSTGRESQL if settings.database_url else _LOST
        yield broken("database", f"The job database cannot be used: {cause}.", cure=cure)
    finally:
        engine.dispose()


def _content(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.connect() as connection:
        version = MigrationContext.configure(connection).get_current_revision()
        damage = connection.execute(text("PRAGMA quick_check(1)")).scalar_one() if engine.dialect.name == "sqlite" else "ok"
    if damage != "ok":
        yield broken("database", f"The job database is damaged: {damage}.", cure=_LOST)
        return
    newest = newest_schema()
    if version is None or version < newest:
        yield warning(
            "database",
            f"The job database has schema {version or 'none'}; this program's is {newest}.",
            cure="Make a backup, then start the server: it brings the database up to date.",
        )
        return
    if version > newest:
        yield broken(
            "database",
            f"The job database has schema {version}, which this program ({newest}) does not know.",
            cure="Install the version of hepamap that used it last, or restore the backup from before that.",
        )
        return
    yield ok("database", f"The job database answers and has schema {version}.")
    yield from _unknown(engine, settings)
    yield from _past(engine)
    if settings.access == "keys":
        yield from _keys(engine)


def _unknown(engine: Engine, settings: Settings) -> Iterator[Finding]:
    try:
        unknown = find_strays(JobStore(engine), keeping_of(settings), datetime.now(UTC)).unknown
    except OSError:
        return  # what cannot be read is for the check of the folders to say
    if unknown:
        yield warning(
            "database",
            f"In {settings.data_dir} lie {len(unknown)} files or folders that the job database does not know: they stay, and "
            "fill the disk.",
            cure=UNKNOWN_CURE,
        )


def _past(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        newest = connection.execute(select(func.max(JobRow.created_at, type_=JobRow.created_at.type))).scalar_one()
    entries = AuditTrail(engine).page(after=AuditTrail(engine).head().seq - 1, limit=1)
    times = [*([newest] if newest else []), *(datetime.fromisoformat(entry.at) for entry in entries)]
    if times and max(times) > datetime.now(UTC) + _CLOCK_TOLERANCE:
        yield warning(
            "clock",
            f"The database has entries of {max(times):%Y-%m-%d %H:%M} UTC, which is not over yet: the clock was set back.",
            cure="Set the clock of this machine by a time server.",
        )


def _keys(engine: Engine) -> Iterator[Finding]:
    now = datetime.now(UTC)
    valid = [key for key in KeyStore(engine).list() if key.valid_at(now)]
    if not valid:
        yield warning("access", "There is no valid API key.", cure="Make one: hepamap keys create <name>.")
    for key in valid:
        if key.expires_at is not None and key.expires_at < now + _SOON:
            yield warning(
                "access",
                f"The API key {key.id} ({key.name}) expires at {key.expires_at:%Y-%m-%d %H:%M} UTC.",
                cure=f"Make a new one and give it to its user: hepamap keys rotate {key.id}.",
            )
