"""Server and worker as real processes: what happens when either of them is stopped or killed."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from tests.worker.conftest import SERVER, Server, ServerFactory, wait_for


def is_counting(server: Server, analysis: Any) -> bool:
    found = server.get(analysis)
    return bool(found["state"] == "running" and found["progress"]["done"] > 0)


def test_a_killed_worker_is_replaced_and_its_job_succeeds(start: ServerFactory, settings: Settings, slide: Path) -> None:
    server = start(settings)
    analysis = server.post(slide)
    wait_for(lambda: is_counting(server, analysis))
    with closing(JobStore.open(settings.database)) as store:
        job = store.get(analysis["id"])
    assert job is not None
    unfinished, of_another = (settings.results_dir / f".{name}.1-x.partial" for name in (job.computation_id, uuid.uuid4()))
    for folder in (unfinished, of_another):
        folder.mkdir()
    (worker,) = server.workers()
    worker.kill()
    done = wait_for(lambda: (found := server.get(analysis))["state"] == "succeeded" and found)
    assert done["progress"]["fraction"] == 1.0
    assert "job_recovered" in server.log.read_text()
    assert (unfinished.exists(), of_another.exists()) == (False, True)
    assert [child.pid for child in server.workers()] != [worker.pid]


def test_cancelling_frees_the_worker_within_two_seconds(start: ServerFactory, settings: Settings, slide: Path) -> None:
    server = start(settings)
    running, waiting, following = (server.post(slide, threshold=threshold) for threshold in (0.4, 0.5, 0.6))
    wait_for(lambda: is_counting(server, running))
    assert server.http.delete(waiting["links"]["self"]).json()["state"] == "cancelled"
    (worker,) = server.workers()
    started = time.monotonic()
    assert server.http.delete(running["links"]["self"]).json()["state"] == "cancelled"
    wait_for(lambda: server.get(following)["state"] == "running")
    assert time.monotonic() - started < 2.0
    assert worker.is_running()


def test_health_answers_quickly_while_a_job_runs(start: ServerFactory, settings: Settings, slide: Path) -> None:
    server = start(settings)
    analysis = server.post(slide)
    wait_for(lambda: is_counting(server, analysis))
    times = []
    for _ in range(20):
        started = time.monotonic()
        assert server.is_ready()
        times.append(time.monotonic() - started)
    assert sorted(times)[len(times) // 2] < 0.1


def test_a_stopped_server_stops_its_worker_and_keeps_its_jobs(start: ServerFactory, settings: Settings, slide: Path) -> None:
    server = start(settings)
    analysis = server.post(slide)
    wait_for(lambda: is_counting(server, analysis))
    (worker,) = server.workers()
    server.stop()
    assert not psutil.pid_exists(worker.pid)
    log = server.log.read_text()
    assert "job_handed_back" in log
    assert server.statuses_of_stopped_workers() == [0]
    assert "Fatal" not in log
    again = start(settings)
    wait_for(lambda: is_counting(again, analysis) or again.get(analysis)["state"] == "succeeded")


def test_a_killed_server_takes_its_worker_along_and_the_next_one_goes_on(
    start: ServerFactory, settings: Settings, slide: Path
) -> None:
    server = start(settings)
    analysis = server.post(slide)
    wait_for(lambda: is_counting(server, analysis))
    (worker,) = server.workers()
    server.stop(signal.SIGKILL)
    again = start(settings)
    wait_for(lambda: not psutil.pid_exists(worker.pid))
    wait_for(lambda: is_counting(again, analysis) or again.get(analysis)["state"] == "succeeded")


def test_ctrl_c_ends_both_without_a_traceback(start: ServerFactory, settings: Settings) -> None:
    server = start(settings)
    wait_for(server.is_ready)
    (worker,) = server.workers()
    server.stop(signal.SIGINT)
    assert not psutil.pid_exists(worker.pid)
    log = server.log.read_text()
    assert server.statuses_of_stopped_workers() == [0]
    assert "Traceback" not in log
    assert "Fatal" not in log


def test_a_slide_that_crashes_its_worker_three_times_is_failed_and_blocks_nobody(
    start: ServerFactory, settings: Settings, slide: Path
) -> None:
    crashing = Path(__file__).with_name("crashing_worker.py")
    server = start(settings, [sys.executable, "-c", SERVER, str(crashing)])
    bad = server.post(slide, threshold=0.05)
    good = server.post(slide, threshold=0.5)
    failed = wait_for(lambda: (found := server.get(bad))["state"] == "failed" and found, 60)
    assert failed["error"]["code"] == "worker_lost"
    wait_for(lambda: server.get(good)["state"] == "succeeded", 60)
    deaths = [entry for entry in server.entries() if entry["event"] == "worker_died"]
    assert [entry["status"] for entry in deaths] == [-signal.SIGSEGV] * settings.worker_attempts_max
    # Each time it is waited longer.
    delays = [entry["restart_in_s"] for entry in deaths]
    assert delays == [0.1, 0.2, 0.4]
