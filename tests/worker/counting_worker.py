"""A worker whose jobs take time and no network: it counts to a hundred. Run by the server instead of `hepamap.worker`."""

from __future__ import annotations

import sys
import time

from hepamap.detection import ANALYSIS
from hepamap.errors import CancelledError
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.processes import configure_logging
from hepamap.jobs.runner import JobContext
from hepamap.settings import Settings
from hepamap.worker.main import Handlers, run_worker

STEPS = 100


def count(work: Computation, context: JobContext) -> JobResult:
    for step in range(STEPS):
        context.report(JobProgress(step, STEPS, "counting"))
        if context.cancelled():
            raise CancelledError
        # The second start is quick: the tests wait for its end.
        time.sleep(0.05 if work.attempts == 1 else 0.001)
    return JobResult("ok", (), work.id)


if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer, handlers_of=lambda settings: Handlers({ANALYSIS: count}))
