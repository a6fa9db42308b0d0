"""What the server does once an hour."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session
from structlog.testing import capture_logs
from typer.testing import CliRunner

from hepamap.access.audit import AuditTrail
from hepamap.api.tidying import tidying
from hepamap.cli.app import app
from hepamap.delivery.outbox import Outbox
from hepamap.delivery.tables import DeliveryRow
from hepamap.jobs import retention
from hepamap.jobs.job import Job, Leftovers
from hepamap.jobs.store import JobStore
from hepamap.operations.folders import make_folders
from hepamap.operations.keeping import keeping_of
from hepamap.settings import Settings
from tests.clock import Clock
from tests.jobs.questions import FAILURE, add, claimed


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    make_folders(settings)
    clock = Clock()
    clock.now = datetime.now(UTC) - timedelta(days=40)
    store = JobStore.open(settings.database, clock=clock)
    yield store
    store.close()


def ended(store: JobStore) -> Job:
    """A job that failed 40 days ago."""
    job = add(store)
    store.fail(claimed(store), FAILURE)
    return job


def settle_delivery(store: JobStore, identifier: str) -> None:
    """A callback that was sent 40 days ago."""
    at = datetime.now(UTC) - timedelta(days=40)
    row = DeliveryRow(
        id=identifier,
        job_id=identifier,
        url="https://lis.hospital.org",
        secret_id="default",
        event="analysis.finished",
        body="{}",
        state="delivered",
        attempts=1,
        created_at=at,
        next_at=at,
        finished_at=at,
    )
    with Session(store.engine) as session, session.begin():
        session.add(row)


def test_what_nobody_foresaw_does_not_end_it(settings: Settings, store: JobStore) -> None:
    # A million days ago there was no date: what computes with it raises OverflowError.
    broken = replace(keeping_of(settings), results_days=1_000_000)
    outbox = Outbox(store.engine)

    async def two_rounds() -> None:
        async with tidying(store, broken, None, every_s=0.05):
            for identifier in ("first", "second"):
                settle_delivery(store, identifier)
                for _ in range(100):
                    await asyncio.sleep(0.05)
                    if not outbox.of_job(identifier):
                        break

    asyncio.run(two_rounds())
    # Also the log of callbacks is cleared in each round, and not only when the server starts.
    assert not outbox.of_job("first")
    assert not outbox.of_job("second")


def logs_of_a_round(store: JobStore, settings: Settings) -> list[Any]:
    """What is logged by a round of tidying that has something to say."""

    async def one_round() -> None:
        async with tidying(store, keeping_of(settings), None):
            for _ in range(100):
                await asyncio.sleep(0.05)
                if logs:
                    break

    with capture_logs() as logs:
        asyncio.run(one_round())
    return list(logs)


def test_what_the_disk_says_is_logged_without_the_file(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Leftovers:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/uploads/17/DOE-JANE.svs")

    monkeypatch.setattr(store, "expire", refuse)

    logs = logs_of_a_round(store, settings)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("not_tidied", "Permission denied")]


def test_what_the_database_does_not_know_is_left_alone_and_said(settings: Settings, store: JobStore) -> None:
    foreign = settings.uploads_dir / "of-another"
    foreign.mkdir()
    os.utime(foreign, (0, 0))

    logs = logs_of_a_round(store, settings)
    assert [(entry["event"], entry["log_level"], entry["number"]) for entry in logs] == [("files_unknown", "warning", 1)]
    assert foreign.exists()


def test_its_end_does_not_wait_for_all_that_is_left(settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_AT_ONCE", 1)
    jobs = {ended(store).id for _ in range(50)}

    async def short() -> None:
        async with tidying(store, replace(keeping_of(settings), results_days=30), None):
            while len(store.page().jobs) == len(jobs):
                await asyncio.sleep(0.01)

    asyncio.run(short())
    assert len(store.page().jobs) > 0


def test_its_end_waits_for_what_is_under_way(settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def slowly(*_: object, **__: object) -> Leftovers:
        seen.append("begun")
        time.sleep(0.5)
        seen.append("done")
        return Leftovers()

    monkeypatch.setattr(store, "expire", slowly)

    async def short() -> None:
        async with tidying(store, keeping_of(settings), None):
            while not seen:
                await asyncio.sleep(0.01)

    asyncio.run(short())
    assert seen == ["begun", "done"]


def test_what_expires_is_in_the_audit_trail(settings: Settings, store: JobStore) -> None:
    job = ended(store)
    trail = AuditTrail(store.engine)

    async def one_round() -> None:
        async with tidying(store, replace(keeping_of(settings), results_days=30), trail):
            for _ in range(100):
                await asyncio.sleep(0.05)
                if store.get(job.id) is None:
                    break

    asyncio.run(one_round())
    assert store.get(job.id) is None
    events = [(entry.event.actor, entry.event.action, entry.event.object) for entry in trail.page()]
    assert events == [("server", "analyses.expire", job.id)]
    assert trail.verify().seq == 1


def test_what_the_command_removes_is_in_the_audit_trail(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {ended(store).id, ended(store).id}
    monkeypatch.setenv("HEPAMAP_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("HEPAMAP_KEEP_RESULTS_DAYS", "30")
    assert CliRunner().invoke(app, ["gc", "--dry-run"]).exit_code == 0
    assert AuditTrail(store.engine).page() == ()
    assert CliRunner().invoke(app, ["gc"]).exit_code == 0
    entries = AuditTrail(store.engine).page()
    assert {entry.event.object for entry in entries} == jobs
    assert {(entry.event.actor[:4], entry.event.action) for entry in entries} == {("cli:", "analyses.expire")}
    assert AuditTrail(store.engine).verify().seq == 2
