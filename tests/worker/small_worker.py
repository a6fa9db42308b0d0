"""A worker whose jobs take a moment and no network: each writes down which question it was and which answer it has."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time

from hepamap.detection import ANALYSIS
from hepamap.errors import CancelledError
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.processes import configure_logging
from hepamap.jobs.runner import JobContext
from hepamap.settings import Settings
from hepamap.worker.main import Handlers, run_worker

STEPS = 10


def answer_to(threshold: float) -> str:
    return hashlib.sha256(f"{threshold:.4f}".encode()).hexdigest()


def handlers_of(settings: Settings) -> Handlers:
    seconds = float(os.environ["SMALL_JOB_SECONDS"])

    def work_on(work: Computation, context: JobContext) -> JobResult:
        with (settings.data_dir / "starts.log").open("a") as log:
            log.write(f"{os.getpid()} {work.id}\n")
        for step in range(STEPS):
            context.report(JobProgress(step, STEPS, "working"))
            if context.cancelled():
                raise CancelledError
            time.sleep(seconds / STEPS)
        folder = settings.results_dir / f"{work.id}.{work.attempts}"
        folder.mkdir(exist_ok=True)
        threshold = work.payload["detection"]["threshold"]
        (folder / "result.json").write_text(json.dumps({"threshold": threshold, "answer": answer_to(threshold)}))
        return JobResult("ok", (), folder.name)

    return Handlers({ANALYSIS: work_on})


if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer, handlers_of=handlers_of)
