"""The time that all processes on a job database agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from hepamap.jobs.database import is_postgresql
from hepamap.jobs.errors import unanswered

_SESSION: ContextVar[Session | None] = ContextVar("session", default=None)


def clock_of(engine: Engine) -> Callable[[], datetime]:
    """The clock that all processes on this database agree on: PostgreSQL's own, or that of the one machine of SQLite."""
    return _DatabaseClock(engine) if is_postgresql(engine.url) else _now


@contextmanager
def asked_through(session: Session) -> Iterator[None]:
    """Have this thread ask for the time through a session that it has open.

    A second connection could never come: the first one may hold a lock that all others of the pool wait for.
    """
    before = _SESSION.set(session)
    try:
        yield
    finally:
        _SESSION.reset(before)


def _now() -> datetime:
    return datetime.now(UTC)


class _DatabaseClock:
    """The database's time, asked for each time.

    Machines whose clocks differ, or are set while jobs run, would otherwise take each other's workers for dead. So would those
    that look now and then and count on by themselves: the database's clock may be set, or a machine sleep, between two looks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self) -> datetime:
        session = _SESSION.get()
        try:
            if session is not None and session.get_bind() is self._engine:
                return _time_of(session.connection())
            with self._engine.connect() as connection:
                return _time_of(connection)
        except SQLAlchemyError as error:
            raise unanswered(getattr(error, "orig", None) or error) from error


def _time_of(connection: Connection) -> datetime:
    # Not `now()`, which stands still within a transaction.
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)
