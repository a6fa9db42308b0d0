"""PostgreSQL's clock, which all processes go by: asked at the right time, and through a connection that can be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import QueuePool

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.jobs.clock import clock_of
from hepamap.jobs.database import open_database
from hepamap.jobs.job import WorkerSeen
from hepamap.jobs.pulse import Pulse
from hepamap.jobs.store import JobStore
from tests.jobs.questions import add, claimed, question
from tests.jobs.set_clock import DatabaseClock
from tests.jobs.test_runner import wait_for
from tests.postgres import Postgres

STALE_S = 1.5
STEP_S = 120.0


@pytest.fixture
def engine(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """Of a database whose connections are not waited for as long as elsewhere."""
    engine = open_database(postgres.new_database())
    assert isinstance(engine.pool, QueuePool)
    monkeypatch.setattr(engine.pool, "_timeout", 5.0)
    yield engine
    engine.dispose()


def test_a_machine_whose_clock_is_set_goes_by_the_database(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clock_of(engine)
    before = clock()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with engine.connect() as connection:
        servers = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    after = clock()
    assert before <= after
    assert abs(after - servers.astimezone(UTC)) < timedelta(seconds=1)


def _append(engine: sa.Engine) -> None:
    AuditTrail(engine).append(AuditEvent("local", "get_analysis", 200))


def _submit(engine: sa.Engine) -> None:
    JobStore(engine).submit(question(key="same"))


@pytest.mark.parametrize("write", [_append, _submit])
def test_who_holds_a_lock_needs_no_second_connection_for_the_time(engine: sa.Engine, write: Callable[[sa.Engine], None]) -> None:
    """More threads than connections wait for one row, and who has it asks what time it is."""
    at_once = threading.Barrier(30)

    def one(_: int) -> None:
        at_once.wait()
        write(engine)

    with ThreadPoolExecutor(30) as threads:
        list(threads.map(one, range(30)))


class _Two:
    """Two workers' processes on a database whose clock is set."""

    def __init__(self, url: str) -> None:
        self.clock = DatabaseClock(url)
        self.one, self.other = JobStore.open(url), JobStore.open(url)


@pytest.fixture
def two(postgres: Postgres) -> Iterator[_Two]:
    two = _Two(postgres.new_database())
    yield two
    two.one.close()
    two.other.close()


def test_one_that_beats_is_alive_also_where_the_databases_clock_was_set_since_it_began(two: _Two) -> None:
    add(two.other)
    work = claimed(two.other)
    two.clock.advance(STEP_S)
    assert two.other.beat(work, work.progress).owned
    assert two.one.recover(attempts_max=3, silent_for_s=60.0) == ()
    two.clock.advance(61.0)
    assert [found.id for found in two.one.recover(attempts_max=3, silent_for_s=60.0)] == [work.id]


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S])
def test_nobody_is_judged_until_all_had_time_to_beat_by_a_clock_that_was_set(two: _Two, step_s: float) -> None:
    at = two.one.now()
    pulse = Pulse(two.one, WorkerSeen("w", "host", 1, at, at), beat_s=0.05, stale_s=STALE_S, trouble=lambda: None)
    pulse.start()
    try:
        wait_for(pulse.may_judge, 20)
        before = time.monotonic()
        two.clock.advance(step_s)
        assert not pulse.may_judge()
        wait_for(pulse.may_judge, 20)
        assert time.monotonic() - before >= STALE_S
    finally:
        pulse.end()
