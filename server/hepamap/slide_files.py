"""Finding and opening the file of a slide, and telling one slide from another."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openslide

from hepamap.errors import NotASlideError, SlideDamagedError, SlideNotFoundError, SlideNotReadableError, reason_of

_SAMPLES = 16  # blocks of the file that go into a fingerprint
_SAMPLE_BYTES = 16_384
_INDEX_HEAD_BYTES = 64 * 1024  # where the group of a VMS index stands, which is no longer than this
_INDEX_MAX_BYTES = 4 * 1024**2  # more than OpenSlide reads of any index
_VMS_GROUP = b"Virtual Microscope Specimen]"
_VALUE = re.compile(rb"^[^=\r\n]+=([^\r\n]+)", re.MULTILINE)
_DICOM_HEAD_BYTES = 64 * 1024
_WAY_OUT = re.compile(rb"\.\.[/\\]")
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
        if leads_out(file):
            raise SlideDamagedError(
                f"The slide {file.name} names files that are not in its folder.",
                cure="Copy the slide again from the scanner, with all its files.",
            )
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
    it; of a slide of many files also their lengths, and samples spread over all of them. Names, folders and times have no
    part in it. A DICOM slide may be opened by any of its files: none of them counts more than the others.

    Raises:
        SlideNotReadableError: the file cannot be read any more.
    """
    digest = hashlib.sha256()
    vendor = handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "")
    quick_hash = handle.properties.get(openslide.PROPERTY_NAME_QUICKHASH1, "")
    digest.update(repr((vendor, handle.level_dimensions, quick_hash)).encode())
    with _reading(path):
        if vendor != "dicom":
            _add_samples(digest, path)
        _add_companions(digest, _companions_of(path, handle))
    return f"sha256:{digest.hexdigest()}"


def _add_samples(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


def leads_out(path: Path) -> bool:
    """Whether the index of a slide of many files names some outside its folder.

    OpenSlide follows `..`, so whoever sends an index could have pictures read that are nobody's slide, or somebody else's.
    What begins like an absolute path stays below the folder.

    Args:
        path: the file that would be opened.
    """
    index = _index_of(path)
    return index is not None and _WAY_OUT.search(_text_of(index)) is not None


def _index_of(path: Path) -> Path | None:
    """The file that names the others of a slide (MRXS, VMS, VMU); None for a slide that is one file."""
    if path.suffix.lower() == ".mrxs":
        index = path.with_suffix("") / "Slidedat.ini"
        return index if index.is_file() else None
    with path.open("rb") as file:
        # By its content, as OpenSlide knows it, whatever the name says.
        return path if _VMS_GROUP in file.read(_INDEX_HEAD_BYTES) else None


def _text_of(index: Path) -> bytes:
    with index.open("rb") as file:
        return file.read(_INDEX_MAX_BYTES)


def _companions_of(path: Path, handle: openslide.OpenSlide) -> list[Path]:
    """The files that a slide has beside the one that it is opened by, in an order that is the same everywhere."""
    index = _index_of(path)
    if index is not None:
        named = {value.strip().decode("utf-8", "replace") for value in _VALUE.findall(_text_of(index))}
        return [file for file in _files_in(index.parent) if file.name in named]
    series = handle.properties.get("dicom.SeriesInstanceUID")
    if series is None:
        return []
    heads = ((_dicom_head_of(file), file) for file in _files_in(path.parent))
    # In the order of what they say of themselves: who copies DICOM files may give them other names.
    return [file for _, file in sorted((head, file) for head, file in heads if series.encode() in head)]


def _files_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file())


def _dicom_head_of(file: Path) -> bytes:
    """Where the UIDs of a DICOM file stand; nothing of other files, and of those not for us: OpenSlide passes both by."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_DICOM_HEAD_BYTES)
    except PermissionError:
        return b""
    return head if head[128:132] == b"DICM" else b""


def _add_companions(digest: hashlib._Hash, files: list[Path]) -> None:
    """Add their lengths, and as many samples as one file has, so that the time it takes does not grow with their number."""
    if not files:
        return
    sizes = [file.stat().st_size for file in files]
    digest.update(repr(sizes).encode())
    for i in range(_SAMPLES):
        place = max(0, sum(sizes) - _SAMPLE_BYTES) * i // (_SAMPLES - 1)
        for file, size in zip(files, sizes, strict=True):
            if place < size:
                _add_sample(digest, file, place)
                break
            place -= size


def _add_sample(digest: hashlib._Hash, path: Path, place: int) -> None:
    with path.open("rb") as file:
        file.seek(place)
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
