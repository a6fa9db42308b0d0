"""When a job is taken for stuck, and when it is not; in real processes: `tests/worker/test_stuck.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hepamap.jobs.job import Computation, JobProgress
from hepamap.jobs.store import JobStore
from hepamap.jobs.watch import Watch
from hepamap.jobs.watchdog import STUCK_STATUS, Watchdog, WatchdogLimits
from tests.jobs.questions import add, claimed

Guarding = Callable[[Watch, WatchdogLimits], list[int]]


@pytest.fixture
def work(tmp_path: Path) -> Computation:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    add(store)
    work = claimed(store)
    store.close()
    return work


@pytest.fixture
def guarding() -> Iterator[Guarding]:
    dogs: list[Watchdog] = []

    def guard(watch: Watch, limits: WatchdogLimits) -> list[int]:
        """The statuses that the process was ended with."""
        ends: list[int] = []
        dog = Watchdog(limits, end_process=ends.append, last_resort=lambda seconds: None)
        dogs.append(dog)
        dog.guard(watch)
        dog.start()
        return ends

    yield guard
    for dog in dogs:
        dog.end()


def watched(work: Computation, *, stopping: bool = False) -> Watch:
    return Watch(work, lambda: stopping)


@pytest.mark.parametrize(
    "sign",
    [
        lambda watch: watch.report(JobProgress(1, 2, "reading")),
        lambda watch: watch.ask(),
        lambda watch: watch.keep(),
        lambda watch: watch.hear(),
    ],
    ids=["progress", "asking", "a stored piece", "a try to store the end"],
)
def test_each_sign_of_getting_on_counts(work: Computation, guarding: Guarding, sign: Callable[[Watch], object]) -> None:
    watch = watched(work)
    ends = guarding(watch, WatchdogLimits(stuck_s=0.6, cancel_s=60.0))
    for _ in range(10):
        time.sleep(0.1)
        sign(watch)
    assert ends == []
    with capture_logs() as logs:
        time.sleep(1.2)
    assert ends == [STUCK_STATUS]
    (entry,) = [entry for entry in logs if entry["event"] == "worker_stuck"]
    assert (entry["job"], entry["reason"]) == (work.id, "the job gave no sign of getting on")


def test_one_that_ignores_its_cancel_is_stuck_though_it_asks(work: Computation, guarding: Guarding) -> None:
    watch = watched(work)
    ends = guarding(watch, WatchdogLimits(stuck_s=60.0, cancel_s=0.4))
    for _ in range(8):
        watch.ask()
        time.sleep(0.1)
    assert ends == []
    watch.cancel_requested = True
    for _ in range(12):
        assert watch.ask()
        time.sleep(0.1)
    assert ends == [STUCK_STATUS]


@pytest.mark.parametrize("change", [lambda watch: None, lambda watch: setattr(watch, "owned", False)], ids=["stop", "lost"])
def test_one_that_is_to_end_for_any_reason_has_the_shorter_time(
    work: Computation, guarding: Guarding, change: Callable[[Watch], None]
) -> None:
    watch = watched(work, stopping=True)
    change(watch)
    ends = guarding(watch, WatchdogLimits(stuck_s=60.0, cancel_s=0.3))
    time.sleep(1.0)
    assert ends == [STUCK_STATUS]


def test_storing_the_end_is_not_held_to_the_shorter_time(work: Computation, guarding: Guarding) -> None:
    watch = watched(work, stopping=True)
    watch.come_back()
    ends = guarding(watch, WatchdogLimits(stuck_s=60.0, cancel_s=0.2))
    time.sleep(0.8)
    assert ends == []


def test_nobody_is_ended_while_there_is_no_job(guarding: Guarding, work: Computation) -> None:
    ends: list[int] = []
    dog = Watchdog(WatchdogLimits(stuck_s=0.1, cancel_s=0.1), end_process=ends.append, last_resort=lambda seconds: None)
    dog.guard(watched(work, stopping=True))
    dog.guard(None)
    dog.start()
    time.sleep(0.5)
    dog.end()
    assert ends == []


def test_a_job_is_guarded_from_its_first_moment(work: Computation) -> None:
    """It may hold the interpreter's lock before the watchdog, a thread like others, gets to look for the first time."""
    told: list[float] = []
    dog = Watchdog(WatchdogLimits(stuck_s=7.0), last_resort=told.append)
    dog.guard(watched(work))
    assert told == [7.0 + 5.0]
