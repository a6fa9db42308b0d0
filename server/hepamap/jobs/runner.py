"""Takes computations from the store, one after the other, and does them with the handler of their kind."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from hepamap.errors import CancelledError, HepamapError
from hepamap.jobs.claims import Claims
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobFailure, JobProgress, JobResult, WorkerSeen
from hepamap.jobs.queue import WorkSource

_log = structlog.stdlib.get_logger(__name__)

_INTERNAL_ERROR = JobFailure(
    code="internal_error",
    message="Something went wrong inside hepamap that nobody foresaw.",
    cure="Try again. If it happens again, give the operator the id of this analysis: the server's log says more.",
)
_STORE_TRIES = 20


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a handler may ask and tell while it works; both calls are cheap, so it may use them after every step."""

    report: Callable[[JobProgress], None]
    cancelled: Callable[[], bool]


class JobHandler(Protocol):
    """Does one kind of computation.

    It raises CancelledError soon after `context.cancelled()` says True, and another HepamapError where it fails.
    """

    def __call__(self, work: Computation, context: JobContext, /) -> JobResult:
        """Do it."""
        ...


CleanUp = Callable[[Computation], None]
"""Removes what only an unfinished computation needs."""


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """The runner's times and counts; see the settings of the same names."""

    beat_s: float = 0.5
    stale_s: float = 60.0
    attempts_max: int = 3


class JobRunner:
    """One worker: claims a computation, does it, stores what came of it, until it is told to stop."""

    def __init__(
        self,
        store: Claims,
        handlers: Mapping[str, JobHandler],
        limits: RunnerLimits,
        *,
        clean_up: CleanUp = lambda _: None,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._limits = limits
        self._clean_up = clean_up
        self._trouble = trouble
        # Not an Event: setting one inside a signal handler can deadlock with the main thread's own wait.
        self._stopping = False
        now = datetime.now(UTC)
        self._seen = WorkerSeen(str(uuid.uuid4()), socket.gethostname(), os.getpid(), now, now)

    def stop(self) -> None:
        """Put what is being done back into the queue and end; may be called from a signal handler."""
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._stopping

    def run(self, source: WorkSource) -> None:
        """Work whenever the source says that there may be something to do, until told to stop."""
        pulse = _Pulse(self._store, self._seen, self._limits, self._trouble)
        pulse.start()
        try:
            source.serve(lambda: self._work_off(pulse), lambda: self.stopping)
        finally:
            pulse.end()

    def _work_off(self, pulse: _Pulse) -> None:
        """Do what waits, one after the other, until nothing does."""
        while not self.stopping and (work := self._claim()) is not None:
            # The id of the request that it came from, where there was one, stands on every line about it.
            with structlog.contextvars.bound_contextvars(request_id=work.payload.get("request_id")):
                self._do(work, pulse)

    def _claim(self) -> Computation | None:
        try:
            for work in self._store.recover(attempts_max=self._limits.attempts_max, silent_for_s=self._limits.stale_s):
                _log.warning("job_recovered", job=work.id, state=work.state, attempts=work.attempts)
                if work.finished:
                    clean_up_after(work, self._store, self._clean_up)
            return self._store.claim()
        except JobStoreError as error:
            _log.warning("job_store_unavailable", reason=error.because)
            time.sleep(1.0)
            return None

    def _do(self, job: Computation, pulse: _Pulse) -> None:
        _log.info("job_started", job=job.id, kind=job.kind, attempt=job.attempts)
        watch = pulse.watch(job)
        context = JobContext(report=watch.report, cancelled=lambda: self.stopping or watch.must_end)
        try:
            result = self._handlers[job.kind](job, context)
        except CancelledError:
            self._settle_cancelled(job, watch)
        except HepamapError as error:
            # Not the message: it names the slide's file, and that may name a patient. Whoever asked reads it in the answer.
            _log.info("job_failed", job=job.id, code=error.code)
            failure = JobFailure(error.code, error.message, error.cure)
            self._keep(job, lambda: self._store.fail(job, failure))
        except Exception:
            # The last resort: whatever a handler raises, the job ends and the worker goes on to the next one.
            _log.exception("job_crashed", job=job.id)
            self._keep(job, lambda: self._store.fail(job, _INTERNAL_ERROR))
        else:
            _log.info("job_succeeded", job=job.id, outcome=result.outcome)
            self._keep(job, lambda: self._store.succeed(job, result))
        finally:
            pulse.unwatch()

    def _settle_cancelled(self, job: Computation, watch: _Watch) -> None:
        # A client's wish counts more than the worker's end: the job must not come back to life.
        if self.stopping and not watch.cancel_requested:
            _log.info("job_handed_back", job=job.id)
            self._keep(job, lambda: self._store.hand_back(job), over=False)
        else:
            _log.info("job_cancelled", job=job.id)
            self._keep(job, lambda: self._store.cancel(job))

    def _keep(self, job: Computation, change: Callable[[], bool], *, over: bool = True) -> None:
        """Store how it ended; hours of work must not be lost to a moment's locked database."""
        for attempt in range(_STORE_TRIES):
            try:
                if not change():
                    _log.warning("job_claim_lost", job=job.id)
                    return
                break
            except JobStoreError as error:
                _log.warning("job_store_unavailable", job=job.id, reason=error.because)
                time.sleep(min(0.1 * 2**attempt, 5.0))
        else:
            _log.error("job_end_not_stored", job=job.id)
            return
        if over:
            clean_up_after(job, self._store, self._clean_up)


def clean_up_after(work: Computation, store: Claims, clean_up: CleanUp) -> None:
    """Remove what helped to go on with a computation that has ended, unless another one of its key can go on from there."""
    try:
        if store.wanted(work.key):
            return
    except JobStoreError as error:
        # What nobody wants is found within the hour by whoever tidies.
        _log.warning("job_store_unavailable", job=work.id, reason=error.because)
        return
    clean_up(work)


class _Watch:
    """The pulse's view of one running job; the handler writes progress, the pulse reads it and writes what it learns.

    Each field has one writer and is replaced whole, so no lock is needed.
    """

    def __init__(self, job: Computation) -> None:
        self.job = job
        self.progress = job.progress
        self.cancel_requested = False
        self.owned = True

    def report(self, progress: JobProgress) -> None:
        self.progress = progress

    @property
    def must_end(self) -> bool:
        return self.cancel_requested or not self.owned


class _Pulse(threading.Thread):
    """Beats beside the work, so that a long read or a model's load does not make the worker look dead."""

    def __init__(self, store: Claims, seen: WorkerSeen, limits: RunnerLimits, trouble: Callable[[], str | None]) -> None:
        super().__init__(name="job-pulse", daemon=True)
        self._store = store
        self._seen = seen
        self._limits = limits
        self._trouble = trouble
        self._ended = threading.Event()
        self._watch: _Watch | None = None
        self._reported_at = -limits.stale_s

    def watch(self, job: Computation) -> _Watch:
        """Beat for a job from now on."""
        self._watch = _Watch(job)
        return self._watch

    def unwatch(self) -> None:
        """The job is over."""
        self._watch = None

    def end(self) -> None:
        """Stop beating and take the worker off the list."""
        self._ended.set()
        self.join()
        try:
            self._store.forget_workers(silent_for_s=self._limits.stale_s, worker_id=self._seen.id)
        except JobStoreError as error:
            _log.warning("job_store_unavailable", reason=error.because)

    def run(self) -> None:
        """Beat until the end."""
        while not self._ended.is_set():
            try:
                self._beat()
            except JobStoreError as error:
                _log.warning("job_store_unavailable", reason=error.because)
            self._ended.wait(self._limits.beat_s)

    def _beat(self) -> None:
        if time.monotonic() - self._reported_at >= min(2.0, self._limits.stale_s / 3):
            self._store.report_worker(replace(self._seen, trouble=self._trouble()))
            self._reported_at = time.monotonic()
        watch = self._watch
        if watch is None:
            return
        beat = self._store.beat(watch.job, watch.progress)
        # A beat that crosses the end of the job finds it settled; by then nobody listens to the watch.
        watch.owned, watch.cancel_requested = beat.owned, watch.cancel_requested or beat.cancel_requested
