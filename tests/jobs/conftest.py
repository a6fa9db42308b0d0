from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hepamap.jobs.store import JobStore
from tests.postgres import Postgres


class Clock:
    """A clock that goes on by a millisecond at every look, and further when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of each kind: what holds for one must hold for the other."""
    if request.param == "sqlite":
        return tmp_path / "jobs.sqlite3"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def store(place: Path | str, clock: Clock) -> Iterator[JobStore]:
    store = JobStore.open(place, clock=clock)
    yield store
    store.close()
