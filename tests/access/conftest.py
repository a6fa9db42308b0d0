from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hepamap.jobs.database import open_database
from tests.clock import Clock
from tests.postgres import Postgres


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty database is; every test that uses it runs on both."""
    if request.param == "sqlite":
        return tmp_path / "jobs.sqlite3"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


@pytest.fixture
def engine(place: Path | str) -> Iterator[Engine]:
    engine = open_database(place)
    yield engine
    engine.dispose()
