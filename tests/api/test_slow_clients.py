"""Clients that dawdle, fall silent or go away, on real sockets: the server lets go of them, and of all that they held."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from hepamap.settings import Settings
from tests.api.server_process import ServerProcess, serving
from tests.api.tus_client import TUS, UPLOADS
from tests.worker.conftest import wait_for

SILENCE_S = 1.0
MB = 1024**2
ROUNDS = int(os.environ.get("HEPAMAP_TEST_CLIENT_ROUNDS", "12"))


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(settings.model_copy(update={"upload_silence_s": SILENCE_S}), tmp_path / "log") as process:
        yield process


@pytest.fixture
def patient_server(settings: Settings, tmp_path: Path) -> Iterator[ServerProcess]:
    """One that never gives up a line before its client does, however slow the machine is."""
    with serving(settings, tmp_path / "log") as process:
        yield process


def line_to(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=15)


def head(server: ServerProcess, method: str, path: str, **headers: Any) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def all_of(line: socket.socket) -> bytes:
    found = b""
    try:
        while piece := line.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def test_a_head_that_never_ends_is_cut_off_however_it_drips(server: ServerProcess) -> None:
    silent, dripping = line_to(server), line_to(server)
    started = time.monotonic()
    with silent, dripping:
        silent.sendall(b"GET /health/live HTTP/1.1\r\n")
        with suppress(OSError):
            while time.monotonic() - started < 15:
                dripping.sendall(b"X-A: b\r\n")
                time.sleep(0.1)
        assert all_of(silent) == b""
    assert time.monotonic() - started < 10


def test_a_line_is_used_again_and_again_before_its_time_is_over(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        end = time.monotonic() + 2.5 * SILENCE_S
        while time.monotonic() < end:
            assert client.get("/health/live").status_code == 200
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/analyses", "application/json"),
        ("/api/v1/analyses", "multipart/form-data; boundary=b"),
        ("/api/v1/slides/resolve", "application/json"),
    ],
)
def test_a_body_that_stops_coming_is_answered_by_a_problem(
    server: ServerProcess, settings: Settings, path: str, kind: str
) -> None:
    with line_to(server) as line:
        line.sendall(head(server, "POST", path, Connection="close", Content_Type=kind, Content_Length=1000))
        line.sendall(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\nabc')
        answer = all_of(line)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_stalled" in answer
    assert not list(settings.uploads_dir.glob("*/*"))


def test_a_client_that_does_not_take_its_answer_is_given_up(server: ServerProcess, tmp_path: Path) -> None:
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        # So many answers that no buffer on the way holds them.
        request = head(server, "GET", "/openapi.json")
        line.sendall(request * 120)
        wait_for(lambda: "line_given_up" in (tmp_path / "log").read_text(), 20)
    assert '"waited_for": "answer"' in (tmp_path / "log").read_text()


def _mid_upload(server: ServerProcess, slide: Path) -> None:
    begun = server.ask("POST", UPLOADS, headers={**TUS, "Upload-Length": str(MB)})
    with line_to(server) as line:
        kind = "application/offset+octet-stream"
        path = begun.headers["location"]
        line.sendall(head(server, "PATCH", path, **TUS, Upload_Offset=0, Content_Type=kind, Content_Length=MB))
        line.sendall(bytes(MB // 2))


def _mid_multipart(server: ServerProcess, slide: Path) -> None:
    with line_to(server) as line:
        kind = "multipart/form-data; boundary=b"
        line.sendall(head(server, "POST", "/api/v1/analyses", Content_Type=kind, Content_Length=MB))
        line.sendall(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n' + bytes(MB // 2))


def _mid_events(server: ServerProcess, slide: Path) -> None:
    asked = server.ask("POST", "/api/v1/analyses", json={"slide": {"path": str(slide)}}).json()
    with line_to(server) as line:
        line.sendall(head(server, "GET", f"{asked['links']['self']}/events"))
        assert b"200 OK" in line.recv(4096)


def _mid_download(server: ServerProcess, slide: Path) -> None:
    with line_to(server) as line:
        line.sendall(head(server, "GET", "/openapi.json") * 20)
        line.recv(100)


def _while_waiting(server: ServerProcess, slide: Path) -> None:
    body = b'{"slide": {"path": "' + str(slide).encode() + b'"}}'
    with line_to(server) as line:
        kind = "application/json"
        line.sendall(
            head(server, "POST", "/api/v1/analyses", Prefer="wait=1", Content_Type=kind, Content_Length=len(body)) + body
        )


def test_clients_that_vanish_leave_nothing_behind(patient_server: ServerProcess, slide: Path, tmp_path: Path) -> None:
    ways: list[Callable[[ServerProcess, Path], None]] = [
        _mid_upload,
        _mid_multipart,
        _mid_events,
        _mid_download,
        _while_waiting,
    ]
    process = psutil.Process(patient_server.pid)

    def go_away(rounds: int) -> None:
        for _ in range(rounds):
            for way in ways:
                way(patient_server, slide)

    def settled() -> tuple[int, int]:
        wait_for(lambda: not process.net_connections(kind="tcp")[1:], 30)  # all but the one that listens
        return process.num_fds(), process.memory_info().rss

    go_away(8)  # threads, connections of the pool and the like are kept for good
    files, memory = settled()
    go_away(ROUNDS)
    files_after, memory_after = settled()
    assert files_after <= files + 4
    assert memory_after - memory < 16 * MB
    assert process.num_threads() < 60
    assert patient_server.ask("GET", "/health/live").status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()
