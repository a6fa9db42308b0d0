"""Real servers: uvicorn in a process of its own, with a worker process beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from hepamap.model_pack import write_pack
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body
from tests.ports import free_port

COUNTING_WORKER = Path(__file__).with_name("counting_worker.py")

# The server as `hepamap serve` runs it, but with another worker beside it.
SERVER = """
import sys
import uvicorn
from hepamap.api.app import create_app
from hepamap.jobs.processes import configure_logging
from hepamap.settings import Settings
configure_logging()
settings = Settings()
app = create_app(settings, worker_command=[sys.executable, sys.argv[1]])
uvicorn.run(app, port=settings.port, log_config=None, access_log=False)
"""


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return found


class Server:
    """A running server and its worker."""

    def __init__(self, settings: Settings, command: list[str], log: Path) -> None:
        self.settings = settings
        self.log = log
        # The first question waits for the processes that look at slides, which takes long where all cores are busy.
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60)
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, env={**os.environ, **settings.environment()}, stderr=file, stdout=file)

    def is_alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def is_ready(self) -> bool:
        return self.is_alive() and self.http.get("/health/ready").status_code == 200

    def entries(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def statuses_of_stopped_workers(self) -> list[int]:
        return [entry["status"] for entry in self.entries() if entry["event"] == "worker_stopped"]

    def workers(self) -> list[psutil.Process]:
        """Without the processes that look at slides."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.status() != "zombie" and "worker" in " ".join(child.cmdline())]

    def get(self, analysis: Any) -> Any:
        return self.http.get(analysis["links"]["self"]).raise_for_status().json()

    def post(self, slide: Path, **others: Any) -> Any:
        response = self.http.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, **others})
        return response.raise_for_status().json()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        status = self.process.wait(30)
        self.http.close()
        return status


ServerFactory = Callable[..., Server]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "slides").mkdir()
    write_pack(tmp_path / "models/tiny-5x/1.0.0", manifest_body(), {"layer/kernel": np.zeros(1)}, "# For tests\n")
    return Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        default_model="tiny-5x",
        slide_roots=(tmp_path / "slides",),
        port=free_port(),
        min_free_bytes=0,
        worker_poll_s=0.05,
        worker_beat_s=0.1,
        worker_restart_delay_s=0.1,
    )


@pytest.fixture
def slide(settings: Settings) -> Path:
    image = np.full((600, 800, 3), 245, np.uint8)
    image[100:500, 100:700] = (190, 110, 160)
    return write_tiff_slide(settings.slide_roots[0] / "slide.tif", image, 0.46)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[ServerFactory]:
    servers: list[Server] = []

    def start_server(settings: Settings, command: list[str] | None = None) -> Server:
        counting = [sys.executable, "-c", SERVER, str(COUNTING_WORKER)]
        server = Server(settings, command or counting, tmp_path / "server.log")
        servers.append(server)
        wait_for(server.is_alive)
        return server

    yield start_server
    for server in servers:
        if server.process.poll() is None:
            server.stop()
