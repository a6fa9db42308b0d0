"""The signs of life of a worker and its job, and what it learns by giving them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from hepamap.jobs.claims import Claims
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import WorkerSeen
from hepamap.jobs.watch import Watch

_log = structlog.stdlib.get_logger(__name__)


class Pulse(threading.Thread):
    """Beats beside the work, so that a long read or a model's load does not make the worker look dead."""

    def __init__(
        self, store: Claims, seen: WorkerSeen, *, beat_s: float, stale_s: float, trouble: Callable[[], str | None]
    ) -> None:
        super().__init__(name="job-pulse", daemon=True)
        self._store = store
        self._seen = seen
        self._beat_s = beat_s
        self._stale_s = stale_s
        self._trouble = trouble
        self._ended = threading.Event()
        self._watch: Watch | None = None
        self._reported_at = -math.inf
        self._in_touch_since = math.inf
        self._clock_ahead_s = math.nan

    def watch(self, watch: Watch | None) -> None:
        """Beat for a job from now on; None: there is none."""
        self._watch = watch

    def may_judge(self) -> bool:
        """Whether the silence of others is their own: who was cut off from the database for a while was not alone in that.

        After an outage each worker is as silent as the dead until its next beat, and what they do must not be taken from them.
        So it is where the clock was set by which they beat.

        Raises:
            JobStoreError: the database does not answer.
        """
        self._look_at_the_clock()
        now = time.monotonic()
        return self._is_next(now) and now - self._in_touch_since >= self._stale_s

    def _look_at_the_clock(self) -> None:
        """Count anew from now on where the database's clock was set since the last look, or this machine slept."""
        ahead_s = self._store.now().timestamp() - time.monotonic()
        if abs(ahead_s - self._clock_ahead_s) > self._stale_s / 2:
            self._in_touch_since = max(self._in_touch_since, time.monotonic())
        self._clock_ahead_s = ahead_s

    def _is_next(self, now: float) -> bool:
        """Whether no sign of life is missing between the last one and now."""
        return now - self._reported_at <= self._stale_s / 2

    def end(self) -> None:
        """Stop beating and take the worker off the list."""
        self._ended.set()
        self.join()
        try:
            self._store.forget_workers(silent_for_s=self._stale_s, worker_id=self._seen.id)
        except JobStoreError as error:
            _log.warning("job_store_unavailable", reason=error.because)

    def run(self) -> None:
        """Beat until the end."""
        while not self._ended.is_set():
            for step in (self._report, self._beat):
                _survive(step)
            self._ended.wait(self._beat_s)

    def _report(self) -> None:
        """Say that the worker lives."""
        if time.monotonic() - self._reported_at >= min(2.0, self._stale_s / 3):
            self._store.report_worker(replace(self._seen, trouble=self._trouble()))
            now = time.monotonic()
            if not self._is_next(now):
                self._in_touch_since = now
            self._reported_at = now

    def _beat(self) -> None:
        """Say how far the job is, and learn whether to go on."""
        watch = self._watch
        if watch is None:
            return
        beat = self._store.beat(watch.job, watch.progress, kept=watch.kept)
        # A beat that crosses the end of the job finds it settled; by then nobody listens to the watch.
        watch.owned, watch.cancel_requested = beat.owned, watch.cancel_requested or beat.cancel_requested


def _survive(step: Callable[[], None]) -> None:
    """Whatever happens, the next beat comes: a worker without one never hears of a cancel, and its jobs are given to others."""
    try:
        step()
    except JobStoreError as error:
        _log.warning("job_store_unavailable", reason=error.because)
    except Exception:
        _log.exception("job_pulse_crashed")
