"""What tells one slide from another, above all where it has many files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from hepamap.slide import Slide
from hepamap.slide_files import _add_companions, fingerprint_of, open_openslide
from tests.conftest import WriteSlide
from tests.index_slides import write_vms


def fingerprint(path: Path) -> str:
    handle, file = open_openslide(path)
    with handle:
        return fingerprint_of(file, handle)


@pytest.fixture
def vms(tmp_path: Path) -> Path:
    return write_vms(tmp_path / "vms")


def test_a_copy_under_other_names_and_times_is_the_same_slide(vms: Path, tmp_path: Path) -> None:
    before = fingerprint(vms)
    copy = tmp_path / "copy"
    shutil.copytree(vms.parent, copy, copy_function=shutil.copyfile)
    (copy / "Thumbs.db").write_bytes(b"no part of it")
    assert fingerprint((copy / "slide.vms").rename(copy / "other.vms")) == before


@pytest.mark.parametrize(
    "damage",
    [lambda data: data + b"  ", lambda data: data[:-2], lambda data: data[:700] + bytes(50) + data[750:]],
    ids=["longer", "shorter", "changed"],
)
def test_a_file_beside_the_index_that_is_damaged_is_another_slide(vms: Path, damage: Callable[[bytes], bytes]) -> None:
    before, picture = fingerprint(vms), vms.with_name("image.jpg")
    picture.write_bytes(damage(picture.read_bytes()))
    assert fingerprint(vms) != before


def test_what_is_sampled_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(40)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 30_000)
    read: list[int] = []

    class Seen:
        def update(self, data: bytes) -> None:
            read.append(len(data))

    _add_companions(cast(Any, Seen()), files)
    assert len(read) == 17
    assert sum(read[1:]) <= 16 * 16_384
    _add_companions(cast(Any, Seen()), [])
    assert len(read) == 17


def test_a_slide_of_one_file_has_the_fingerprint_that_it_always_had(write_slide: WriteSlide) -> None:
    path = write_slide(np.zeros((300, 300, 3), np.uint8), 0.46)
    path.with_name("other.tif").write_bytes(b"x")
    with open_openslide(path)[0] as handle:
        seen = repr(("generic-tiff", handle.level_dimensions, handle.properties["openslide.quickhash-1"])).encode()
    size = path.stat().st_size
    data = path.read_bytes()
    starts = [max(0, size - 16_384) * i // 15 for i in range(16)]
    known = seen + str(size).encode() + b"".join(data[start : start + 16_384] for start in starts)
    assert fingerprint(path) == f"sha256:{hashlib.sha256(known).hexdigest()}"


def test_each_file_of_a_dicom_slide_counts_whatever_its_name(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "slides/openslide_python/boxes_dicom"
    for number, path in enumerate(sorted(folder.glob("*.dcm"), reverse=True)):
        shutil.copyfile(path, tmp_path / f"{number}.dcm")
    with Slide.open(folder) as slide:
        before = slide.fingerprint
    shutil.copyfile(shared_data / "slides/dicom/camelyon_jpeg/multi_frame_jpeg_camelyon_challenge_image.dcm", tmp_path / "x.dcm")
    assert Slide.open(tmp_path / "0.dcm").fingerprint == Slide.open(tmp_path / "1.dcm").fingerprint == before
    with (tmp_path / "1.dcm").open("ab") as file:
        file.write(bytes(8))
    assert Slide.open(tmp_path / "0.dcm").fingerprint != before


def test_each_file_of_an_mrxs_slide_counts(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "slides/slaid/Mirax2-Fluorescence-2.mrxs"
    for name in ("Index.dat", "Slidedat.ini", *(path.name for path in source.with_suffix("").glob("Data*.dat"))):
        (tmp_path / "a").mkdir(exist_ok=True)
        shutil.copyfile(source.with_suffix("") / name, tmp_path / "a" / name)
    shutil.copyfile(source, tmp_path / "a.mrxs")
    with Slide.open(source) as slide, Slide.open(tmp_path / "a.mrxs") as copy:
        assert copy.fingerprint == slide.fingerprint
    data = tmp_path / "a" / "Data0007.dat"
    data.write_bytes(data.read_bytes()[:-1])
    with Slide.open(tmp_path / "a.mrxs") as cut:
        assert cut.fingerprint != copy.fingerprint
