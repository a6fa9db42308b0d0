"""Finding and opening the file of a slide, and telling one slide from another."""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openslide

from hepamap.errors import NotASlideError, SlideDamagedError, SlideNotFoundError, SlideNotReadableError, reason_of

_SAMPLES = 16  # blocks of the file that go into a fingerprint
_SAMPLE_BYTES = 16_384
_TIFF_MAGIC = {b"II*\x00": "<I", b"MM\x00*": ">I", b"II+\x00": "<Q", b"MM\x00+": ">Q"}
_SUFFIXES = {".ndpi", ".svs", ".mrxs", ".scn", ".bif", ".tif", ".tiff", ".svslide", ".vms", ".vmu", ".czi"}
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_FORMATS = "NDPI, SVS, MRXS, SCN, BIF, tiled TIFF, DICOM and the other formats of OpenSlide"


def open_openslide(path: Path) -> tuple[openslide.OpenSlide, Path]:
    """Open a slide file, or the DICOM slide in a folder.

    Returns:
        The handle, and the file that was opened.

    Raises:
        SlideError: not found, not readable, not a slide, damaged.
    """
    with _reading(path):
        file = _file_of(path)
    with _reading(file):
        _require_readable(file)
        if openslide.OpenSlide.detect_format(str(file)) is None:
            raise _unrecognised(file)
    try:
        return openslide.OpenSlide(str(file)), file
    except openslide.OpenSlideError as error:
        raise SlideDamagedError(
            f"The slide {file.name} cannot be opened: {str(error).replace(str(file.parent), '').strip()}.",
            cure="Copy the slide again from the scanner, with all its files, or scan it again.",
        ) from error


def fingerprint_of(path: Path, handle: openslide.OpenSlide) -> str:
    """Tell this slide from others, without reading it whole.

    SHA-256 over the format, the sizes of the levels, OpenSlide's quick hash, the length of the file and samples spread over
    it. Names, folders and times have no part in it. A DICOM slide has many files and may be opened by any: only what all
    of them share counts.

    Raises:
        SlideNotReadableError: the file cannot be read any more.
    """
    digest = hashlib.sha256()
    vendor = handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "")
    quick_hash = handle.properties.get(openslide.PROPERTY_NAME_QUICKHASH1, "")
    digest.update(repr((vendor, handle.level_dimensions, quick_hash)).encode())
    if vendor != "dicom":
        with _reading(path):
            _add_samples(digest, path)
    return f"sha256:{digest.hexdigest()}"


def _add_samples(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


def is_dicom_folder(path: Path) -> bool:
    """Whether a folder holds the files of a DICOM slide."""
    return path.is_dir() and _dicom_file_in(path) is not None


def looks_like_slide(path: Path) -> bool:
    """Whether a file (by its name) or a folder (with DICOM files) is worth trying as a slide."""
    if path.name.startswith("."):
        return False
    return is_dicom_folder(path) if path.is_dir() else path.suffix.lower() in _SUFFIXES


def _dicom_file_in(folder: Path) -> Path | None:
    for file in sorted(folder.glob("*.dcm")):
        if openslide.OpenSlide.detect_format(str(file)) == "dicom":
            return file
    return None


def _file_of(path: Path) -> Path:
    if not path.exists():
        raise SlideNotFoundError(f"There is no slide at {path.name}.", cure="Check the path: no file is there.")
    if not path.is_dir():
        return path
    file = _dicom_file_in(path)
    if file is None:
        raise NotASlideError(
            f"{path.name} is a folder, and not one with a DICOM slide in it.",
            cure="Give the path of the slide file itself.",
        )
    return file


def _require_readable(file: Path) -> None:
    with file.open("rb") as stream:
        stream.read(1)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell what the system refuses as a slide's own error: at any step its share may go away, or the file with it."""
    try:
        yield
    except OSError as error:
        raise SlideNotReadableError(
            f"The slide {path.name} cannot be read: {reason_of(error)}.",
            cure="Give the account that hepamap runs under the right to read the file and its folder."
            if error.errno in _FORBIDDEN
            else "Try again. If it stays so, the operator should look at the slides' storage.",
        ) from error


def _unrecognised(file: Path) -> NotASlideError | SlideDamagedError:
    if _is_cut_tiff(file):
        return SlideDamagedError(
            f"The slide {file.name} is incomplete: its directory lies beyond the end of the file.",
            cure="The copy was cut short: copy the slide again.",
        )
    return NotASlideError(
        f"{file.name} is not a whole-slide image that hepamap can read.",
        cure=f"Use one of {_FORMATS}; check that the file is whole.",
    )


def _is_cut_tiff(file: Path) -> bool:
    """Whether a TIFF's first directory lies beyond its end: scanners write it last, so a cut copy lacks it."""
    with file.open("rb") as stream:
        head = stream.read(16)
    layout = _TIFF_MAGIC.get(head[:4])
    if layout is None or len(head) < 16:
        return False
    start = 4 if layout.endswith("I") else 8
    (offset,) = struct.unpack_from(layout, head, start)
    return bool(offset >= file.stat().st_size)
