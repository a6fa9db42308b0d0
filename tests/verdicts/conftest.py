from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hepamap.jobs.database import open_database
from tests.clock import Clock
from tests.postgres import Postgres


@pytest.fixture
def clock() -> Clock:
    return Clock(timedelta(seconds=1))


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
