"""`hepamap serve` as a process: keys from the command line, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from hepamap.model_pack import write_pack
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body
from tests.ports import free_port
from tests.worker.conftest import Server, wait_for

SERVE = [sys.executable, "-m", "hepamap", "serve"]


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
        embedded_worker=False,
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Settings], Server]]:
    servers: list[Server] = []

    def start_server(settings: Settings) -> Server:
        server = Server(settings, SERVE, tmp_path / "server.log")
        servers.append(server)
        wait_for(server.is_alive)
        return server

    yield start_server
    for server in servers:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def slide(settings: Settings) -> Path:
    image = np.full((600, 800, 3), 150, np.uint8)
    return write_tiff_slide(settings.slide_roots[0] / "slide.tif", image, 0.46)


def hepamap(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hepamap", *arguments]
    return subprocess.run(command, env={**os.environ, **settings.environment()}, capture_output=True, text=True, check=False)


def test_keys_from_the_command_line_open_the_server_on_every_address(
    settings: Settings, start: Callable[[Settings], Server], slide: Path
) -> None:
    public = settings.model_copy(update={"access": "keys", "host": "0.0.0.0"})
    server = start(public)
    assert server.http.get("/api/v1/analyses").json()["code"] == "credentials_missing"
    assert "no_valid_key" in server.log.read_text()
    made = hepamap(public, "keys", "create", "LIS")
    key_id = made.stdout[3:15]
    server.http.headers["Authorization"] = f"Bearer {made.stdout.strip()}"
    analysis = server.post(slide)
    assert server.get(analysis)["state"] == "queued"
    assert server.http.get("/metrics").json()["code"] == "scope_missing"
    assert hepamap(public, "keys", "revoke", key_id).returncode == 0
    assert server.http.get("/api/v1/analyses").json()["code"] == "credentials_invalid"
    assert made.stdout.strip() not in server.log.read_text()
    server.stop()  # writes down what it has counted
    trail = hepamap(public, "audit", "verify")
    assert "whole: 8 entries" in trail.stdout
    head = trail.stdout.splitlines()[-1]
    assert hepamap(public, "audit", "verify", "--head", head).returncode == 0
    assert hepamap(public, "audit", "verify", "--head", head[:-4] + "0000").returncode == 1
    assert [line.count('"actor"') for line in hepamap(public, "audit", "export").stdout.splitlines()] == [1] * 9


def test_it_does_not_start_where_anybody_could_get_in(settings: Settings) -> None:
    done = hepamap(settings, "serve", "--host", "0.0.0.0")
    assert done.returncode == 1
    assert "[access_unprotected]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not settings.data_dir.exists()


def test_a_request_that_runs_is_finished_before_the_server_stops(
    settings: Settings, start: Callable[[Settings], Server], slide: Path
) -> None:
    server = start(settings)
    content = slide.read_bytes() + bytes(3 * 1024**2)  # enough for the server to begin to write while more is to come
    arrived, stopping = threading.Event(), threading.Event()
    answers: list[int] = []

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="slide.tif"\r\n\r\n' + content[: 2 * 1024**2]
        arrived.set()
        assert stopping.wait(60)
        yield content[2 * 1024**2 :] + b"\r\n--b--\r\n"

    def upload() -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answers.append(
            httpx.post(f"{server.http.base_url}/api/v1/analyses", content=body(), headers=headers, timeout=60).status_code
        )

    thread = threading.Thread(target=upload)
    thread.start()
    assert arrived.wait(60)
    wait_for(lambda: any(settings.uploads_dir.iterdir()))
    server.http.close()  # a connection that is kept open would be one more that the server waits for
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses_connections(settings.port))
    stopping.set()
    thread.join()
    assert server.process.wait(30) == 0
    assert answers == [202]
    assert "Traceback" not in server.log.read_text()


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
