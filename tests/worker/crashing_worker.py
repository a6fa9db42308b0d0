"""A worker that one kind of analysis kills, as a crash inside a native library would: one below a threshold of 0.1."""

from __future__ import annotations

import ctypes
import sys

from hepamap.detection import ANALYSIS
from hepamap.jobs.job import Computation, JobResult
from hepamap.jobs.processes import configure_logging
from hepamap.jobs.runner import JobContext
from hepamap.settings import Settings
from hepamap.worker.main import Handlers, run_worker


def crash_or_succeed(work: Computation, context: JobContext) -> JobResult:
    if work.payload["detection"]["threshold"] < 0.1:
        ctypes.string_at(0)
    return JobResult("ok", (), work.id)


if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer, handlers_of=lambda settings: Handlers({ANALYSIS: crash_or_succeed}))
