"""When a worker may take others for dead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobResult, WorkerSeen
from hepamap.jobs.pulse import Pulse
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobRunner, RunnerLimits
from hepamap.jobs.store import JobStore
from tests.jobs.questions import add, claimed, now
from tests.jobs.test_runner import wait_for

STALE_S = 1.5


class Outage:
    """A database that is away for workers' signs of life, as long as it is told to be."""

    def __init__(self, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        self.tries = 0
        report = store.report_worker

        def report_worker(seen: WorkerSeen) -> None:
            if self.is_on:
                self.tries += 1
                raise JobStoreError("away", cure="-")
            report(seen)

        monkeypatch.setattr(store, "report_worker", report_worker)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


@pytest.fixture
def pulse(store: JobStore) -> Iterator[Pulse]:
    at = datetime.now(UTC)
    pulse = Pulse(store, WorkerSeen("w", "host", os.getpid(), at, at), beat_s=0.05, stale_s=STALE_S, trouble=lambda: None)
    yield pulse
    pulse.end()


def test_it_judges_nobody_until_it_has_been_in_touch_for_long_enough(
    store: JobStore, pulse: Pulse, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(store, monkeypatch)
    before = time.monotonic()
    assert not pulse.may_judge()
    pulse.start()
    wait_for(pulse.may_judge, 20)
    assert time.monotonic() - before >= STALE_S
    outage.is_on = True
    wait_for(lambda: not pulse.may_judge(), 20)
    wait_for(lambda: outage.tries > 3)
    outage.is_on, back = False, time.monotonic()
    wait_for(pulse.may_judge, 20)
    # Those who were cut off like itself had as long to beat again.
    assert time.monotonic() - back >= STALE_S


def test_what_is_left_is_taken_over_when_silence_means_something(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = add(store)
    claimed(store)
    time.sleep(STALE_S)
    outage = Outage(store, monkeypatch)
    outage.is_on = True
    done_at: list[float] = []

    def handle(work: Computation, _context: Any) -> JobResult:
        done_at.append(time.monotonic())
        return JobResult("ok", (), work.id)

    runner = JobRunner(store, {"k": handle}, RunnerLimits(beat_s=0.05, stale_s=STALE_S))
    thread = threading.Thread(target=runner.run, args=(Polling(0.02),))
    thread.start()
    wait_for(lambda: outage.tries > 3)
    outage.is_on, back = False, time.monotonic()
    wait_for(lambda: now(store, job).finished, 20)
    runner.stop()
    thread.join()
    assert done_at[0] - back >= STALE_S
