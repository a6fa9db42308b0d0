"""How workers learn that there is something to do: by looking again and again (SQLite), or woken by procrastinate (PostgreSQL).

The truth about a computation is its row and its lease (`claims`). An entry of procrastinate only wakes a worker, which then
takes whatever row is next; so an entry that is lost or comes twice can neither lose a computation nor run it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import structlog
from sqlalchemy import URL, Connection, inspect, select, text
from sqlalchemy.orm import Session

from hepamap.jobs.errors import unanswered
from hepamap.jobs.tables import QueueSchemaRow

_log = structlog.stdlib.get_logger(__name__)

QUEUE = "hepamap"
_TASK = "hepamap.work"
_RETRY_S = 1.0
_LOOK_AROUND_S = 5.0


class WorkSource(Protocol):
    """Says when there may be something to do."""

    def serve(self, work: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """Call `work` whenever there may be something to do, until `stopping`."""


@dataclass(frozen=True, slots=True)
class Polling:
    """Looks again and again."""

    pause_s: float

    def serve(self, work: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """See WorkSource."""
        while not stopping():
            work()
            time.sleep(self.pause_s)


@dataclass(frozen=True, slots=True)
class Procrastinate:
    """Is woken by procrastinate, within milliseconds of a new entry; every few seconds who is idle looks without being woken."""

    url: URL
    stale_s: float
    """Silence after which a worker counts as gone, seconds."""

    def serve(self, work: Callable[[], None], stopping: Callable[[], bool]) -> None:
        """See WorkSource; goes on when the database comes back after it was away."""
        while not stopping():
            try:
                asyncio.run(self._serve(work, stopping))
            except Exception as error:
                if not _is_database_trouble(error):
                    raise
                _log.warning("queue_unavailable", reason=type(error).__name__)
                time.sleep(_RETRY_S)

    async def _serve(self, work: Callable[[], None], stopping: Callable[[], bool]) -> None:
        from procrastinate import App, PsycopgConnector
        from procrastinate.exceptions import ConnectorException
        from procrastinate.jobs import Status

        app = App(connector=PsycopgConnector(conninfo=_conninfo(self.url), min_size=1, max_size=3, timeout=10.0))

        busy = asyncio.Lock()

        @app.task(name=_TASK, queue=QUEUE)
        async def woken() -> None:
            async with busy:
                await asyncio.to_thread(work)

        async def look_around() -> None:
            """Whoever is idle takes over what a dead worker left; also the entries that woke it."""
            async with busy:
                for entry in await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self.stale_s):
                    # Another worker may have removed it just now.
                    with contextlib.suppress(ConnectorException):
                        await app.job_manager.finish_job(entry, Status.FAILED, delete_job=True)
                await asyncio.to_thread(work)

        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=[QUEUE],
                    concurrency=1,
                    install_signal_handlers=False,
                    delete_jobs="always",
                    update_heartbeat_interval=self.stale_s / 4,
                    stalled_worker_timeout=self.stale_s,
                )
            )
            looked = time.monotonic()
            while not stopping() and not worker.done():
                await asyncio.sleep(0.1)
                if time.monotonic() - looked >= _LOOK_AROUND_S and not busy.locked():
                    await look_around()
                    looked = time.monotonic()
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker


def source_of(url: URL, *, poll_s: float, stale_s: float) -> WorkSource:
    """What wakes the workers on a database."""
    return Procrastinate(url, stale_s) if url.get_backend_name() == "postgresql" else Polling(poll_s)


def wake_a_worker(session: Session, priority: int) -> None:
    """Write a queue entry in the session's own transaction: it is there if, and only if, the rest is.

    Raises:
        JobStoreError: the database does not answer.
    """
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        return
    from procrastinate.exceptions import ConnectorException

    driver: Any = connection.connection.driver_connection
    try:
        _deferring_app().configure_task(_TASK, queue=QUEUE, priority=priority, connection=driver).defer()
    except ConnectorException as error:
        # It goes past SQLAlchemy, whose errors the session translates.
        raise unanswered(error.__cause__ or error) from error


@cache
def _deferring_app() -> Any:
    from procrastinate import App, SyncPsycopgConnector

    # Never opened: it only ever writes on connections that it is given.
    return App(connector=SyncPsycopgConnector())


def apply_queue_schema(connection: Connection) -> None:
    """Create procrastinate's tables, or apply the changes that its installed release has brought since."""
    from procrastinate.schema import SchemaManager

    changes = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    if inspect(connection).has_table("procrastinate_jobs"):
        seen = set(connection.execute(select(QueueSchemaRow.version)).scalars())
        missing = [change for change in changes if change.stem not in seen]
        scripts = [change.read_text(encoding="utf-8") for change in missing]
    else:
        missing = changes
        scripts = [(resources.files("procrastinate.sql") / "schema.sql").read_text(encoding="utf-8")]
    for script in scripts:
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})
    for change in missing:
        connection.execute(text("INSERT INTO queue_schema (version) VALUES (:version)"), {"version": change.stem})


def _conninfo(url: URL) -> str:
    """The URL as libpq takes it, with how long to wait for a host that has vanished."""
    from hepamap.jobs.patience import missing_from

    patient = url.update_query_dict({name: str(value) for name, value in missing_from(url).items()})
    return patient.set(drivername="postgresql").render_as_string(hide_password=False)


def _is_database_trouble(error: BaseException) -> bool:
    from procrastinate.exceptions import ConnectorException
    from psycopg import Error

    if isinstance(error, BaseExceptionGroup):
        return all(_is_database_trouble(inner) for inner in error.exceptions)
    return isinstance(error, (ConnectorException, Error, OSError))
