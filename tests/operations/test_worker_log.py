"""What the worker's log says about a request, and what it does not."""

from __future__ import annotations

import threading
from pathlib import Path

import structlog
from structlog.testing import capture_logs

from hepamap.errors import SlideDamagedError
from hepamap.jobs.job import Computation, JobResult, Question
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobContext, JobRunner, RunnerLimits
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore


def test_lines_about_a_job_have_its_request_id_and_never_its_file(tmp_path: Path) -> None:
    store = JobStore.open(tmp_path / "jobs.sqlite3")
    job = store.submit(Question(kind="k", key="k", work={"request_id": "order-17"}, payload={})).job
    seen: dict[str, object] = {}
    ended = threading.Event()

    def damaged(work: Computation, context: JobContext) -> JobResult:
        seen.update(structlog.contextvars.get_contextvars())
        ended.set()
        raise SlideDamagedError("Level 0 of Jane-Doe.svs cannot be decoded.", cure="Copy the slide again.")

    runner = JobRunner(store, {"k": damaged}, RunnerLimits(beat_s=0.02))
    thread = threading.Thread(target=runner.run, args=(Polling(0.01),))
    with capture_logs() as logs:
        thread.start()
        assert ended.wait(10)
        runner.stop()
        thread.join()
    found = store.get(job.id)
    store.close()
    assert seen["request_id"] == "order-17"
    assert [entry["code"] for entry in logs if entry["event"] == "job_failed"] == ["slide_damaged"]
    assert "Jane" not in str(logs)
    assert found is not None
    assert found.failure is not None
    assert (found.state, "Jane-Doe.svs" in found.failure.message) == (JobState.FAILED, True)
