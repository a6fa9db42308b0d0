from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from hepamap.delivery.outbox import Delivery, Outbox, enqueue
from hepamap.delivery.signature import Secrets
from hepamap.jobs.database import open_database
from hepamap.jobs.job import Job
from hepamap.jobs.states import JobState

SECRET = b"0123456789abcdef0123456789abcdef"


class Clock:
    """The true time, and as much more as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


def finished_job(job_id: str = "a", callback: Mapping[str, Any] | None = None) -> Job:
    """As much of a job as the outbox looks at."""
    request = {} if callback is None else {"callback": callback}
    result = SimpleNamespace(outcome="ok")
    return cast(
        Job, SimpleNamespace(id=job_id, payload={"request": request}, state=JobState.SUCCEEDED, result=result, failure=None)
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "jobs.sqlite3")
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine: Engine, clock: Clock) -> Outbox:
    return Outbox(engine, clock=clock)


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "default").write_bytes(SECRET + b"\n")
    (folder / "lis").write_bytes(b"another secret that is long enough to be one")
    (folder / "short").write_bytes(b"short")
    return Secrets(folder)


def put(engine: Engine, url: str, job_id: str = "a", **callback: Any) -> None:
    """Finish a job that has a callback."""
    with Session(engine) as session, session.begin():
        enqueue(session, [finished_job(job_id, {"url": url, **callback})])


def only(deliveries: list[Delivery]) -> Delivery:
    (delivery,) = deliveries
    return delivery
