"""Folders that appear whole, or stay what they were, and are still there after a power cut."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

# What a system says that has no way to flush a folder, or to a program that may write into one and not list it.
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


def put_in_place(made: Path, folder: Path) -> None:
    """Rename a finished folder to the name that it is to have.

    What has that name steps aside first and goes only when the new one is in place, on the disk too: whoever is killed in
    between loses neither, and a power cut loses none. Whether it may go is asked by the caller.

    Args:
        made: the new folder, on the same disk.
        folder: its name from now on.

    Raises:
        OSError: it cannot be renamed; what was there is there again.
    """
    if not folder.exists():
        os.rename(made, folder)
        sync_folder(folder.parent)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:64]}-", suffix=".old", dir=folder.parent))
    old = aside / folder.name
    try:
        os.rename(folder, old)
        os.rename(made, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        aside.rmdir()
        raise
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def is_anchored(folder: Path) -> bool:
    """Whether a folder cannot be renamed away: a mounted disk, or the folder that one is in."""
    return os.path.ismount(folder) or folder.resolve() == Path.cwd()


def nearest_existing(folder: Path) -> Path:
    """The folder, or the first above it that is there: where it would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, and have their names on the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Bring a folder with all that is below it to the disk; its own name is the matter of the folder that it lies in."""
    for place, _, names in os.walk(folder):
        for name in names:
            _sync_file(os.path.join(place, name))
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; Windows cannot, and does not need to."""
    if os.name == "nt":
        return
    try:
        _sync(str(folder), os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise


def _sync_file(path: str) -> None:
    # Windows flushes only what is open for writing.
    _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
