from __future__ import annotations

import json
import os
import shutil
import time
from collections import deque, namedtuple
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from hepamap.api.app import create_app
from hepamap.api.file_names import safe_name
from hepamap.api.upload_errors import UploadQuotaError
from hepamap.api.upload_store import UploadStore
from hepamap.api.uploads import _Parts
from hepamap.errors import OutputNotWritableError
from hepamap.jobs.disposal import register_upload
from hepamap.settings import Settings
from tests.api.conftest import services_of, work
from tests.api.test_bad_input import check_problem
from tests.uploads import ignored

BOUNDARY = "b0undary"


def uploads(client: TestClient) -> list[Path]:
    return sorted(path for path in services_of(client).settings.uploads_dir.rglob("*") if path.is_file())


def send(client: TestClient, name: str, data: bytes, **request: Any) -> Any:
    return client.post(
        "/api/v1/analyses",
        files={"file": (name, data, "application/octet-stream")},
        data={"request": json.dumps(request)} if request else {},
    )


def multipart(*parts: tuple[str, bytes], end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    body = b""
    for disposition, data in parts:
        body += f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + data + b"\r\n"
    return body + end.encode()


def send_raw(client: TestClient, body: bytes | Iterator[bytes]) -> Any:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return client.post("/api/v1/analyses", content=body, headers={"Content-Type": kind})


def test_an_uploaded_slide_is_analysed_and_goes_with_its_analysis(client: TestClient, slide_bytes: bytes) -> None:
    response = send(client, "case 17.tif", slide_bytes, min_area_um2=0, identity={"accession": "S1"})
    assert response.status_code == 202
    analysis = response.json()
    (path,) = uploads(client)
    assert (path.name, path.read_bytes()) == ("case 17.tif", slide_bytes)
    assert analysis["identity"] == {"accession": "S1"}
    work(client)
    assert client.get(analysis["links"]["contours"]).json()["features"]
    assert client.delete(analysis["links"]["self"]).status_code == 204
    assert list(services_of(client).settings.uploads_dir.iterdir()) == []


def test_an_upload_needs_no_request_part(client: TestClient, slide_bytes: bytes) -> None:
    assert send(client, "a.tif", slide_bytes).status_code == 202


def test_a_cancelled_upload_is_deleted_with_its_analysis(client: TestClient, slide_bytes: bytes) -> None:
    url = send(client, "a.tif", slide_bytes).json()["links"]["self"]
    assert client.delete(url).json()["state"] == "cancelled"
    assert client.delete(url).status_code == 204
    assert uploads(client) == []


def test_a_body_may_come_in_any_pieces(client: TestClient, slide_bytes: bytes) -> None:
    body = multipart(('name="file"; filename="a.tif"', slide_bytes), ('name="request"', b'{"min_area_um2": 0}'))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 997):
            yield body[start : start + 997]

    response = send_raw(client, pieces())
    assert response.status_code == 202
    assert response.json()["request"] == {"min_area_um2": 0}
    assert uploads(client)[0].read_bytes() == slide_bytes


@pytest.mark.parametrize(
    ("name", "data", "request_", "status", "code"),
    [
        ("notes.svs", b"These are notes.", {}, 422, "not_a_slide"),
        ("empty.svs", b"", {}, 422, "request_invalid"),
        ("a.tif", None, {"threshold": 1.5}, 422, "threshold_invalid"),
        ("a.tif", None, {"tresholt": 0.5}, 422, "request_invalid"),
        ("a.tif", None, {"model": "none"}, 404, "model_not_found"),
        ("a.tif", None, {"slide": {"path": "/slides/b.tif"}}, 422, "request_invalid"),
        ("a.tif", None, {"identity": {"accession": "x" * 70_000}}, 413, "request_too_large"),
        ("big.tif", b"x" * (2 * 1024**2 + 1), {}, 413, "upload_too_large"),
    ],
)
def test_a_refused_upload_is_removed(
    client: TestClient, slide_bytes: bytes, name: str, data: bytes | None, request_: dict[str, Any], status: int, code: str
) -> None:
    problem = check_problem(send(client, name, slide_bytes if data is None else data, **request_), status, code)
    assert str(services_of(client).settings.data_dir) not in json.dumps(problem)
    assert list(services_of(client).settings.uploads_dir.iterdir()) == []


def test_a_slide_that_is_announced_too_large_is_refused_unread(client: TestClient) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(10 * 1024**3)}
    problem = check_problem(client.post("/api/v1/analyses", content=b"", headers=headers), 413, "upload_too_large")
    assert str(services_of(client).settings.max_upload_bytes) in problem["detail"]


def test_a_slide_that_is_too_large_unannounced_is_refused_on_the_way(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield multipart(('name="file"; filename="a.tif"', b""), end="")[:-2]
        for _ in range(64):
            sent += 1
            yield b"x" * 1024**2

    check_problem(send_raw(client, endless()), 413, "upload_too_large")
    assert uploads(client) == []


def test_a_slide_for_which_there_is_no_room_is_refused_unread(
    client: TestClient, slide_bytes: bytes, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 90, 10))
    check_problem(send(client, "a.tif", slide_bytes), 507, "output_not_writable")
    assert uploads(client) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        multipart(('name="file"; filename="a.tif"', b"x"), end=""),
        multipart(('name="request"', b"{}")),
        multipart(('name="photo"; filename="a.tif"', b"x")),
        multipart(('name="file"; filename="a.tif"', b"x"), ('name="file"; filename="b.tif"', b"x")),
        multipart(('filename="a.tif"', b"x")),
    ],
    ids=["empty", "nonsense", "cut off", "no file", "unknown part", "two files", "no name"],
)
def test_broken_bodies(client: TestClient, body: bytes) -> None:
    check_problem(send_raw(client, body), 422, "request_invalid")
    assert uploads(client) == []


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("slide.svs", "slide.svs"),
        ("../../etc/passwd", "passwd"),
        (r"C:\slides\Fall 3.ndpi", "Fall 3.ndpi"),
        ("Schnitt_Ä1.svs", "Schnitt_Ä1.svs"),
        ("a;rm -rf $HOME.tif", "a_rm -rf _HOME.tif"),
        (".hidden", "hidden"),
        ("..", "slide"),
        ("", "slide"),
    ],
)
def test_file_names_are_made_harmless(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=400))
def test_no_file_name_leaves_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert len(safe.encode()) <= 255
    assert not set(safe) & set('/\\\0\n\r"')
    assert safe not in (".", "..")
    assert Path("/uploads", safe).parent == Path("/uploads")


def test_uploads_that_a_crash_cut_off_are_removed_at_the_next_start(settings: Settings, slide_bytes: bytes) -> None:
    with TestClient(create_app(settings)) as client:
        assert send(client, "a.tif", slide_bytes).status_code == 202
        (used,) = (path.name for path in settings.uploads_dir.iterdir())
        for name in ("stray", "young"):
            register_upload(services_of(client).store, name)
    for name in ("stray", "young"):
        (settings.uploads_dir / name).mkdir()
        (settings.uploads_dir / name / "b.tif").write_bytes(b"x")
    for name in (used, "stray"):
        os.utime(settings.uploads_dir / name, (0, 0))
    with TestClient(create_app(settings)):
        deadline = time.monotonic() + 10
        while (settings.uploads_dir / "stray").exists():  # it is done beside the start, which does not wait for it
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert sorted(path.name for path in settings.uploads_dir.iterdir()) == sorted([used, "young"])


def test_a_slide_that_comes_slowly_is_no_stray(client: TestClient) -> None:
    body, _ = unsized(3)
    parts = _Parts(BOUNDARY.encode(), services_of(client).uploads)
    parts.feed(next(body))
    (folder,) = services_of(client).settings.uploads_dir.iterdir()
    os.utime(folder, (0, 0))
    parts.feed(next(body))
    assert time.time() - folder.stat().st_mtime < 3600
    parts.discard()


# ---- room --------------------------------------------------------------------------------------------------------------


def unsized(count: int, piece: bytes = b"x" * 65536) -> tuple[Iterator[bytes], list[int]]:
    """A multipart body of so many pieces that does not say how long it is; and how many of them were taken."""
    taken: list[int] = []

    def body() -> Iterator[bytes]:
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'.encode()
        for number in range(count):
            taken.append(number)
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    return body(), taken


@pytest.fixture
def narrow(settings: Settings) -> Iterator[TestClient]:
    """A server that takes 200 kB of uploads in all."""
    with TestClient(create_app(settings.model_copy(update={"upload_quota_bytes": 200_000}))) as client:
        yield client


def test_a_slide_that_does_not_say_its_length_counts_for_the_quota(narrow: TestClient) -> None:
    body, _ = unsized(4)
    check_problem(send_raw(narrow, body), 507, "upload_quota_exceeded")
    assert uploads(narrow) == []


def test_it_is_refused_before_it_has_come_whole(narrow: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.api.upload_room.CHECK_EVERY_BYTES", 256 * 1024)
    body, taken = unsized(28)  # 1.75 MiB, below what one slide may have
    parts = _Parts(BOUNDARY.encode(), services_of(narrow).uploads)
    with pytest.raises(UploadQuotaError):
        deque(map(parts.feed, body), maxlen=0)
    parts.discard()
    assert len(taken) == 4
    assert uploads(narrow) == []


def test_what_unfinished_uploads_have_announced_is_not_given_away(narrow: TestClient, slide_bytes: bytes) -> None:
    assert len(slide_bytes) < 50_000
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "190000"}
    assert narrow.post("/api/v1/uploads", headers=headers).status_code == 201
    check_problem(send(narrow, "slide.tif", slide_bytes), 507, "upload_quota_exceeded")
    body, _ = unsized(1)
    check_problem(send_raw(narrow, body), 507, "upload_quota_exceeded")


def test_a_resumable_upload_stops_where_others_have_filled_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepamap.api.upload_room.CHECK_EVERY_BYTES", 100_000)
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "300000"}
    url = client.post("/api/v1/uploads", headers=headers).headers["location"]
    free = SimpleNamespace(free=0)
    limits = replace(services_of(client).upload_limits, min_free_bytes=1)
    poor = UploadStore(limits, keep_for=timedelta(hours=1), register=ignored)
    opened = poor.open(url.rpartition("/")[2], 0)
    opened.write(b"x" * 90_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OutputNotWritableError):
        opened.write(b"x" * 90_000)
    opened.close()
    assert client.head(url, headers=headers).headers["upload-offset"] == "180000"
