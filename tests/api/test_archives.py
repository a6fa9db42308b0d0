"""Zips of slides with many files: what is unpacked, and what never is."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from hepamap.api.app import create_app
from hepamap.api.archives import is_archive, slide_in, unpack
from hepamap.api.upload_errors import ArchiveError, ArchiveTooLargeError
from hepamap.settings import Settings
from tests.api.conftest import services_of, work
from tests.api.test_bad_input import check_problem
from tests.api.tus_client import append, begin, send_whole
from tests.index_slides import INDEX, write_picture, write_vms

MB = 1024**2


def zipped(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def doctored(data: bytes, old: bytes, new: bytes) -> bytes:
    """A zip with a name changed that the library would not write."""
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


def encrypted() -> bytes:
    data = bytearray(zipped(("a.svs", b"x")))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    return bytes(data)


def damaged() -> bytes:
    data = bytearray(zipped(("a.svs", bytes(range(256)) * 100), method=zipfile.ZIP_STORED))
    data[5000] ^= 255
    return bytes(data)


def lying_about_its_size() -> bytes:
    """The directory says 10 bytes, the entry has a megabyte."""
    data = bytearray(zipped(("a.svs", bytes(MB))))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + place
        data[start : start + 4] = (10).to_bytes(4, "little")
    return bytes(data)


def unknown_method() -> bytes:
    data = bytearray(zipped(("a.svs", b"x")))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + place] = 99
    return bytes(data)


def of_many(count: int) -> bytes:
    """A directory of so many files, in zip64 where it must be."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            info = zipfile.ZipInfo(f"{number:06d}")
            info.header_offset, info.CRC, info.compress_size, info.file_size = 0, 0, 0, 0
            archive.filelist.append(info)
        vars(archive)["_didModify"] = True
        archive.start_dir = 0
    return b"PK\x03\x04" + out.getvalue()


def of_long_names() -> bytes:
    """Few files, with as much written about them as fits."""
    infos = [special(f"{number}.dat", 0o644) for number in range(300)]
    for info in infos:
        info.comment = b"x" * 65_000
    return zipped(*((info, b"") for info in infos))


def test_a_large_directory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads_it(*_: Any) -> None:
        raise AssertionError("the directory is read")

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", reads_it)
    for data in (of_many(150_000), of_long_names()):
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(ArchiveTooLargeError, match="100000 is the most"):
            unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=MB)
    (tmp_path / "a.zip").write_bytes(zipped(("a.svs", b"x")))
    with pytest.raises(AssertionError):
        unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=MB)


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("dots", lambda: zipped(("../a.svs", b"x")), "archive_unsafe"),
    ("dots inside", lambda: zipped(("a/../../b.svs", b"x")), "archive_unsafe"),
    ("absolute", lambda: zipped(("/etc/a.svs", b"x")), "archive_unsafe"),
    ("backslashes", lambda: zipped((r"..\a.svs", b"x")), "archive_unsafe"),
    ("drive", lambda: zipped((r"C:\a.svs", b"x")), "archive_unsafe"),
    ("stream of NTFS", lambda: zipped(("a.svs:hidden", b"x")), "archive_unsafe"),
    ("control character", lambda: zipped(("a\n.svs", b"x")), "archive_unsafe"),
    ("NUL", lambda: doctored(zipped(("a_b.svs", b"x")), b"a_b.svs", b"a\0b.svs"), "archive_unsafe"),
    ("link", lambda: zipped((special("a.svs", stat.S_IFLNK | 0o777), b"/etc/passwd")), "archive_unsafe"),
    ("device", lambda: zipped((special("a.svs", stat.S_IFCHR | 0o666), b"")), "archive_unsafe"),
    ("pipe", lambda: zipped((special("a.svs", stat.S_IFIFO | 0o666), b"")), "archive_unsafe"),
    ("twice", lambda: doctored(zipped(("a.svs", b"x"), ("b.svs", b"y")), b"b.svs", b"a.svs"), "archive_unsafe"),
    ("case", lambda: zipped(("a/Slide.dat", b"x"), ("A/slide.DAT", b"y"), ("a.svs", b"z")), "archive_unsafe"),
    ("composed letters", lambda: zipped(("ä.svs", b"x"), ("a\u0308.svs", b"y")), "archive_unsafe"),
    ("file and folder", lambda: zipped(("a.svs", b"x"), ("a.svs/b", b"y")), "archive_unsafe"),
    ("deep", lambda: zipped(("d/" * 17 + "a.svs", b"x")), "archive_unsafe"),
    ("long name", lambda: zipped(("x" * 256 + ".svs", b"x")), "archive_unsafe"),
    ("bomb", lambda: zipped(*((f"{i}.svs", bytes(MB)) for i in range(1, 3)), ("0.dat", bytes(30 * MB))), "archive_too_large"),
    ("encrypted", encrypted, "archive_invalid"),
    ("damaged", damaged, "archive_invalid"),
    ("lying", lying_about_its_size, "archive_invalid"),
    ("method", unknown_method, "archive_invalid"),
    ("cut", lambda: zipped(("a.svs", b"x" * 1000), method=zipfile.ZIP_STORED)[:-40], "archive_invalid"),
    ("empty", zipped, "archive_slide_unclear"),
    ("no slide", lambda: zipped(("notes.txt", b"x")), "archive_slide_unclear"),
    ("VMS that reaches out", lambda: zipped(("s/a.vms", INDEX.format(overview="../b.jpg").encode())), "archive_unsafe"),
    ("VMS by another name", lambda: zipped(("s/a.svs", INDEX.format(overview=r"..\b.jpg").encode())), "archive_unsafe"),
    (
        "VMU that reaches out",
        lambda: zipped(("a.vmu", b"[Uncompressed Virtual Microscope Specimen]\nMap=a/../../b")),
        "archive_unsafe",
    ),
    (
        "MRXS that reaches out",
        lambda: zipped(("a.mrxs", b""), ("a/Slidedat.ini", b"[DATAFILE]\nFILE_0 = ../../b")),
        "archive_unsafe",
    ),
    ("two slides", lambda: zipped(("a.svs", b"x"), ("b/c.ndpi", b"y")), "archive_slide_unclear"),
]
STATUS = {"archive_too_large": 413}


def everything_below(folder: Path) -> set[str]:
    """But for the database's mark, which the server makes as soon as it tidies for the first time."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "database.id" not in path.name}


@pytest.mark.parametrize(("make", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_zips_that_are_refused(client: TestClient, tmp_path: Path, make: Callable[[], bytes], code: str) -> None:
    data = make()
    before = everything_below(tmp_path)
    url = begin(client, len(data), "slide.zip")
    problem = check_problem(append(client, url, 0, data), STATUS.get(code, 422), code)
    assert str(tmp_path) not in str(problem)
    check_problem(client.get(url), 404, "upload_not_found")
    form = {"file": ("slide.zip", data, "application/zip")}
    check_problem(client.post("/api/v1/analyses", files=form), STATUS.get(code, 422), code)
    assert everything_below(tmp_path) == before


def test_a_bomb_below_the_size_limit_is_known_by_its_ratio(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a.svs", bytes(40 * MB))))
    with pytest.raises(ArchiveError, match="would grow") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=2**40)
    assert caught.value.code == "archive_unsafe"
    assert not (tmp_path / "out").exists()


def test_what_a_zip_grows_to_counts_for_the_quota(settings: Settings) -> None:
    data = zipped(("a.svs", bytes(MB)))
    with TestClient(create_app(settings.model_copy(update={"upload_quota_bytes": MB}))) as client:
        url = begin(client, len(data), "slide.zip")
        check_problem(append(client, url, 0, data), 507, "upload_quota_exceeded")
        form = {"file": ("slide.zip", data, "application/zip")}
        check_problem(client.post("/api/v1/analyses", files=form), 507, "upload_quota_exceeded")
        assert not list(settings.uploads_dir.rglob("a.svs"))


def test_a_slide_in_a_zip_is_analysed(client: TestClient, slide_bytes: bytes) -> None:
    data = zipped(("case/", b""), ("case/slide.tif", slide_bytes), ("__MACOSX/case/._slide.tif", b"x"), ("case/Thumbs.db", b"x"))
    upload = send_whole(client, data, "case.zip")
    by_tus = client.post("/api/v1/analyses", json={"slide": {"upload": upload}, "min_area_um2": 0})
    assert by_tus.status_code == 202, by_tus.text
    work(client)
    assert client.get(by_tus.json()["links"]["contours"]).json()["features"]
    form: dict[str, Any] = {"file": ("case.zip", data, "application/zip")}
    at_once = client.post("/api/v1/analyses", files=form)
    assert at_once.status_code == 202, at_once.text
    uploads = services_of(client).settings.uploads_dir
    assert {path.name for path in uploads.rglob("*") if path.is_file()} - {".upload.json", ".lock"} == {"slide.tif"}


@pytest.mark.parametrize("name", ["files", ".unpacking", "slide.tif"])
def test_a_zip_may_have_any_name(client: TestClient, slide_bytes: bytes, name: str) -> None:
    form: dict[str, Any] = {"file": (name, zipped(("slide.tif", slide_bytes)), "application/zip")}
    answer = client.post("/api/v1/analyses", files=form)
    assert answer.status_code == 202, answer.text
    (found,) = (path for path in services_of(client).settings.uploads_dir.rglob("*") if path.name == "slide.tif")
    assert found.read_bytes() == slide_bytes


def test_mrxs_goes_with_its_folder(tmp_path: Path) -> None:
    files = [("case/Slide 1.mrxs", b"m"), ("case/Slide 1/Slidedat.ini", b"i"), ("case/Slide 1/Data0000.dat", b"d")]
    (tmp_path / "a.zip").write_bytes(zipped(*files))
    out = tmp_path / "out"
    unpack(tmp_path / "a.zip", out, max_bytes=MB)
    assert slide_in(out) == out / "case" / "Slide 1.mrxs"
    assert all((out / name).read_bytes() == data for name, data in files)


def test_openslide_alone_would_read_what_lies_outside(tmp_path: Path) -> None:
    slide = write_vms(tmp_path / "slide", overview="../other.jpg")
    write_picture(tmp_path / "other.jpg", (10, 200, 60))
    with openslide.OpenSlide(str(slide)) as opened:
        pixel = np.asarray(opened.read_region((0, 0), opened.level_count - 1, (1, 1)))[0, 0, :3]
    assert np.abs(pixel.astype(int) - (60, 200, 10)).max() < 10


def test_a_slide_that_reaches_out_of_its_folder_is_refused_whichever_way_it_comes(client: TestClient, root: Path) -> None:
    slide = write_vms(root / "slide", overview="../other.jpg")
    write_picture(root / "other.jpg", (10, 200, 60))
    alone = {"file": ("slide.vms", slide.read_bytes())}
    check_problem(client.post("/api/v1/analyses", files=alone), 422, "slide_damaged")
    upload = send_whole(client, slide.read_bytes(), "slide.vms")
    check_problem(client.post("/api/v1/analyses", json={"slide": {"upload": upload}}), 422, "slide_damaged")
    check_problem(client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}}), 422, "slide_damaged")
    write_vms(root / "slide")
    assert client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}}).status_code == 202


def test_a_vms_slide_in_a_zip_is_taken(client: TestClient, tmp_path: Path) -> None:
    files = sorted(write_vms(tmp_path / "made").parent.iterdir())
    data = zipped(*((f"case/{path.name}", path.read_bytes()) for path in files))
    answer = client.post("/api/v1/analyses", json={"slide": {"upload": send_whole(client, data, "case.zip")}})
    assert answer.status_code == 202, answer.text


def test_names_with_backslashes_are_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("case\\", b""), (r"case\a.svs", b"x")))
    unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=MB)
    assert slide_in(tmp_path / "out") == tmp_path / "out" / "case" / "a.svs"


def test_a_dicom_slide_is_its_folder(tmp_path: Path, shared_data: Path) -> None:
    instances = sorted(shared_data.rglob("*.dcm"))
    if not instances:
        pytest.skip("there is no DICOM slide among the real ones")
    series = instances[0].parent
    packed = zipped(*((f"series/{path.name}", path.read_bytes()) for path in series.glob("*.dcm")), method=zipfile.ZIP_STORED)
    (tmp_path / "a.zip").write_bytes(packed)
    unpack(tmp_path / "a.zip", tmp_path / "out", max_bytes=2**40)
    assert slide_in(tmp_path / "out") == tmp_path / "out" / "series"


@trying(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=5), st.data())
def test_whatever_a_zip_holds_nothing_is_written_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("zip")
    # The library that writes the zip cuts names at a NUL; those that keep theirs have a test of their own.
    distinct = {name.encode("utf-8", "replace").decode().replace("\0", "") or "x": content for name, content in files}
    packed = bytearray(zipped(*distinct.items()))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    (place / "a.zip").write_bytes(bytes(packed))
    try:
        if is_archive(place / "a.zip"):
            unpack(place / "a.zip", place / "out", max_bytes=1000)
            slide_in(place / "out")
    except ArchiveError:
        pass
    assert {path.name for path in place.iterdir()} <= {"a.zip", "out"}
