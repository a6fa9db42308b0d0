"""From an upload that has arrived to the files of a slide, and to those of an analysis."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hepamap.api.archives import is_archive, slide_in, unpack
from hepamap.api.upload_errors import UploadChecksumError
from hepamap.api.upload_records import Upload
from hepamap.api.upload_room import UploadLimits, require_room
from hepamap.folders import sync_folder, sync_tree

DATA_NAME = ".data"
"""What has arrived, in the folder of its upload."""
FILES_NAME = "files"
"""The slide, in the folder of its upload; this name appears when all that is below it has reached the disk."""
UNPACKING_NAME = ".unpacking"
"""What it is called until then; no file that a client sends has such a name."""


def make_files(folder: Path, upload: Upload, limits: UploadLimits, promised: Callable[[], int]) -> Path:
    """Make the slide of an upload that has arrived whole, unless it was made before a crash; what arrived stays beside it.

    Args:
        folder: of the upload.
        upload: what it is.
        limits: what the server takes.
        promised: what other uploads will still bring, bytes.

    Returns:
        The slide.

    Raises:
        UploadChecksumError, ArchiveError: it is of no use.
        UploadQuotaError, OutputNotWritableError: there is no room for what is in it.
        OSError: the disk.
    """
    files, data = folder / FILES_NAME, folder / DATA_NAME
    if not files.is_dir():
        if upload.sha256 is not None:
            _require_sha256(data, upload.sha256)
        unpacking = folder / UNPACKING_NAME
        shutil.rmtree(unpacking, ignore_errors=True)
        if is_archive(data):
            unpack(
                data,
                unpacking,
                max_bytes=limits.max_upload_bytes,
                require_room=lambda count: require_room(limits, count, promised=promised()),
            )
        else:
            unpacking.mkdir()
            link(str(data), str(unpacking / upload.name))
        # Whoever finds the name later, after a power cut too, takes it that all is there.
        sync_tree(unpacking)
        unpacking.rename(files)
    return slide_in(files) if is_archive(data) else files / upload.name


def copy_files(files: Path, folder: Path) -> None:
    """Give the files of a slide a second name, on the disk too, in a new folder; where that fails nothing is left of it.

    Raises:
        OSError: the disk.
    """
    try:
        shutil.copytree(files, folder, copy_function=link)
        # Copied with the folder's time, it would be taken for one that a crash left to nobody long ago.
        os.utime(folder)
        sync_tree(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def link(source: str, target: str) -> str:
    """Give a file a second name; a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _require_sha256(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
            raise UploadChecksumError(
                "The slide that arrived is not the one that was sent (sha256 differs).", cure="Upload it again."
            )
