"""A server and workers as processes of their own, on one database; any of them may be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from hepamap.model_pack import write_pack
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVER = [sys.executable, "-m", "hepamap", "serve"]


def fleet_settings(folder: Path, database_url: str = "") -> Settings:
    """Settings of a small site, with a slide and a model pack that nobody reads.

    Args:
        folder: where all of it lies.
        database_url: of PostgreSQL; without it there is SQLite, and the server has a worker of its own.
    """
    (folder / "slides").mkdir()
    write_pack(folder / "models/tiny-5x/1.0.0", manifest_body(), {"layer/kernel": np.zeros(1)}, "# For tests\n")
    write_tiff_slide(folder / "slides/slide.tif", np.full((600, 800, 3), 200, np.uint8), 0.46)
    return Settings(
        data_dir=folder / "data",
        models_dir=folder / "models",
        default_model="tiny-5x",
        slide_roots=(folder / "slides",),
        port=free_port(),
        min_free_bytes=0,
        embedded_worker=not database_url,
        database_url=database_url,
        worker_beat_s=0.2,
        worker_stale_s=3.0,
    )


def threshold_of(number: int) -> float:
    """What makes a question another one than all others."""
    return (number + 1) / 10_000


class Fleet:
    """One server, which is the first command, and some workers."""

    def __init__(self, settings: Settings, commands: Sequence[list[str]], **environment: str) -> None:
        self.settings = settings
        self.log = settings.data_dir / "processes.log"
        settings.data_dir.mkdir(exist_ok=True)
        self._environment = {**os.environ, **settings.environment(), **environment}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=10)
        self._commands = list(commands)
        self.processes = [self._start(command) for command in self._commands]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def kill(self, number: int) -> None:
        """Kill a process (0 is the server) and start it again."""
        self._end(number, signal.SIGKILL)
        self.processes[number] = self._start(self._commands[number])

    def revive(self) -> None:
        """Start again what has ended by itself, as systemd or docker would: nothing begins while the database is away."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                with process:
                    self.processes[number] = self._start(self._commands[number])

    def stop(self) -> list[int]:
        """Stop all of them politely; their exit statuses."""
        self.http.close()
        return [self._end(number, signal.SIGTERM) for number in range(len(self.processes))]

    def _end(self, number: int, how: signal.Signals) -> int:
        with self.processes[number] as process:
            process.send_signal(how)
            return process.wait(60)

    def send(self, method: str, path: str, **values: Any) -> Any:
        """Ask, and ask again while the server is away; its answer."""
        end = time.monotonic() + 60
        while True:
            try:
                response = self.http.request(method, path, **values)
                if response.status_code != 503:
                    return response.raise_for_status().json()
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, self.log.read_text()[-4000:]
            time.sleep(0.1)

    def ask(self, number: int, **others: Any) -> Any:
        """Ask question number so and so; may be asked again without harm."""
        slide = {"path": str(self.settings.slide_roots[0] / "slide.tif")}
        body = {"slide": slide, "threshold": threshold_of(number), **others}
        return self.send("POST", "/api/v1/analyses", json=body, headers={"Idempotency-Key": f"question-{number}"})

    def analyses(self) -> list[Any]:
        """All analyses there are."""
        found, cursor = [], None
        while True:
            page = self.send("GET", "/api/v1/analyses", params={"limit": 200} | ({"cursor": cursor} if cursor else {}))
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found
