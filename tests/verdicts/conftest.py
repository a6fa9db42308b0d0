from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hepamap.jobs.database import open_database
from tests.postgres import Postgres


class Clock:
    """A clock that goes on by a second at every look."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        place: Path | str = tmp_path / "jobs.sqlite3"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        place = server.new_database()
    engine = open_database(place)
    yield engine
    engine.dispose()
