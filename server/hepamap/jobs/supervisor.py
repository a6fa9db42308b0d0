"""Keeps one worker process alive beside the process that owns it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from hepamap.errors import reason_of

_log = structlog.stdlib.get_logger(__name__)

# A worker that lived so long died of something else than its start, so the pause between restarts begins anew.
_HEALTHY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class SupervisorLimits:
    """The supervisor's times, seconds; see the settings of the same names."""

    restart_delay_s: float = 1.0
    restart_delay_max_s: float = 30.0
    stop_s: float = 15.0


class WorkerSupervisor:
    """Starts a worker process, starts it again when it dies, and stops it.

    The worker holds the reading end of a pipe as its standard input. The other end is closed by the system when this
    process goes, even by `kill -9`, and the worker then goes too.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], limits: SupervisorLimits) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._limits = limits
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="worker-supervisor", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the worker and keep it alive from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker: politely, then by force."""
        self._stopping.set()
        self._thread.join()

    def _keep_alive(self) -> None:
        delay_s = self._limits.restart_delay_s
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                status = self._run_once()
            except OSError as error:
                _log.error("worker_not_started", reason=reason_of(error))
                status = None
            if self._stopping.is_set():
                _log.info("worker_stopped", status=status)
                return
            if time.monotonic() - started >= _HEALTHY_AFTER_S:
                delay_s = self._limits.restart_delay_s
            _log.warning("worker_died", status=status, restart_in_s=delay_s)
            self._stopping.wait(delay_s)
            delay_s = min(max(delay_s, 0.1) * 2, self._limits.restart_delay_max_s)

    def _run_once(self) -> int:
        """Run the worker until it dies or the end is asked for; its exit status."""
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            env={**os.environ, **self._environment},
            # Ctrl-C in a terminal reaches a whole group; the worker is to be stopped by its owner only.
            start_new_session=True,
        ) as process:
            self._process = process
            _log.info("worker_started", pid=process.pid)
            while process.poll() is None and not self._stopping.wait(0.1):
                pass
            if process.poll() is None:
                self._end(process)
            return process.wait()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(self._limits.stop_s)
        except subprocess.TimeoutExpired:
            _log.warning("worker_killed", pid=process.pid, waited_s=self._limits.stop_s)
            process.kill()
