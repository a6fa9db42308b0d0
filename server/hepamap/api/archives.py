"""Zips of slides that have many files: everything is checked by the directory of the zip before anything is unpacked."""

from __future__ import annotations

import errno
import lzma
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hepamap.api.upload_errors import ArchiveError, ArchiveSlideError, ArchiveTooLargeError, ArchiveUnsafeError
from hepamap.slide_files import is_dicom_folder, leads_out, looks_like_slide

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_MAX_ENTRIES = 100_000
_MAX_DIRECTORY_BYTES = 16 * 1024**2  # 160 a file; in memory each takes some times as much
_MAX_DEPTH = 16
_MAX_NAME_BYTES = 255
# Slides are compressed pictures: a zip makes them hardly smaller. Text beside them shrinks ten times, and a bomb a thousand.
_MAX_RATIO = 100
_SMALL_BYTES = 16 * 1024**2  # below this much in all, no ratio can hurt
_PIECE_BYTES = 1024**2
_ENCRYPTED = 0x1
_LITTER = {"__macosx", ".ds_store", "thumbs.db", "desktop.ini"}
# What the library and its decoders raise on bytes that are no zip.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError, struct.error)
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f:]")


@dataclass(frozen=True, slots=True)
class _Entry:
    info: zipfile.ZipInfo
    parts: tuple[str, ...]

    @property
    def is_folder(self) -> bool:
        return self.info.orig_filename.endswith(("/", "\\"))


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip does; no slide does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def unpack(archive: Path, folder: Path, *, max_bytes: int, require_room: Callable[[int], None] = lambda count: None) -> None:
    """Check a zip, then unpack it.

    Args:
        archive: the zip.
        folder: where its files go; must not exist, and is to be removed by the caller where this fails.
        max_bytes: the most that all files together may have, bytes.
        require_room: told how many bytes will be written, before they are; refuses by an error of its own.

    Raises:
        ArchiveError: it is no zip, damaged, encrypted, too large, or would write where it must not.
        OSError: the disk.
    """
    try:
        _require_small_directory(archive)
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(opened.infolist(), max_bytes)
            require_room(sum(entry.info.file_size for entry in entries))
            folder.mkdir()
            for entry in entries:
                _extract(opened, entry, folder)
    except (NotImplementedError, RuntimeError) as error:
        raise ArchiveError(
            "The zip uses a kind of packing that this server does not know.", cure="Pack it with the methods store or deflate."
        ) from error
    except _DAMAGE as error:
        raise _damaged() from error
    except OSError as error:
        # A place before the beginning of the file, where an offset in the zip is damaged; all else is the disk's.
        if error.errno == errno.EINVAL:
            raise _damaged() from error
        raise


def _damaged() -> ArchiveError:
    return ArchiveError("The zip is damaged or no zip at all.", cure="Pack the slide again and send it whole.")


def slide_in(folder: Path) -> Path:
    """The one slide among unpacked files: its file, or the folder of a DICOM slide.

    Raises:
        ArchiveSlideError: there is none, or more than one.
        ArchiveUnsafeError: it reaches for files outside its folder.
    """
    found = list(_slides_in(folder))
    if len(found) == 1:
        if found[0].is_file() and leads_out(found[0]):
            raise ArchiveUnsafeError(
                "The slide in the zip names files that are not in its folder.",
                cure="Pack all files of the slide as the scanner wrote them.",
            )
        return found[0]
    if not found:
        raise ArchiveSlideError(
            "No file in the zip is a slide by its name.",
            cure="Pack all files of the slide as the scanner wrote them: for MRXS the .mrxs file and its folder.",
        )
    named = ", ".join(repr(path.name) for path in found[:5])
    raise ArchiveSlideError(f"The zip holds {len(found)} slides: {named}.", cure="Send one slide per zip.")


def _slides_in(folder: Path) -> Iterator[Path]:
    if is_dicom_folder(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _slides_in(path)
        elif looks_like_slide(path):
            yield path


def _require_small_directory(archive: Path) -> None:
    """Look at the end record alone: opening a zip reads its whole directory into memory, however many files that names."""
    with archive.open("rb") as file:
        # The library's own reading of it, zip64 too: another one might be led to another record than the library is.
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is None:
        raise _damaged()
    entries, size = end[zipfile._ECD_ENTRIES_TOTAL], end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
    if entries > _MAX_ENTRIES or size > _MAX_DIRECTORY_BYTES:
        raise _too_many(entries)


def _too_many(entries: int) -> ArchiveTooLargeError:
    return ArchiveTooLargeError(
        f"The zip has {entries} files, and a directory of them that is too large; {_MAX_ENTRIES} is the most.",
        cure="Send one slide per zip.",
    )


def _checked(infos: Sequence[zipfile.ZipInfo], max_bytes: int) -> list[_Entry]:
    """The entries to unpack."""
    if len(infos) > _MAX_ENTRIES:
        raise _too_many(len(infos))
    for info in infos:
        _require_plain(info)
    entries = [entry for entry in (_Entry(info, _parts_of(info)) for info in infos) if not _is_litter(entry.parts)]
    unpacked, packed = (sum(getattr(info, name) for info in infos) for name in ("file_size", "compress_size"))
    if unpacked > max_bytes:
        raise ArchiveTooLargeError(
            f"The files in the zip have {unpacked} bytes; this server takes {max_bytes}.",
            cure="Put the slide into a folder that the server sees and send its path, or have the operator raise the limit.",
        )
    if unpacked > _SMALL_BYTES and unpacked > _MAX_RATIO * packed:
        raise ArchiveUnsafeError(
            f"The zip would grow from {packed} to {unpacked} bytes, which no slide does.", cure="Send the files of a slide."
        )
    _require_distinct(entries)
    return entries


def _require_plain(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveUnsafeError(
            f"The zip has a link or a device in it: {info.filename!r}.", cure="Pack the files themselves, without links."
        )
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError("The zip is encrypted.", cure="Pack it without a password.")


def _parts_of(info: zipfile.ZipInfo) -> tuple[str, ...]:
    # Some programs of Windows write their own separator.
    name = info.orig_filename.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or _NOT_IN_NAMES.search(name) or not parts:
        raise ArchiveUnsafeError(
            f"The zip has a file that would not stay in its folder: {info.filename!r}.",
            cure="Pack the files with plain names, relative to the folder of the slide.",
        )
    if len(parts) > _MAX_DEPTH or any(len(part.encode("utf-8", "replace")) > _MAX_NAME_BYTES for part in parts):
        raise ArchiveUnsafeError("The zip has names that are too long or too deep.", cure="Pack the folder of the slide itself.")
    return parts


def _is_litter(parts: Sequence[str]) -> bool:
    """What operating systems leave beside files, and no scanner writes."""
    return any(part.casefold() in _LITTER for part in parts)


def _require_distinct(entries: Sequence[_Entry]) -> None:
    """No two entries may land on one place, on any file system: the later would overwrite the earlier, or hide it."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for entry in entries:
        place = PurePosixPath(*(unicodedata.normalize("NFC", part).casefold() for part in entry.parts))
        if entry.is_folder:
            folders.add(place)
        elif place in files:
            raise _ambiguous(entry.info.filename)
        else:
            files.add(place)
        folders.update(place.parents)
    for place in files & folders:
        raise _ambiguous(str(place))


def _ambiguous(name: str) -> ArchiveUnsafeError:
    return ArchiveUnsafeError(
        f"The zip has {name!r} twice, or in names that differ in case only.", cure="Pack each file of the slide once."
    )


def _extract(archive: zipfile.ZipFile, entry: _Entry, folder: Path) -> None:
    target = folder.joinpath(*entry.parts)
    if entry.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    room = entry.info.file_size
    with archive.open(entry.info) as source, target.open("xb") as out:
        while piece := source.read(_PIECE_BYTES):
            # The directory was checked; what the entry itself holds must not be more than that said.
            room -= len(piece)
            if room < 0:
                raise ArchiveUnsafeError("The zip holds more than its directory says.", cure="Pack the slide again.")
            out.write(piece)
