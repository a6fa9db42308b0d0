from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog.testing import capture_logs

from hepamap.jobs.processes import exclusive_lock
from hepamap.jobs.supervisor import SupervisorLimits, WorkerSupervisor
from tests.jobs.test_runner import wait_for

# Writes its process id into a file, then waits to be stopped; ends when its standard input is closed.
PATIENT = """
import os, sys
from hepamap.jobs.processes import call_when_closed
import signal, threading
ended = threading.Event()
call_when_closed(sys.stdin.buffer, ended.set)
with open(os.environ["PIDS"], "a") as file:
    file.write(f"{os.getpid()}\\n")
while not ended.wait(0.05):
    pass
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PATIENT


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def supervised(script: str, path: Path, stop_s: float = 5.0) -> Iterator[WorkerSupervisor]:
    limits = SupervisorLimits(restart_delay_s=0.05, restart_delay_max_s=0.2, stop_s=stop_s)
    supervisor = WorkerSupervisor([sys.executable, "-c", script], {"PIDS": str(path)}, limits)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def test_a_killed_worker_is_started_again_and_the_last_one_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with supervised(PATIENT, path) as supervisor:
        wait_for(lambda: len(pids(path)) == 1)
        assert supervisor.pid == pids(path)[0]
        os.kill(pids(path)[0], signal.SIGKILL)
        wait_for(lambda: len(pids(path)) == 2)
    assert not any(alive(pid) for pid in pids(path))
    assert supervisor.pid is None


def test_a_worker_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with supervised(STUBBORN, path, stop_s=0.2):
        wait_for(lambda: len(pids(path)) == 1)
    assert not alive(pids(path)[0])


def test_a_command_that_does_not_exist_ends_nothing(tmp_path: Path) -> None:
    supervisor = WorkerSupervisor([str(tmp_path / "nothing")], {}, SupervisorLimits(0.01, 0.02, 1.0))
    with capture_logs() as logs:
        supervisor.start()
        wait_for(lambda: bool(logs))
        supervisor.stop()
    assert (logs[0]["event"], logs[0]["reason"]) == ("worker_not_started", "No such file or directory")


def test_the_worker_goes_when_its_owner_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    owner = f"""
import sys, time
from hepamap.jobs.supervisor import SupervisorLimits, WorkerSupervisor
WorkerSupervisor([sys.executable, "-c", {PATIENT!r}], {{"PIDS": {str(path)!r}}}, SupervisorLimits()).start()
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", owner], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: len(pids(path)) == 1)
        process.kill()
    wait_for(lambda: not alive(pids(path)[0]))


def test_only_one_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path, give_up=lambda: True) as first, exclusive_lock(path, give_up=lambda: True) as second:
        assert (first, second) == (True, False)
    with exclusive_lock(path, give_up=lambda: True) as third:
        assert third


def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    got = threading.Event()

    def wait() -> None:
        with exclusive_lock(path, give_up=lambda: False) as held:
            assert held
            got.set()

    thread = threading.Thread(target=wait)
    with exclusive_lock(path, give_up=lambda: True):
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(2)
    thread.join()
