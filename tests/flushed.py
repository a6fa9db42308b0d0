"""Which files and folders are on the disk: what a power cut would leave, without one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


class Flushed:
    """Remembers what each file and folder held when it was last flushed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held: dict[int, set[object]] = {}
        fsync = os.fsync

        def flush(descriptor: int) -> None:
            fsync(descriptor)
            self._held[os.fstat(descriptor).st_ino] = _content(descriptor)

        monkeypatch.setattr(os, "fsync", flush)

    def lacks(self, folder: Path) -> list[str]:
        """What a power cut could take of a folder, of all below it, and of the names in the folder that it lies in (`.`)."""
        paths = [folder.parent, folder, *sorted(folder.rglob("*"))]
        return [path.relative_to(folder.parent).as_posix() for path in paths if not self._has(path)]

    def _has(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # What was removed since may come back: that is not lost.
            return _content(descriptor) <= self._held.get(os.fstat(descriptor).st_ino, set())
        finally:
            os.close(descriptor)


def _content(descriptor: int) -> set[object]:
    """The length of a file, or the names in a folder with what they stand for."""
    status = os.fstat(descriptor)
    if not stat.S_ISDIR(status.st_mode):
        return {status.st_size}
    with os.scandir(descriptor) as entries:
        return {(entry.name, entry.inode()) for entry in entries}
