from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hepamap.jobs.keeping import Keeping
from hepamap.jobs.store import JobStore
from tests.clock import Clock
from tests.postgres import Postgres


@pytest.fixture
def clock() -> Clock:
    return Clock(timedelta(milliseconds=1))


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


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    """Empty folders, in which nothing goes by age."""
    results, uploads, scratch = (tmp_path / name for name in ("results", "uploads", "scratch"))
    for folder in (results, uploads, scratch):
        folder.mkdir()
    return Keeping(results, uploads, scratch, results_days=0, uploads_days=0)
