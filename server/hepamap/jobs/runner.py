"""Takes computations from the store, one after the other, and does them with the handler of their kind."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from hepamap.errors import CancelledError, HepamapError
from hepamap.jobs.claims import Claims
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobFailure, JobProgress, JobResult, WorkerSeen
from hepamap.jobs.pulse import Pulse
from hepamap.jobs.queue import WorkSource
from hepamap.jobs.watch import Watch
from hepamap.jobs.watchdog import Watchdog

_log = structlog.stdlib.get_logger(__name__)

_INTERNAL_ERROR = JobFailure(
    code="internal_error",
    message="Something went wrong inside hepamap that nobody foresaw.",
    cure="Try again. If it happens again, give the operator the id of this analysis: the server's log says more.",
)
_STORE_TRIES = 20


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a handler may ask and tell while it works; all calls are cheap, so it may use them after every step.

    Each is a sign that it gets on; one that gives none for long is taken for stuck.
    """

    report: Callable[[JobProgress], None]
    cancelled: Callable[[], bool]
    kept: Callable[[], None] = lambda: None
    """To be told when something was stored that the next start need not do again."""


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
        watchdog: Watchdog | None = None,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._limits = limits
        self._clean_up = clean_up
        self._trouble = trouble
        self._watchdog = watchdog
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
        limits = self._limits
        pulse = Pulse(self._store, self._seen, beat_s=limits.beat_s, stale_s=limits.stale_s, trouble=self._trouble)
        pulse.start()
        if self._watchdog is not None:
            self._watchdog.start()
        try:
            source.serve(lambda: self._work_off(pulse), lambda: self.stopping)
        finally:
            pulse.end()
            if self._watchdog is not None:
                self._watchdog.end()

    def _work_off(self, pulse: Pulse) -> None:
        """Do what waits, one after the other, until nothing does."""
        while not self.stopping and (work := self._claim(pulse)) is not None:
            # The id of the request that it came from, where there was one, stands on every line about it.
            with structlog.contextvars.bound_contextvars(request_id=work.payload.get("request_id")):
                self._do(work, pulse)

    def _claim(self, pulse: Pulse) -> Computation | None:
        try:
            if pulse.may_judge():
                self._recover()
            return self._store.claim()
        except JobStoreError as error:
            _log.warning("job_store_unavailable", reason=error.because)
            time.sleep(1.0)
            return None

    def _recover(self) -> None:
        """Take over what silent workers left."""
        for work in self._store.recover(attempts_max=self._limits.attempts_max, silent_for_s=self._limits.stale_s):
            _log.warning("job_recovered", job=work.id, state=work.state, attempts=work.attempts)
            if work.finished:
                clean_up_after(work, self._store, self._clean_up)

    def _do(self, job: Computation, pulse: Pulse) -> None:
        _log.info("job_started", job=job.id, kind=job.kind, attempt=job.attempts)
        watch = Watch(job, lambda: self.stopping)
        self._look_after(watch, pulse)
        try:
            settle = self._handled(watch)
            watch.come_back()
            settle()
        finally:
            self._look_after(None, pulse)

    def _look_after(self, watch: Watch | None, pulse: Pulse) -> None:
        pulse.watch(watch)
        if self._watchdog is not None:
            self._watchdog.guard(watch)

    def _handled(self, watch: Watch) -> Callable[[], None]:
        """Have the handler do it; the way to store how that ended."""
        job = watch.job
        context = JobContext(report=watch.report, cancelled=watch.ask, kept=watch.keep)
        try:
            result = self._handlers[job.kind](job, context)
        except CancelledError:
            return lambda: self._settle_cancelled(watch)
        except HepamapError as error:
            # Not the message: it names the slide's file, and that may name a patient. Whoever asked reads it in the answer.
            _log.info("job_failed", job=job.id, code=error.code)
            failure = JobFailure(error.code, error.message, error.cure)
            return lambda: self._keep(watch, lambda: self._store.fail(job, failure))
        except Exception:
            # The last resort: whatever a handler raises, the job ends and the worker goes on to the next one.
            _log.exception("job_crashed", job=job.id)
            return lambda: self._keep(watch, lambda: self._store.fail(job, _INTERNAL_ERROR))
        _log.info("job_succeeded", job=job.id, outcome=result.outcome)
        return lambda: self._keep(watch, lambda: self._store.succeed(job, result))

    def _settle_cancelled(self, watch: Watch) -> None:
        job = watch.job
        # A client's wish counts more than the worker's end: the job must not come back to life.
        if self.stopping and not watch.cancel_requested:
            _log.info("job_handed_back", job=job.id)
            self._keep(watch, lambda: self._store.hand_back(job), over=False)
        else:
            _log.info("job_cancelled", job=job.id)
            self._keep(watch, lambda: self._store.cancel(job))

    def _keep(self, watch: Watch, change: Callable[[], bool], *, over: bool = True) -> None:
        """Store how it ended; hours of work must not be lost to a moment's locked database."""
        job = watch.job
        for attempt in range(_STORE_TRIES):
            watch.hear()
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
    """Remove what helped to go on with a computation that has ended, unless another one can go on from there."""
    try:
        if store.wanted(work.pieces):
            return
    except JobStoreError as error:
        # What nobody wants is found by whoever tidies, a day later.
        _log.warning("job_store_unavailable", job=work.id, reason=error.because)
        return
    try:
        clean_up(work)
    except Exception:
        # The computation has ended, well or not: what is left of it is no reason for the worker to end too.
        _log.exception("job_not_cleaned_up", job=work.id)
