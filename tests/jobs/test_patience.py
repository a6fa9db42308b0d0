"""PostgreSQL that does not answer and does not close the line either: nobody waits for ever."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hepamap.jobs.database import _MIGRATION_LOCK, connect, open_database
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.patience import PatientConnection
from hepamap.jobs.store import JobStore
from tests.jobs.frozen import Way, frozen_way
from tests.jobs.questions import add
from tests.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
SILENCE_S = 1.0
# One statement on a line that was open, and one try to open another.
PATIENCE_S = SILENCE_S + 2.0 + 10.0


@pytest.fixture
def place(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def by_way(postgres: Postgres, place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Way, str]]:
    open_database(place).dispose()
    monkeypatch.setattr(PatientConnection, "silence_s", SILENCE_S)
    with frozen_way(postgres.folder, place) as (way, url):
        yield way, url


def test_what_is_asked_of_a_frozen_database_ends_as_an_error_and_all_goes_on_afterwards(by_way: tuple[Way, str]) -> None:
    way, url = by_way
    store = JobStore.open(url)
    job = add(store)
    uses: tuple[Callable[[], object], ...] = (store.ping, lambda: add(store), lambda: store.request_cancel(job.id))
    for use in uses:
        way.freeze()
        before = time.monotonic()
        with pytest.raises(JobStoreError, match="does not answer"):
            use()
        assert time.monotonic() - before < PATIENCE_S
        way.thaw()
        assert store.get(job.id) is not None
    store.close()


def test_a_transaction_that_freezes_in_its_middle_ends_and_leaves_nothing(by_way: tuple[Way, str]) -> None:
    way, url = by_way
    store = JobStore.open(url)

    def change() -> None:
        with store.writing() as session:
            session.execute(sa.text("UPDATE computations SET priority = 1"))
            way.freeze()
            session.execute(sa.text("UPDATE computations SET priority = 2"))

    before = time.monotonic()
    with pytest.raises(JobStoreError) as caught:
        change()
    assert SILENCE_S <= time.monotonic() - before < PATIENCE_S
    assert caught.value.because == "PostgreSQL has said nothing for 1 s"
    way.thaw()
    add(store)
    store.close()


def test_a_statement_that_gets_its_answer_in_time_is_not_disturbed(by_way: tuple[Way, str]) -> None:
    _, url = by_way
    engine = connect(url)
    with engine.connect() as connection:
        for _ in range(3):
            connection.execute(sa.text("SELECT pg_sleep(0.6)"))
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()


def test_who_changes_the_schema_and_who_waits_for_that_takes_the_time_it_needs(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientConnection, "silence_s", 0.3)
    another = connect(place)
    with another.connect() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        threading.Timer(1.5, connection.rollback).start()
        before = time.monotonic()
        engine = open_database(place)
        assert time.monotonic() - before >= 1.0
    another.dispose()
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError):
        connection.execute(sa.text("SELECT pg_sleep(2)"))
    engine.dispose()


def test_a_host_that_vanishes_is_found_out_by_the_system() -> None:
    """In a network of its own (Linux, as root), where packets are dropped: without the options these would wait for minutes."""
    alone = ["unshare", "--net", "--"]
    try:
        subprocess.run([*alone, "iptables", "-L"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no network of its own can be made here (needs Linux, root, unshare and iptables)")
    script = f"ip link set lo up && exec {sys.executable} -m tests.jobs.vanished"
    done = subprocess.run([*alone, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    waits = json.loads(done.stdout)
    # A statement that was not confirmed has 10 s; who only waits is asked after 10 s whether it is still there, and has 10 s.
    assert set(waits) == {"a new statement", "a statement that has arrived", "a listener"}, done.stderr
    assert all(seconds < 30 for seconds in waits.values()), waits
