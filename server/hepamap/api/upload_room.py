"""How much may still be uploaded: a quota for the folder, and what must stay free on its disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hepamap.api.disk import disk_full
from hepamap.api.errors import UploadTooLargeError
from hepamap.api.upload_errors import UploadQuotaError
from hepamap.folders import make_folder

CHECK_EVERY_BYTES = 64 * 1024**2
"""By how much an upload may overstep what there is room for."""


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What the server takes, bytes."""

    folder: Path
    """Where uploads go; each into a folder of its own."""
    max_upload_bytes: int
    max_request_bytes: int
    min_free_bytes: int
    """What must stay free on the disk."""
    quota_bytes: int = 0
    """The most that all uploads together may have; 0: the disk alone decides."""


def require_room(limits: UploadLimits, announced: int, *, promised: int = 0) -> None:
    """Refuse an upload for which there is no room, before anything is sent.

    Args:
        limits: what the server takes.
        announced: its size, bytes.
        promised: what uploads on their way will still bring, bytes.

    Raises:
        UploadQuotaError: all uploads together would be too large.
        OutputNotWritableError: the disk would be too full.
    """
    make_folder(limits.folder)
    if shutil.disk_usage(limits.folder).free - promised - announced < limits.min_free_bytes:
        raise disk_full()
    if limits.quota_bytes and used_bytes(limits.folder) + promised + announced > limits.quota_bytes:
        raise UploadQuotaError(
            f"The uploads on this server would have more than {limits.quota_bytes} bytes.",
            cure="Delete analyses or uploads that are no longer needed, or have the operator raise the quota.",
        )


class RoomWatch:
    """Looks for room now and again while an upload comes in: others fill the disk too, and some do not say how long they are."""

    def __init__(self, limits: UploadLimits, promised: Callable[[], int]) -> None:
        self._limits = limits
        self._promised = promised
        self._unseen = 0

    def wrote(self, count: int) -> None:
        """So many bytes more were written.

        Raises:
            UploadQuotaError, OutputNotWritableError: there is no room for more.
        """
        self._unseen += count
        if self._unseen >= CHECK_EVERY_BYTES:
            self.look()

    def look(self) -> None:
        """Whether what was written has its place beside all else.

        Raises:
            UploadQuotaError, OutputNotWritableError: it has not.
        """
        self._unseen = 0
        require_room(self._limits, 0, promised=self._promised())


def used_bytes(folder: Path) -> int:
    """What the files below a folder have, each counted once however many names it has."""
    sizes = {(status.st_dev, status.st_ino): status.st_size for status in _files_below(folder)}
    return sum(sizes.values())


def _files_below(folder: Path) -> Iterator[os.stat_result]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(place, name), follow_symlinks=False)
            except FileNotFoundError:
                # Removed while this looks.
                continue


def upload_too_large(max_bytes: int) -> UploadTooLargeError:
    """The slide is larger than the limit."""
    return UploadTooLargeError(
        f"The slide is larger than this server takes ({max_bytes} bytes).",
        cure="Put the slide into a folder that the server sees and send its path, or have the operator raise the limit.",
    )
