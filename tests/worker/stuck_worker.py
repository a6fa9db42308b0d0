"""A worker that gets stuck in analyses below a threshold of 0.1, as in a share that does not answer: nothing is ever said again.

Below 0.05 it also holds the interpreter's lock, as a library's own loop may: then no other thread runs.
"""

from __future__ import annotations

import ctypes
import sys
import time

from hepamap.detection import ANALYSIS
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.processes import configure_logging
from hepamap.jobs.runner import JobContext
from hepamap.settings import Settings
from hepamap.worker.main import Handlers, run_worker


def handlers_of(settings: Settings) -> Handlers:
    def stop_or_succeed(work: Computation, context: JobContext) -> JobResult:
        with (settings.data_dir / "starts.log").open("a") as log:
            log.write(f"{work.id}\n")
        threshold = work.payload["detection"]["threshold"]
        context.report(JobProgress(1, 2, "classifying"))
        if threshold < 0.05:
            ctypes.PyDLL(None).sleep(3600)
        while threshold < 0.1:
            time.sleep(3600)
        return JobResult("ok", (), work.id)

    return Handlers({ANALYSIS: stop_or_succeed})


if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer, handlers_of=handlers_of)
