"""Uploads by tus 1.0: cut, resumed, refused, expired, and used."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from hepamap.api import upload_slides
from hepamap.api.app import create_app
from hepamap.api.upload_errors import UploadLockedError
from hepamap.api.upload_store import UploadStore
from hepamap.errors import OutputNotWritableError
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Submission
from hepamap.jobs.retention import collect_garbage
from hepamap.jobs.store import JobStore
from hepamap.operations.keeping import keeping_of
from hepamap.settings import Settings
from tests.api.conftest import services_of, work
from tests.api.test_bad_input import check_problem
from tests.api.tus_client import TUS, UPLOADS, append, begin, metadata, offset_of, send_whole
from tests.uploads import ignored


def folders(client: TestClient) -> set[str]:
    return {path.name for path in services_of(client).settings.uploads_dir.iterdir()}


def analyse(client: TestClient, upload: str, **others: Any) -> Any:
    return client.post("/api/v1/analyses", json={"slide": {"upload": upload}, **others})


def test_the_server_says_what_it_can_do(client: TestClient) -> None:
    response = client.options(UPLOADS)
    assert response.status_code == 204
    headers = response.headers
    assert (headers["tus-version"], headers["tus-resumable"]) == ("1.0.0", "1.0.0")
    assert headers["tus-extension"] == "creation,expiration,termination,checksum"
    assert headers["tus-max-size"] == str(services_of(client).settings.max_upload_bytes)
    assert set(headers["tus-checksum-algorithm"].split(",")) == {"sha256", "sha1", "md5"}


def test_an_upload_in_pieces_is_analysed(client: TestClient, slide_bytes: bytes) -> None:
    url = begin(client, len(slide_bytes), "case 17.tif")
    middle = len(slide_bytes) // 2
    first = append(client, url, 0, slide_bytes[:middle])
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(middle))
    assert check_problem(analyse(client, url.rpartition("/")[2]), 409, "upload_incomplete")
    last = append(client, url, middle, slide_bytes[middle:])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(slide_bytes)))
    answer = client.get(url).json()
    assert (answer["name"], answer["offset"], answer["complete"]) == ("case 17.tif", len(slide_bytes), True)
    response = analyse(client, answer["id"], min_area_um2=0)
    assert response.status_code == 202, response.text
    work(client)
    assert client.get(response.json()["links"]["contours"]).json()["features"]


def test_an_analysis_keeps_its_slide_when_the_upload_goes(client: TestClient, slide_bytes: bytes) -> None:
    upload = send_whole(client, slide_bytes)
    links = analyse(client, upload).json()["links"]
    assert client.delete(f"{UPLOADS}/{upload}", headers=TUS).status_code == 204
    check_problem(client.head(f"{UPLOADS}/{upload}", headers=TUS), 404, "upload_not_found", body=False)
    work(client)
    assert client.get(links["self"]).json()["state"] == "succeeded"
    assert client.delete(links["self"]).status_code == 204
    assert folders(client) == set()


def test_whatever_no_analysis_took_goes_a_day_later(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slides of each way in, whose analyses may have been stored, and were not; and uploads that nobody asked to analyse."""

    def lose(*_: object, **__: object) -> Submission:
        raise JobStoreError("It went away.", cure="Wait.", perhaps_stored=True)

    services = services_of(client)
    monkeypatch.setattr(JobStore, "submit", lose)
    assert client.post("/api/v1/analyses", files={"file": ("slide.tif", slide_bytes)}).status_code == 503
    assert analyse(client, send_whole(client, slide_bytes)).status_code == 503
    begin(client, 10)
    paths = {services.settings.uploads_dir / name for name in folders(client)}
    assert len(paths) == 4
    assert collect_garbage(services.store, keeping_of(services.settings)).folders == ()
    for path in paths:
        os.utime(path, (0, 0))
    removed = collect_garbage(services.store, keeping_of(services.settings))
    assert (set(removed.folders), removed.unknown, folders(client)) == (paths, (), set())


def test_two_analyses_of_one_upload_take_its_space_once(client: TestClient, slide_bytes: bytes) -> None:
    upload = send_whole(client, slide_bytes)
    for threshold in (0.4, 0.6):
        assert analyse(client, upload, threshold=threshold).status_code == 202
    inodes = {path.stat().st_ino for path in services_of(client).settings.uploads_dir.rglob("*.tif")}
    assert len(inodes) == 1
    assert len(folders(client)) == 3


def test_a_refused_request_leaves_the_upload_and_nothing_else(client: TestClient, slide_bytes: bytes) -> None:
    upload = send_whole(client, slide_bytes)
    check_problem(analyse(client, upload, threshold=1.5), 422, "threshold_invalid")
    assert folders(client) == {upload}
    notes = send_whole(client, b"These are notes.", "notes.svs")
    problem = check_problem(analyse(client, notes), 422, "not_a_slide")
    assert str(services_of(client).settings.data_dir) not in str(problem)
    assert folders(client) == {upload, notes}


@pytest.mark.parametrize("checksum", [b"", b"sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0="])
def test_what_came_before_a_cut_is_kept_however_little_it_was(client: TestClient, checksum: bytes) -> None:
    url = begin(client, 1000)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"1234567", "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "PATCH",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"testserver"), *((name.lower().encode(), text.encode()) for name, text in headers.items())],
    }
    if checksum:
        scope["headers"].append((b"upload-checksum", checksum))

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(f"nobody is there for {message}")

    anyio.run(client.app, scope, receive, send)
    # What came cannot be checked without the rest, and is then dropped.
    assert offset_of(client, url) == (0 if checksum else 7)
    assert append(client, url, offset_of(client, url), b"8").status_code == 204


def test_bytes_that_a_crash_left_beyond_the_safe_offset_are_cut_off(client: TestClient, slide_bytes: bytes) -> None:
    url = begin(client, len(slide_bytes))
    append(client, url, 0, slide_bytes[:1000])
    data = services_of(client).settings.uploads_dir / url.rpartition("/")[2] / ".data"
    with data.open("ab") as file:
        file.write(b"never made safe" * 100)
    assert offset_of(client, url) == 1000
    assert append(client, url, 1000, slide_bytes[1000:]).status_code == 204
    assert data.parent.joinpath("files", "slide.tif").read_bytes() == slide_bytes


def test_a_wrong_offset_is_refused(client: TestClient) -> None:
    url = begin(client, 10)
    append(client, url, 0, b"abc")
    for offset in (0, 2, 4, 10):
        check_problem(append(client, url, offset, b"def"), 409, "upload_offset_mismatch")
    assert offset_of(client, url) == 3


def test_a_finished_upload_takes_nothing_more(client: TestClient) -> None:
    url = begin(client, 3)
    append(client, url, 0, b"abc")
    assert append(client, url, 3, b"").status_code == 204
    check_problem(append(client, url, 3, b"d"), 400, "upload_request_invalid")
    check_problem(append(client, url, 0, b"abc"), 409, "upload_offset_mismatch")


def test_more_than_was_announced_is_refused(client: TestClient) -> None:
    url = begin(client, 5)
    check_problem(append(client, url, 0, b"abcdef"), 400, "upload_request_invalid")
    check_problem(append(client, url, 0, iter([b"abc", b"def"])), 400, "upload_request_invalid")
    assert offset_of(client, url) == 0


def test_one_upload_has_one_writer(client: TestClient) -> None:
    url = begin(client, 10)
    store, upload = services_of(client).uploads, url.rpartition("/")[2]
    opened = store.open(upload, 0)
    check_problem(append(client, url, 0, b"abc"), 423, "upload_locked")
    check_problem(client.delete(url, headers=TUS), 423, "upload_locked")
    with pytest.raises(UploadLockedError):
        store.open(upload, 0)
    assert client.head(url, headers=TUS).status_code == 200
    opened.close()
    assert append(client, url, 0, b"abc").status_code == 204


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_checksum_lets_no_other_bytes_in(client: TestClient, algorithm: str) -> None:
    digest = base64.b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
    url = begin(client, 6)
    response = append(client, url, 0, b"abX", upload_checksum=f"{algorithm} {digest}")
    assert response.status_code == 460
    assert response.json()["code"] == "upload_checksum_mismatch"
    assert offset_of(client, url) == 0
    assert append(client, url, 0, b"abc", upload_checksum=f"{algorithm} {digest}").status_code == 204
    assert offset_of(client, url) == 3


def test_a_piece_that_was_cut_off_before_its_checksum_is_dropped(client: TestClient) -> None:
    from hepamap.api.checksums import Checksum

    url = begin(client, 6)
    digest = base64.b64encode(hashlib.sha1(b"abc").digest()).decode()
    opened = services_of(client).uploads.open(url.rpartition("/")[2], 0, Checksum.parse(f"sha1 {digest}"))
    opened.write(b"ab")
    opened.close()
    assert offset_of(client, url) == 0


def test_the_checksum_of_the_whole_is_kept_to(client: TestClient, slide_bytes: bytes) -> None:
    right = hashlib.sha256(slide_bytes).hexdigest()
    assert analyse(client, send_whole(client, slide_bytes, sha256=right.upper())).status_code == 202
    url = begin(client, len(slide_bytes), sha256=hashlib.sha256(b"other").hexdigest())
    assert append(client, url, 0, slide_bytes).status_code == 460
    check_problem(client.get(url), 404, "upload_not_found")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upload-Length": "10"}, 412, "tus_version_unsupported"),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "10"}, 412, "tus_version_unsupported"),
        (TUS, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "-1"}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "ten"}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "0"}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "9" * 30}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Defer-Length": "1"}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": str(2 * 1024**2 + 1)}, 413, "upload_too_large"),
        ({**TUS, "Upload-Length": "10", "Upload-Metadata": "filename !!!"}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "10", "Upload-Metadata": metadata(sha256="abc")}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "10", "Upload-Metadata": "a YQ==,a YQ=="}, 400, "upload_request_invalid"),
        ({**TUS, "Upload-Length": "10", "Upload-Metadata": "a " + "YWFh" * 2000}, 400, "upload_request_invalid"),
    ],
)
def test_uploads_that_cannot_begin(client: TestClient, headers: dict[str, str], status: int, code: str) -> None:
    response = client.post(UPLOADS, headers=headers)
    problem = check_problem(response, status, code)
    assert response.headers["tus-version"] == response.headers["tus-resumable"] == "1.0.0"
    assert folders(client) == set()
    if status == 413:
        assert str(services_of(client).settings.max_upload_bytes) in problem["detail"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "2.0.0"}, 412, "tus_version_unsupported"),
        ({"Content-Type": "application/octet-stream"}, 415, "unsupported_media_type"),
        ({"Upload-Offset": "zero"}, 400, "upload_request_invalid"),
        ({"Upload-Offset": "-1"}, 400, "upload_request_invalid"),
        ({"Upload-Checksum": "crc32 AAAA"}, 400, "upload_request_invalid"),
        ({"Upload-Checksum": "sha1 AAAA"}, 400, "upload_request_invalid"),
        ({"Upload-Checksum": "sha1"}, 400, "upload_request_invalid"),
    ],
)
def test_pieces_that_are_refused(client: TestClient, headers: dict[str, str], status: int, code: str) -> None:
    url = begin(client, 10)
    usual = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    check_problem(client.patch(url, content=b"abc", headers={**usual, **headers}), status, code)
    assert offset_of(client, url) == 0


@pytest.mark.parametrize(
    "name", ["nobody", "5F0C2B0E-6A55-4C0A-9D0B-0F0F5F3F9A11", "5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11", "%2e%2e"]
)
def test_uploads_that_are_none(client: TestClient, name: str) -> None:
    url = f"{UPLOADS}/{name}"
    for response in (client.get(url), append(client, url, 0, b"abc"), client.delete(url, headers=TUS), analyse(client, name)):
        check_problem(response, 404, "upload_not_found") if name != "%2e%2e" or response.request.method == "POST" else None
    assert folders(client) == set()


def test_a_request_names_one_slide(client: TestClient, slide: Path, slide_bytes: bytes) -> None:
    upload = send_whole(client, slide_bytes)
    both = {"slide": {"path": str(slide), "upload": upload}}
    check_problem(client.post("/api/v1/analyses", json=both), 422, "request_invalid")
    assert folders(client) == {upload}


def test_what_a_client_says_comes_back(client: TestClient) -> None:
    text = metadata(filename="a.tif", case="S1")
    response = client.post(UPLOADS, headers={**TUS, "Upload-Length": "10", "Upload-Metadata": text})
    found = client.head(response.headers["location"], headers=TUS)
    assert (found.headers["upload-metadata"], found.headers["upload-length"]) == (text, "10")
    assert found.headers["cache-control"] == "no-store"
    expires = parsedate_to_datetime(found.headers["upload-expires"])
    assert timedelta(hours=23) < expires - datetime.now(UTC) < timedelta(hours=25)


def test_an_upload_that_nobody_goes_on_with_expires(client: TestClient) -> None:
    limits = services_of(client).upload_limits
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = UploadStore(limits, keep_for=timedelta(hours=1), register=ignored, clock=lambda: now)
    old, busy = store.create(name="a.tif", length=10), store.create(name="b.tif", length=10)
    opened = store.open(busy.id, 0)
    now += timedelta(minutes=50)
    going_on = store.create(name="c.tif", length=10)
    now += timedelta(minutes=20)
    assert store.remove_expired() == [old.id]
    opened.close()
    assert folders(client) == {busy.id, going_on.id}
    writer = store.open(going_on.id, 0)
    writer.write(b"abc")
    writer.close()
    assert store.get(going_on.id).expires_at == now + timedelta(hours=1)


def test_an_expired_upload_is_gone_before_it_is_removed(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"upload_expires_h": 1e-9}))) as client:
        url = begin(client, 10)
        check_problem(client.get(url), 410, "upload_expired")
        check_problem(append(client, url, 0, b"abc"), 410, "upload_expired")


def test_the_quota_counts_what_is_there_and_what_is_promised(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"upload_quota_bytes": 20_000}))) as client:
        send_whole(client, b"x" * 8000)
        begin(client, 8000)
        headers = {**TUS, "Upload-Length": "8000"}
        check_problem(client.post(UPLOADS, headers=headers), 507, "upload_quota_exceeded")
        form = {"file": ("a.tif", b"x" * 20_000, "application/octet-stream")}
        check_problem(client.post("/api/v1/analyses", files=form), 507, "upload_quota_exceeded")
        begin(client, 1000)


def test_the_disk_must_have_room_for_what_is_promised(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"min_free_bytes": 2**60}))) as client:
        check_problem(client.post(UPLOADS, headers={**TUS, "Upload-Length": "10"}), 507, "output_not_writable")


def test_a_full_disk_keeps_what_was_safe(client: TestClient, slide_bytes: bytes) -> None:
    url = begin(client, len(slide_bytes))
    append(client, url, 0, slide_bytes[:1000])
    opened = services_of(client).uploads.open(url.rpartition("/")[2], 1000)
    with Path("/dev/full").open("wb", buffering=0) as full:
        whole, opened._file = opened._file, full  # a disk that has no room from here on
        with pytest.raises(OutputNotWritableError, match="no room"):
            opened.write(slide_bytes[1000:2000])
        opened.close()
        assert whole is not None
        whole.close()
    assert offset_of(client, url) == 1000
    assert append(client, url, 1000, slide_bytes[1000:]).status_code == 204


def test_a_crash_before_the_slide_was_made_costs_nothing(client: TestClient, slide_bytes: bytes) -> None:
    url = begin(client, len(slide_bytes))
    store, upload_id = services_of(client).uploads, url.rpartition("/")[2]
    opened = store.open(upload_id, 0)
    opened.write(slide_bytes)
    opened.close()  # the offset is safe, and the process dies before it makes the slide
    assert offset_of(client, url) == len(slide_bytes)
    assert analyse(client, upload_id).status_code == 202


def record_of(client: TestClient, upload: str) -> Path:
    return services_of(client).settings.uploads_dir / upload / ".upload.json"


def test_a_record_of_a_newer_version_is_read(client: TestClient, slide_bytes: bytes) -> None:
    url = begin(client, len(slide_bytes))
    record = record_of(client, url.rpartition("/")[2])
    record.write_text(json.dumps({**json.loads(record.read_text()), "colour": "blue"}))
    assert append(client, url, 0, slide_bytes).status_code == 204
    assert analyse(client, url.rpartition("/")[2]).status_code == 202


BAD_RECORDS: list[dict[str, Any] | str] = [
    {"id": "x", "length": 1, "offset": 0, "expires_at": "2126-01-01T00:00:00+00:00"},
    {"name": "x", "length": 1, "offset": 0},
    {"id": "x", "name": "x", "length": 1, "offset": 0, "expires_at": "2126-01-01T00:00:00"},
    {"id": "x", "name": "x", "length": 1, "offset": 0, "expires_at": 7},
    {"id": "x", "name": "x", "length": "1", "offset": None, "expires_at": "2126-01-01T00:00:00+00:00"},
    "[]",
    "null",
    '{"id": ',
    "[" * 100_000,
]


@pytest.mark.parametrize("content", BAD_RECORDS, ids=range(len(BAD_RECORDS)))
def test_a_record_that_cannot_be_understood_holds_up_no_other(
    client: TestClient, slide_bytes: bytes, content: dict[str, Any] | str
) -> None:
    bad, good = begin(client, 100, "patient.tif"), begin(client, len(slide_bytes))
    record = record_of(client, bad.rpartition("/")[2])
    record.write_text(content if isinstance(content, str) else json.dumps(content))
    with capture_logs() as log:
        assert append(client, good, 0, slide_bytes).status_code == 204
        assert begin(client, 100)
        assert client.post("/api/v1/analyses", files={"file": ("a.tif", slide_bytes)}).status_code == 202
        check_problem(client.get(bad), 404, "upload_not_found")
    told = [entry for entry in log if entry["event"] == "upload_record_not_understood"]
    assert [entry["upload"] for entry in told] == [bad.rpartition("/")[2]]
    assert "patient" not in str(log)


def test_the_bytes_of_an_upload_whose_record_is_damaged_still_count(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"upload_quota_bytes": 20_000}))) as client:
        upload = send_whole(client, b"x" * 15_000)
        record_of(client, upload).write_text("{}")
        headers = {**TUS, "Upload-Length": "8000"}
        check_problem(client.post(UPLOADS, headers=headers), 507, "upload_quota_exceeded")


# ---- an upload that is taken and deleted in one moment -----------------------------------------------------------------


@contextmanager
def while_files_are_copied(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Do something when the first file of a slide is given its second name."""
    link, calls = upload_slides.link, []

    def slow(source: str, target: str) -> str:
        calls.append(source)
        if len(calls) == 1:
            meanwhile()
        return link(source, target)

    with monkeypatch.context() as patching:
        patching.setattr(upload_slides, "link", slow)
        yield
    assert calls


def test_an_upload_cannot_be_deleted_while_an_analysis_is_given_its_files(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = send_whole(client, slide_bytes)
    answers: list[Any] = []

    def meanwhile() -> None:
        answers.append(client.delete(f"{UPLOADS}/{upload}", headers=TUS))

    with while_files_are_copied(monkeypatch, meanwhile):
        asked = analyse(client, upload)
    assert asked.status_code == 202, asked.text
    check_problem(answers[0], 423, "upload_locked")
    assert client.delete(f"{UPLOADS}/{upload}", headers=TUS).status_code == 204
    work(client)
    assert client.get(asked.json()["links"]["self"]).json()["state"] == "succeeded"


def test_two_may_ask_about_one_upload_in_one_moment(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = send_whole(client, slide_bytes)
    statuses: list[int] = []
    other = threading.Thread(target=lambda: statuses.append(analyse(client, upload, threshold=0.6).status_code))

    def meanwhile() -> None:
        other.start()
        time.sleep(0.3)

    with while_files_are_copied(monkeypatch, meanwhile):
        statuses.append(analyse(client, upload).status_code)
        other.join()
    assert statuses == [202, 202]


def test_files_that_cannot_be_copied_leave_nothing_half_made(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = send_whole(client, slide_bytes)

    def gone() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with while_files_are_copied(monkeypatch, gone):
        check_problem(analyse(client, upload), 507, "output_not_writable")
    assert folders(client) == {upload}
    assert analyse(client, upload).status_code == 202


def test_an_upload_that_goes_is_not_found_by_who_takes_a_new_lock(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = send_whole(client, slide_bytes)
    rmtree = shutil.rmtree
    answers: list[Any] = []

    def slow(folder: Any, **others: Any) -> None:
        if Path(folder).name == upload and not answers:
            (Path(folder) / ".lock").unlink()  # as removing may begin with it
            answers.append(analyse(client, upload))
        rmtree(folder, **others)

    monkeypatch.setattr(shutil, "rmtree", slow)
    assert client.delete(f"{UPLOADS}/{upload}", headers=TUS).status_code == 204
    check_problem(answers[0], 404, "upload_not_found")
    assert folders(client) == set()


def test_no_file_of_another_user_is_readable_by_an_upload(client: TestClient) -> None:
    url = begin(client, 3, "../../../../etc/passwd")
    append(client, url, 0, b"abc")
    files = services_of(client).settings.uploads_dir / url.rpartition("/")[2] / "files"
    assert os.listdir(files) == ["passwd"]
    assert re.fullmatch(r"[0-9a-f-]{36}", files.parent.name)
