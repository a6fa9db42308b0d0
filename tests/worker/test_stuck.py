"""A worker whose job has got stuck ends itself, and what follows is what follows any death of a worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hepamap.jobs.database import connect
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from hepamap.jobs.watchdog import STUCK_STATUS
from hepamap.settings import Settings
from tests.worker.conftest import SERVER, Server, ServerFactory, wait_for

STUCK_WORKER = Path(__file__).with_name("stuck_worker.py")
STUCK, LOCKED, WELL = 0.07, 0.02, 0.5
NEVER_S = 900.0


@pytest.fixture
def started(start: ServerFactory, settings: Settings) -> Callable[..., Server]:
    """A server with a worker that gets stuck, with settings of its own."""

    def start_one(**values: Any) -> Server:
        return start(settings.model_copy(update=values), [sys.executable, "-c", SERVER, str(STUCK_WORKER)])

    return start_one


def deaths(server: Server) -> list[int]:
    return [entry["status"] for entry in server.entries() if entry["event"] == "worker_died"]


def starts(server: Server) -> list[str]:
    log = server.settings.data_dir / "starts.log"
    return log.read_text().splitlines() if log.exists() else []


def is_running(server: Server, analysis: Any) -> bool:
    return bool(server.get(analysis)["progress"]["done"] == 1)


def test_one_that_gets_stuck_is_tried_again_and_then_failed_and_the_next_is_done(
    started: Callable[..., Server], slide: Path
) -> None:
    server = started(worker_stuck_s=1.0)
    bad, good = (server.post(slide, threshold=threshold) for threshold in (STUCK, WELL))
    failed = wait_for(lambda: (found := server.get(bad))["state"] == "failed" and found, 60)
    assert failed["error"]["code"] == "worker_lost"
    assert "died or got stuck" in failed["error"]["message"]
    wait_for(lambda: server.get(good)["state"] == "succeeded", 60)
    assert deaths(server) == [STUCK_STATUS] * server.settings.worker_attempts_max
    reports = [entry for entry in server.entries() if entry["event"] == "worker_stuck"]
    assert [(entry["level"], entry["attempt"], entry["stage"]) for entry in reports] == [
        ("error", attempt, "classifying") for attempt in (1, 2, 3)
    ]
    assert str(slide) not in server.log.read_text()


def test_a_stuck_one_that_is_cancelled_ends_and_is_not_tried_again(started: Callable[..., Server], slide: Path) -> None:
    server = started(worker_stuck_s=NEVER_S, worker_cancel_s=0.5)
    bad, good = (server.post(slide, threshold=threshold) for threshold in (STUCK, WELL))
    wait_for(lambda: is_running(server, bad))
    assert server.http.delete(bad["links"]["self"]).json()["state"] == "cancelled"
    wait_for(lambda: server.get(good)["state"] == "succeeded", 60)
    assert deaths(server) == [STUCK_STATUS]
    assert len(starts(server)) == len(set(starts(server))) == 2
    with closing(JobStore(connect(server.settings.database))) as store:
        work = store.computation(starts(server)[0])
    assert work is not None
    assert work.state is JobState.CANCELLED


def test_a_stuck_worker_ends_when_it_is_to_stop(started: Callable[..., Server], slide: Path) -> None:
    server = started(worker_stuck_s=NEVER_S, worker_cancel_s=0.5)
    bad = server.post(slide, threshold=STUCK)
    wait_for(lambda: is_running(server, bad))
    before = time.monotonic()
    server.stop()
    assert server.statuses_of_stopped_workers() == [STUCK_STATUS]
    assert time.monotonic() - before < server.settings.worker_stop_s


def test_one_that_stops_all_of_python_is_ended_too(started: Callable[..., Server], slide: Path) -> None:
    server = started(worker_stuck_s=3.0, worker_attempts_max=1)
    bad, good = (server.post(slide, threshold=threshold) for threshold in (LOCKED, WELL))
    wait_for(lambda: server.get(good)["state"] == "succeeded", 60)
    assert server.get(bad)["error"]["code"] == "worker_lost"
    # Ended from outside Python, which leaves on the log where it was.
    assert deaths(server) == [1]
    assert "stop_or_succeed" in server.log.read_text()
