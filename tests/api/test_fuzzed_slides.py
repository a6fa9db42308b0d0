"""Slides whose bytes were changed: each is analysed, or refused by a code; nothing else comes of it, whatever it does inside.

HEPAMAP_TEST_FUZZED_SLIDES says how many (`make fuzz`: many).
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from hepamap.api.children import Children, slide_children
from hepamap.detection import DetectionRequest, check_request, detect
from hepamap.errors import HepamapError, SlideError
from hepamap.slide import Slide
from tests.api.conftest import MODEL, FakeDetector

COUNT = int(os.environ.get("HEPAMAP_TEST_FUZZED_SLIDES", "40"))


def analyse(path: Path, models_dir: Path, out_dir: Path) -> str:
    """What the server does with a slide, then what the worker does."""
    request = DetectionRequest(path, model=MODEL)
    pinned = check_request(request, models_dir).pinned(request)
    return detect(pinned, out_dir, FakeDetector(models_dir), overwrite=True).outcome


def write_svs(path: Path) -> None:
    image = np.full((300, 400, 3), 245, np.uint8)
    image[50:250, 50:350] = (190, 110, 160)
    said = "Aperio Image Library v12.0.15\r\n400x300 [0,0 400x300] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.46"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=(256, 256), photometric="rgb", compression="zlib", description=said, metadata=None)


def changed(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, most often among those that say what the rest means; or the end, or a part, gone."""
    found = bytearray(data)
    way = rng.randrange(5)
    if way == 0:
        return bytes(found[: rng.randrange(len(found))])
    if way == 1:
        start = rng.randrange(len(found))
        del found[start : start + rng.randrange(1, 4096)]
        return bytes(found)
    ends = 2048 if way < 4 else len(found)
    for _ in range(rng.choice((1, 1, 3, 20))):
        place = rng.randrange(min(ends, len(found)))
        place = len(found) - 1 - place if rng.random() < 0.5 else place
        found[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(found)


def width_of(path: Path) -> int:
    with Slide.open(path) as slide:
        return slide.size_l0.width


def opens(path: Path, readers: Children) -> bool:
    try:
        return readers.run(width_of, path) > 0
    except HepamapError:
        return False


@pytest.fixture(scope="module")
def readers() -> Iterator[Children]:
    readers = slide_children(120.0, 1)
    yield readers
    readers.close()


def outcomes_of(
    original: Path, readers: Children, models_dir: Path, folder: Path, count: int, others: Path | None = None
) -> Counter[str]:
    rng, data, found = random.Random(11), original.read_bytes(), Counter[str]()
    place = folder / "changed"
    if others is not None:
        shutil.copytree(others, place)
    else:
        place.mkdir()
    for _ in range(count):
        path = place / original.name
        path.write_bytes(changed(data, rng))
        try:
            found[readers.run(analyse, path, models_dir, folder / "out")] += 1
        except SlideError as error:
            found["crashed" if "crashed" in error.message else error.code] += 1
        except HepamapError as error:
            found[error.code] += 1
    assert sum(found.values()) == count
    return found


@pytest.mark.parametrize("kind", ["tiff", "svs"])
def test_a_slide_with_changed_bytes(readers: Children, models_dir: Path, slide_bytes: bytes, tmp_path: Path, kind: str) -> None:
    original = tmp_path / ("slide.svs" if kind == "svs" else "slide.tif")
    if kind == "svs":
        write_svs(original)
    else:
        original.write_bytes(slide_bytes)
    whole = readers.run(analyse, original, models_dir, tmp_path / "whole")
    assert whole.startswith(("ok", "not_evaluable"))
    found = outcomes_of(original, readers, models_dir, tmp_path, COUNT)
    # Some changes do not matter and some are fatal: where all ended alike, this would have tried nothing.
    assert len(found) > 1
    print(kind, dict(found))  # noqa: T201  # for `make fuzz`, which shows it


@pytest.mark.parametrize("pattern", ["*.ndpi", "*.svs"])
def test_a_real_slide_with_changed_bytes(
    readers: Children, models_dir: Path, shared_data: Path, tmp_path: Path, pattern: str
) -> None:
    small = sorted(
        (path for path in shared_data.rglob(pattern) if path.stat().st_size < 8 * 1024**2), key=lambda p: p.stat().st_size
    )
    if not small:
        pytest.skip(f"there is no small slide {pattern}")
    found = outcomes_of(small[0], readers, models_dir, tmp_path, max(4, COUNT // 8))
    print(pattern, dict(found))  # noqa: T201  # for `make fuzz`, which shows it


def test_a_dicom_slide_with_changed_bytes(readers: Children, models_dir: Path, shared_data: Path, tmp_path: Path) -> None:
    # One that is a slide by itself: not all that the folder of real files holds is meant to be read.
    instances = sorted(
        (path for path in shared_data.rglob("*.dcm") if "negative" not in str(path)), key=lambda p: p.stat().st_size
    )
    whole = [path for path in instances if path.stat().st_size < 8 * 1024**2 and opens(path, readers)]
    if not whole:
        pytest.skip("there is no small DICOM slide")
    smallest = whole[0]
    found = outcomes_of(smallest, readers, models_dir, tmp_path, max(4, COUNT // 8), others=smallest.parent)
    print("dicom", dict(found))  # noqa: T201  # for `make fuzz`, which shows it
