"""Finished pieces of a map on the disk, so that a computation that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import structlog

from hepamap.folders import sync_folder
from hepamap.maps import Piece

_log = structlog.stdlib.get_logger(__name__)

_USABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAGIC = b"\x93NUMPY"


class FolderCheckpoint:
    """One file per piece, in a folder that only one computation has, and who goes on from it: no other question ever reads it.

    A piece is there whole or not at all, also after a power cut. A disk that takes no more costs the chance to go on
    later, and not the computation.
    """

    def __init__(self, folder: Path, name: str, kept: Callable[[], None] = lambda: None) -> None:
        """Pieces of a computation.

        Args:
            folder: of all computations.
            name: of this one's; see `Computation.pieces`.
            kept: told of each piece that was not there before.
        """
        self._folder = folder / _usable(name)
        self._kept = kept

    def load(self, unit: str) -> Piece | None:
        """A piece that was stored, or None; one of an older version, which has no counts, is none."""
        try:
            content = self._path(unit).read_bytes()
            if not content.startswith(_MAGIC):
                return None
            file = io.BytesIO(content)
            values, counts = (np.load(file, allow_pickle=False) for _ in range(2))
        except (OSError, ValueError, EOFError):
            return None
        if values.dtype != np.float32 or counts.dtype != np.int64 or counts.shape != (2,):
            return None
        return Piece(values, *counts.tolist())

    def store(self, unit: str, piece: Piece) -> None:
        """Keep a piece: its values (any shape), then its two counts, in one file.

        Args:
            unit: its name: letters, digits, dot, hyphen, underscore.
            piece: what was computed.
        """
        path = self._path(unit)
        # A name of its own: another worker, which was given up but is not dead, may write the same piece.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                np.save(file, np.asarray(piece.values, np.float32), allow_pickle=False)
                np.save(file, np.array([piece.tissue_pixels, piece.he_pixels], np.int64), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            is_new = not path.exists()
            partial.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            _log.warning("checkpoint_not_stored", unit=unit, reason=error.strerror)
            return
        # One that is made again and again, because it cannot be read, brings nobody further.
        if is_new:
            self._kept()

    def discard(self) -> None:
        """Remove all pieces; the computation is over."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, unit: str) -> Path:
        return self._folder / f"{_usable(unit)}.npy"


def _usable(name: str) -> str:
    if not _USABLE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a piece or of a computation")
    return name
