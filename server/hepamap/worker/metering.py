"""Around every handler: how long each stage took, for the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.runner import JobContext, JobHandler
from hepamap.jobs.sessions import Sessions
from hepamap.operations import tallies

_log = structlog.stdlib.get_logger(__name__)


def metered(handler: JobHandler, store: Sessions, *, clock: Callable[[], float] = time.monotonic) -> JobHandler:
    """The same handler, watched.

    Args:
        handler: does the work.
        store: where the totals are kept.
        clock: seconds.
    """

    def run(work: Computation, context: JobContext) -> JobResult:
        stages = _StageClock(clock)

        def report(progress: JobProgress) -> None:
            stages.enter(progress.stage)
            context.report(progress)

        result = handler(work, replace(context, report=report))
        _keep(store, stages.leave())
        return result

    return run


class _StageClock:
    """How long each stage took; one that is entered again goes on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._since = clock()
        self._seconds: dict[str, float] = {}

    def enter(self, stage: str) -> None:
        if stage != self._stage:
            self.leave()
            self._stage = stage

    def leave(self) -> dict[str, float]:
        now = self._clock()
        if self._stage is not None:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._since, self._stage = now, None
        return self._seconds


def _keep(store: Sessions, seconds: dict[str, float]) -> None:
    try:
        with store.writing() as session:
            tallies.add(session, tallies.STAGE_SECONDS, seconds.items())
    except JobStoreError as error:
        # A result is worth more than a number about it.
        _log.warning("metrics_not_stored", reason=error.message)
