"""Uploads to a real server process: cut lines, silent and racing clients, memory; HEPAMAP_TEST_UPLOAD_MB sets the size."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hepamap.settings import Settings
from tests.api.server_process import ServerProcess, serving
from tests.api.tus_client import TUS, UPLOADS, metadata

MB = 1024**2
SIZE = int(os.environ.get("HEPAMAP_TEST_UPLOAD_MB", "192")) * MB
KIND = "application/offset+octet-stream"


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[ServerProcess]:
    changed = settings.model_copy(update={"max_upload_bytes": 8 * 1024 * MB, "upload_silence_s": 1.0})
    with serving(changed, tmp_path / "log") as process:
        yield process


def begin(server: ServerProcess, length: int) -> str:
    headers = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(filename="big.svs")}
    response = server.ask("POST", UPLOADS, headers=headers)
    assert response.status_code == 201
    return str(response.headers["location"])


def offset_of(server: ServerProcess, upload: str) -> int:
    return int(server.ask("HEAD", upload, headers=TUS).headers["upload-offset"])


def begin_patch(server: ServerProcess, upload: str, offset: int, announced: int) -> socket.socket:
    """The head of a request; the caller sends as much of the body as it likes."""
    line = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = (
        f"PATCH {upload} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nTus-Resumable: 1.0.0\r\nContent-Type: {KIND}\r\n"
        f"Upload-Offset: {offset}\r\nContent-Length: {announced}\r\n\r\n"
    )
    line.sendall(head.encode())
    return line


def block(index: int) -> bytes:
    """Part `index` of the slide, 1 MiB that no other part has."""
    return hashlib.sha256(index.to_bytes(8)).digest() * (MB // 32)


def content(start: int, end: int) -> Iterator[bytes]:
    """The bytes of the slide from `start` to `end`."""
    while start < end:
        piece = block(start // MB)[start % MB :][: end - start]
        yield piece
        start += len(piece)


def settled_offset(server: ServerProcess, upload: str) -> int:
    """The offset once the server has noticed that a line was cut: until then, it has the upload to itself."""
    deadline = time.monotonic() + 30
    while True:
        headers = {**TUS, "Content-Type": KIND, "Upload-Offset": str(offset_of(server, upload))}
        response = server.ask("PATCH", upload, content=b"", headers=headers)
        if response.status_code == 204:
            return int(response.headers["upload-offset"])
        assert response.status_code in (409, 423), response.text
        assert time.monotonic() < deadline
        time.sleep(0.05)


def resident(server: ServerProcess) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def test_an_upload_that_is_cut_five_times_arrives_whole_in_flat_memory(server: ServerProcess, settings: Settings) -> None:
    rng = random.Random(5)
    upload = begin(server, SIZE)
    # Once through first: what the server keeps for good is no growth.
    with begin_patch(server, upload, 0, SIZE) as line:
        for piece in content(0, 8 * MB):
            line.sendall(piece)
    start = settled_offset(server, upload)
    before, peak = resident(server), 0
    for cut in range(1, 5):
        end = cut * SIZE // 5 + rng.randrange(MB)
        with begin_patch(server, upload, start, SIZE - start) as line:
            for count, piece in enumerate(content(start, end)):
                line.sendall(piece)
                if count % 16 == 0:
                    peak = max(peak, resident(server))
            # Without a word: the system tells the server that nobody is there any more.
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        start = settled_offset(server, upload)
        assert 0 < start <= end
    headers = {**TUS, "Content-Type": KIND, "Upload-Offset": str(start)}
    response = server.ask("PATCH", upload, content=content(start, SIZE), headers=headers, timeout=600)
    assert (response.status_code, response.headers["upload-offset"]) == (204, str(SIZE))
    peak = max(peak, resident(server))
    (arrived,) = settings.uploads_dir.glob("*/files/big.svs")
    wanted = hashlib.sha256()
    for piece in content(0, SIZE):
        wanted.update(piece)
    with arrived.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == wanted.digest()
    assert peak - before < 24 * MB, f"{before} to {peak} bytes"


def test_a_client_that_goes_silent_is_given_up(server: ServerProcess) -> None:
    upload = begin(server, 1000)
    with begin_patch(server, upload, 0, 1000) as line:
        line.sendall(bytes(10))
        answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"upload_stalled" in answer or b"upload_stalled" in line.recv(65536)
    assert settled_offset(server, upload) == 10


def test_of_two_that_write_at_once_one_is_refused_and_the_other_arrives_whole(server: ServerProcess) -> None:
    upload = begin(server, 64 * MB)
    statuses: list[int] = []

    def send() -> None:
        headers = {**TUS, "Content-Type": KIND, "Upload-Offset": "0"}
        try:
            response = server.ask("PATCH", upload, content=content(0, 64 * MB), headers=headers)
            statuses.append(response.status_code)
        except httpx.TransportError:
            statuses.append(0)  # refused while it was still sending

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 423, 409, 0}
    assert offset_of(server, upload) == 64 * MB
