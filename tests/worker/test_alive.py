"""`hepamap worker --alive`, the health check of a worker's container."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hepamap.jobs.job import WorkerSeen
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings


def ask(settings: Settings) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hepamap", "worker", "--alive"]
    environment = {**os.environ, **settings.environment()}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("host", "silent_s", "status"), [(None, 1, 0), (None, 30, 1), ("another", 1, 1)])
def test_only_a_worker_of_this_machine_that_spoke_lately_counts(
    tmp_path: Path, host: str | None, silent_s: float, status: int
) -> None:
    settings = Settings(data_dir=tmp_path, worker_stale_s=20)
    seen = datetime.now(UTC) - timedelta(seconds=silent_s)
    with closing(JobStore.open(settings.database, clock=lambda: seen)) as store:
        store.report_worker(WorkerSeen("w", host or socket.gethostname(), 1, seen, seen))
    done = ask(settings)
    assert done.returncode == status, done.stderr
    assert ("has given a sign of life" in done.stderr) == bool(status)
    assert "Traceback" not in done.stderr
