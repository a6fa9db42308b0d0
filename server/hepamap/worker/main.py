"""The life of a worker process: signals, recovery of what an earlier worker left, work, end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import structlog

from hepamap.detection import ANALYSIS, Detector
from hepamap.jobs.job import Computation
from hepamap.jobs.processes import call_when_closed, exclusive_lock
from hepamap.jobs.queue import source_of
from hepamap.jobs.runner import JobHandler, JobRunner, RunnerLimits, clean_up_after
from hepamap.jobs.store import JobStore
from hepamap.jobs.strays import unfinished_results
from hepamap.jobs.watchdog import Watchdog, WatchdogLimits
from hepamap.operations.finishing import finish_jobs
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from hepamap.worker.metering import metered

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a worker can do."""

    by_kind: Mapping[str, JobHandler]
    warm_up: Callable[[], None] = lambda: None
    """Called once before the first job is taken: loading a model inside a job could not be cancelled."""
    clean_up: Callable[[Computation], None] = lambda _: None
    """Called when a computation has ended for good: removes what helps to go on with it."""
    trouble: Callable[[], str | None] = lambda: None
    """Asked again and again: what keeps this worker from working."""


HandlerFactory = Callable[[Settings], Handlers]


def run_worker(settings: Settings, *, owner: IO[bytes] | None = None, handlers_of: HandlerFactory | None = None) -> None:
    """Work until SIGTERM or SIGINT, or until the owner's end of a pipe is closed.

    Args:
        settings: where the jobs, the models and the results are.
        owner: reading end of a pipe that the supervising process holds open.
        handlers_of: makes the handlers; detection unless told otherwise.

    Raises:
        JobStoreError: the job database cannot be opened.
    """
    settings.results_dir.mkdir(parents=True, exist_ok=True)
    store = JobStore.open(settings.database, on_finished=finish_jobs)
    try:
        handlers = (handlers_of or _detection_handlers)(settings)
        watched = {kind: metered(handler, store) for kind, handler in handlers.by_kind.items()}
        watchdog = Watchdog(WatchdogLimits(settings.worker_stuck_s, settings.worker_cancel_s))
        runner = JobRunner(
            store, watched, _limits(settings), clean_up=handlers.clean_up, trouble=handlers.trouble, watchdog=watchdog
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: runner.stop())
        if owner is not None:
            call_when_closed(owner, runner.stop)
        with _alone(settings, store, runner, handlers) as ready:
            if ready:
                handlers.warm_up()
                runner.run(source_of(store.engine.url, poll_s=settings.worker_poll_s, stale_s=settings.worker_stale_s))
    finally:
        store.close()


@contextmanager
def _alone(settings: Settings, store: JobStore, runner: JobRunner, handlers: Handlers) -> Iterator[bool]:
    """Wait until this worker may begin; whether it ever may.

    SQLite means one machine, and there one worker: two would only fight for the same cores and memory. Since no other
    worker is alive while this one has the lock, everything that still runs was left by a dead one. PostgreSQL takes any
    number of workers; there what a dead one left is known by its silence.
    """
    if settings.database_url:
        yield True
        return
    with exclusive_lock(settings.worker_lock_path, give_up=lambda: runner.stopping) as held:
        if held:
            for work in store.recover(attempts_max=settings.worker_attempts_max):
                _log.warning("job_recovered", job=work.id, state=work.state, attempts=work.attempts)
                if work.finished:
                    clean_up_after(work, store, handlers.clean_up)
            store.forget_workers(silent_for_s=0.0)
            for path in unfinished_results(store, settings.results_dir):
                shutil.rmtree(path, ignore_errors=True)
        yield held


def _limits(settings: Settings) -> RunnerLimits:
    return RunnerLimits(
        beat_s=settings.worker_beat_s,
        stale_s=settings.worker_stale_s,
        attempts_max=settings.worker_attempts_max,
    )


def _detection_handlers(settings: Settings) -> Handlers:
    handler = DetectionHandler(Detector(settings.models_dir, settings.precision), settings.results_dir, settings.scratch_dir)
    return Handlers(
        {ANALYSIS: handler},
        warm_up=lambda: handler.warm_up(settings.default_model),
        clean_up=handler.clean_up,
        trouble=lambda: handler.trouble,
    )
