"""A real server process, for what only sockets and processes show."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hepamap.settings import Settings
from tests.ports import free_port


@dataclass(frozen=True, slots=True)
class ServerProcess:
    url: str
    port: int
    pid: int

    def ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        """The answer to one request, on a line of its own; a busy machine has a minute for it."""
        return httpx.request(method, self.url + path, trust_env=False, **{"timeout": 60, **values})


@contextmanager
def serving(settings: Settings, log: Path) -> Iterator[ServerProcess]:
    """Run `hepamap serve` until the block ends; what it logs is in `log`."""
    settings = settings.model_copy(update={"port": free_port(), "allowed_hosts": ("127.0.0.1",)})
    url = f"http://127.0.0.1:{settings.port}"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "hepamap", "serve"],
            stdin=subprocess.DEVNULL,
            stderr=out,
            env={**os.environ, **settings.environment()},
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    httpx.get(f"{url}/health/live", trust_env=False)
                    break
                except httpx.TransportError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            yield ServerProcess(url, settings.port, process.pid)
        finally:
            process.terminate()
            process.wait(30)
