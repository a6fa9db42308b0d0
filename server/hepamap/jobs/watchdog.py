"""Ends a worker process whose job has got stuck: in a share that does not answer, or in a library that loops.

No code of Python's can interrupt either, and the pulse goes on beating beside it, so nobody else would notice. What follows is
what follows any death of a worker: it is started again, and its job is settled by `claims.recover`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hepamap.jobs.watch import Watch

_log = structlog.stdlib.get_logger(__name__)

STUCK_STATUS = 75
"""Exit status of a worker that ended itself because its job was stuck (EX_TEMPFAIL of sysexits.h: to be tried again)."""
_LOOK_S = 2.0
# So much later than the watchdog itself acts the one for the case that no Python runs at all.
_LAST_RESORT_S = 5.0


def end_process_after(seconds: float) -> None:
    """End this process then, unless this is called again before: also where a library holds the interpreter's lock.

    Then no thread of Python's runs, the watchdog's neither; this timer is outside Python. It writes where all threads are.
    """
    with contextlib.suppress(RuntimeError, ValueError, OSError):  # there is no stderr to write on
        faulthandler.dump_traceback_later(seconds, exit=True)


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """The watchdog's times, seconds; see the settings of the same names."""

    stuck_s: float = 900.0
    cancel_s: float = 60.0


class Watchdog(threading.Thread):
    """Looks at the running job; only for a process of its own, since it ends it.

    It touches neither the database nor the disk, so that it cannot hang itself.
    """

    def __init__(
        self,
        limits: WatchdogLimits,
        *,
        end_process: Callable[[int], object] = os._exit,
        last_resort: Callable[[float], None] = end_process_after,
    ) -> None:
        super().__init__(name="job-watchdog", daemon=True)
        self._limits = limits
        self._end_process = end_process
        self._last_resort = last_resort
        self._look_s = min(_LOOK_S, limits.stuck_s / 10, limits.cancel_s / 10)
        self._ended = threading.Event()
        self._watch: Watch | None = None

    def guard(self, watch: Watch | None) -> None:
        """Look after a job from now on; None: there is none."""
        self._watch = watch
        # Here too, in the thread of the job: it may hold the interpreter's lock before the watchdog gets to its first look.
        self._put_off_the_last_resort()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()
        faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Look until the end."""
        while not self._ended.wait(self._look_s):
            self._put_off_the_last_resort()
            watch = self._watch
            why = None if watch is None else self._why_stuck(watch, time.monotonic())
            if watch is None or why is None:
                continue
            _log.error(
                "worker_stuck",
                job=watch.job.id,
                attempt=watch.job.attempts,
                stage=watch.progress.stage,
                silent_s=round(time.monotonic() - watch.heard_at, 1),
                reason=why,
                status=STUCK_STATUS,
            )
            self._end_process(STUCK_STATUS)
            return

    def _put_off_the_last_resort(self) -> None:
        self._last_resort(self._limits.stuck_s + _LAST_RESORT_S)

    def _why_stuck(self, watch: Watch, now: float) -> str | None:
        if now - watch.heard_at >= self._limits.stuck_s:
            return "the job gave no sign of getting on"
        # Storing the end takes as long as the database is away: only the handler is held to the shorter time.
        if watch.working and watch.must_end:
            if watch.told_at is None:
                watch.told_at = now
            if now - watch.told_at >= self._limits.cancel_s:
                return "the job did not stop when it was to"
        return None
