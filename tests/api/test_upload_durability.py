"""What a client was told to be here is here after a power cut: it is on the disk before the answer leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from hepamap.folders import sync_folder
from tests.api.conftest import services_of
from tests.api.test_archives import zipped
from tests.api.test_bad_input import check_problem
from tests.api.tus_client import TUS, UPLOADS, append, begin, send_whole
from tests.flushed import Flushed

ANALYSES = "/api/v1/analyses"


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> Flushed:
    return Flushed(monkeypatch)


@pytest.fixture
def missing(client: TestClient, flushed: Flushed) -> list[list[str]]:
    """What was not on the disk of all uploads, each time that a job was written down."""
    services, found = services_of(client), []

    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO jobs"):
            found.append([name for folder in services.settings.uploads_dir.iterdir() for name in lacking(flushed, folder)])

    event.listen(services.store.engine, "before_cursor_execute", look)
    return found


def lacking(flushed: Flushed, folder: Path) -> list[str]:
    return [name for name in flushed.lacks(folder) if not name.endswith(".lock")]


def packed(slide_bytes: bytes) -> bytes:
    return zipped(("case/", b""), ("case/slide.tif", slide_bytes), ("case/slide/more.dat", b"x" * 1000))


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_slide_of_a_multipart_request_is_on_the_disk_before_the_job_is(
    client: TestClient, slide_bytes: bytes, missing: list[list[str]], is_zip: bool
) -> None:
    file = ("case.zip", packed(slide_bytes)) if is_zip else ("slide.tif", slide_bytes)
    assert client.post(ANALYSES, files={"file": file}).status_code == 202
    assert missing == [[]]


@pytest.mark.parametrize("is_zip", [False, True])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_slide_of_a_resumable_upload_is_on_the_disk_before_the_job_is(
    client: TestClient,
    slide_bytes: bytes,
    missing: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    is_zip: bool,
    links: bool,
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    upload = send_whole(client, packed(slide_bytes) if is_zip else slide_bytes)
    assert client.post(ANALYSES, json={"slide": {"upload": upload}}).status_code == 202
    assert missing == [[]]


@pytest.mark.parametrize("is_zip", [False, True])
def test_what_arrived_goes_when_the_slide_is_on_the_disk(
    client: TestClient, slide_bytes: bytes, flushed: Flushed, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    missing, unlink = [], os.unlink

    def look(path: Any, **others: Any) -> None:
        if Path(path).name == ".data":
            missing.append(lacking(flushed, Path(path).parent))
        unlink(path, **others)

    monkeypatch.setattr(os, "unlink", look)
    send_whole(client, packed(slide_bytes) if is_zip else slide_bytes)
    assert missing == [[]]


def test_the_name_of_a_slide_appears_when_all_below_it_is_on_the_disk(
    client: TestClient, slide_bytes: bytes, flushed: Flushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, rename = [], os.rename

    def look(source: Any, target: Any, **others: Any) -> None:
        if Path(target).name == "files":
            missing.append([name for name in flushed.lacks(Path(source)) if name.startswith(Path(source).name)])
        rename(source, target, **others)

    monkeypatch.setattr(os, "rename", look)
    send_whole(client, packed(slide_bytes))
    assert missing == [[]]


def test_an_upload_that_was_begun_and_what_it_took_are_on_the_disk(client: TestClient, flushed: Flushed) -> None:
    url = begin(client, 1000)
    folder = services_of(client).settings.uploads_dir / url.rpartition("/")[2]
    assert flushed.lacks(folder) == [f"{folder.name}/.data"]  # which is empty
    append(client, url, 0, b"x" * 10)
    assert not flushed.lacks(folder / ".data")[1:]


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_disk_that_does_not_take_it_is_told_before_anything_is_promised(
    client: TestClient, slide_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = send_whole(client, slide_bytes)
    before = set(services_of(client).settings.uploads_dir.iterdir())

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    check_problem(client.post(ANALYSES, files={"file": ("a.tif", slide_bytes)}), 507, "output_not_writable")
    check_problem(client.post(ANALYSES, json={"slide": {"upload": upload}}), 507, "output_not_writable")
    check_problem(client.post(UPLOADS, headers={**TUS, "Upload-Length": "10"}), 507, "output_not_writable")
    assert set(services_of(client).settings.uploads_dir.iterdir()) == before
    monkeypatch.undo()
    assert client.post(ANALYSES, json={"slide": {"upload": upload}}).status_code == 202


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EACCES, False), (errno.EIO, True)])
def test_a_share_that_cannot_flush_folders_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def answer(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", answer)
    if fails:
        with pytest.raises(OSError, match=os.strerror(number)):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)
