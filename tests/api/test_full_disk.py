"""A disk that is full in earnest (a small tmpfs): coded answers, nothing lost, and it works again when there is room."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from structlog.testing import capture_logs

from hepamap.detection import DetectionRequest
from hepamap.errors import OutputNotWritableError
from hepamap.jobs.job import JobProgress, JobResult
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobContext, JobRunner, RunnerLimits
from hepamap.jobs.states import JobState
from hepamap.jobs.store import JobStore
from hepamap.maps import Piece
from hepamap.settings import Settings
from hepamap.worker.checkpoint import FolderCheckpoint
from hepamap.worker.handler import DetectionHandler
from tests.api.server_process import ServerProcess, serving
from tests.api.tus_client import TUS, UPLOADS, metadata
from tests.jobs.questions import add
from tests.worker.conftest import wait_for
from tests.worker.mapping_worker import BrightnessDetector

MB = 1024**2
SIZE_MB = 24
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="mounting a disk of its own takes root on Linux"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


@pytest.fixture
def on_disk(settings: Settings, disk: Path) -> Settings:
    return settings.model_copy(update={"data_dir": disk, "embedded_worker": False, "max_upload_bytes": 16 * MB})


@pytest.fixture
def server(on_disk: Settings, tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(on_disk, tmp_path / "log") as process:
        yield process


def refused(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert response.status_code in (503, 507)
    return str(response.json()["code"])


def test_the_server_says_so_and_goes_on_when_there_is_room(
    server: ServerProcess, disk: Path, slide: Path, tmp_path: Path
) -> None:
    wanted = {"slide": {"path": str(slide)}}
    first = server.ask("POST", "/api/v1/analyses", json=wanted).raise_for_status().json()
    big = {**TUS, "Upload-Length": str(8 * MB), "Upload-Metadata": metadata(filename="a.tif")}
    upload = server.ask("POST", UPLOADS, headers=big).headers["location"]
    ballast = fill(disk)
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert refused(server.ask("PATCH", upload, headers=piece, content=bytes(8 * MB))) == "output_not_writable"
    assert refused(server.ask("POST", UPLOADS, headers=big)) == "output_not_writable"
    file = {"file": ("a.tif", slide.read_bytes() + bytes(3 * MB))}
    assert refused(server.ask("POST", "/api/v1/analyses", files=file)) == "output_not_writable"
    answers = [
        server.ask("POST", "/api/v1/analyses", json={**wanted, "threshold": n / 1000, "identity": {"accession": "x" * 200}})
        for n in range(1, 40)
    ]
    # SQLite has pages left in its files for a while; what it took is kept, and what it could not was refused.
    taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert {refused(answer) for answer in answers if answer.status_code != 202} <= {"job_store_unavailable"}
    assert server.ask("GET", "/health/live").status_code == 200
    assert server.ask("GET", "/health/ready").status_code == 503
    assert server.ask("GET", first["links"]["self"]).json()["state"] == "queued"
    ballast.unlink()
    offset = int(server.ask("HEAD", upload, headers=TUS).headers["upload-offset"])
    rest = server.ask("PATCH", upload, headers={**piece, "Upload-Offset": str(offset)}, content=bytes(8 * MB - offset))
    assert (rest.status_code, rest.headers["upload-offset"]) == (204, str(8 * MB))
    ids = {item["id"] for item in server.ask("GET", "/api/v1/analyses", params={"limit": 200}).json()["items"]}
    assert ids == {first["id"], *taken}
    server.ask("POST", "/api/v1/analyses", json={**wanted, "threshold": 0.9}).raise_for_status()
    assert server.ask("GET", "/health/ready").json()["checks"]["disk"]["ok"]
    log = (tmp_path / "log").read_text()
    assert "request_crashed" not in log
    assert "xxxx" not in log


def test_a_worker_that_cannot_write_fails_the_analysis_and_does_the_next(on_disk: Settings, disk: Path, slide: Path) -> None:
    on_disk.results_dir.mkdir()
    handler = DetectionHandler(BrightnessDetector(on_disk.models_dir, 0.0), on_disk.results_dir, on_disk.scratch_dir)
    with closing(JobStore.open(on_disk.database)) as store:
        detection = DetectionRequest(slide, model=on_disk.default_model).to_json()
        works = []
        for key in ("1", "2"):
            add(store, key=key, work={"detection": detection})
            work = store.claim()
            assert work is not None
            works.append(work)
        context = JobContext(report=lambda _: None, cancelled=lambda: False)
        ballast = fill(disk)
        with pytest.raises(OutputNotWritableError) as error:
            handler(works[0], context)
        assert error.value.code == "output_not_writable"
        assert [path.name for path in on_disk.results_dir.iterdir()] == []
        ballast.unlink()
        assert handler(works[1], context).outcome in ("ok", "ok_with_warnings", "not_evaluable")


def test_a_piece_of_a_map_that_finds_no_room_costs_only_itself(disk: Path) -> None:
    checkpoint = FolderCheckpoint(disk, "key")
    values = np.arange(64 * 1024, dtype=np.float32)
    checkpoint.store("before", Piece(values, 2, 1))
    fill(disk)
    checkpoint.store("after", Piece(values, 2, 1))
    before = checkpoint.load("before")
    assert before is not None
    np.testing.assert_array_equal(before.values, values)
    assert checkpoint.load("after") is None
    assert [path.name for path in (disk / "key").iterdir()] == ["before.npy"]


def test_an_end_that_the_database_has_no_room_for_is_stored_when_it_has(disk: Path) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(closing(JobStore.open(disk / "jobs.sqlite3")))
        job = add(store)
        started, may_end = threading.Event(), threading.Event()

        def do(work: Any, context: JobContext) -> Any:
            context.report(JobProgress(1, 2, "working"))
            started.set()
            assert may_end.wait(30)
            return JobResult("ok", ({"code": "x", "message": "y" * 50_000},), "there")

        runner = JobRunner(store, {"k": do}, RunnerLimits(beat_s=0.05))
        thread = threading.Thread(target=runner.run, args=(Polling(0.01),))
        logs = stack.enter_context(capture_logs())
        thread.start()
        assert started.wait(30)
        ballast = fill(disk)
        may_end.set()

        # The end itself, and not only a beat.
        wait_for(lambda: any(entry["event"] == "job_store_unavailable" and "job" in entry for entry in logs), 30)
        ballast.unlink()
        wait_for(lambda: (found := store.get(job.id)) and found.state is JobState.SUCCEEDED, 30)
        runner.stop()
        thread.join()
