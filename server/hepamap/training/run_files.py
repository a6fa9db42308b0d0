"""The files of a training's run folder."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import OutputNotWritableError

LOG_NAME, BEST_NAME, CHECKPOINT_NAME, TENSORBOARD_NAME = "log.csv", "best.npz", "checkpoint.npz", "tensorboard"


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name.

    Raises:
        OSError, ValueError: it cannot be read, or is damaged.
    """
    try:
        # Opened here, because NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, AttributeError, EOFError, zlib.error) as error:  # a single array has no `files`
        raise ValueError(f"no archive of arrays: {error}") from error


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays whole or not at all.

    Raises:
        OutputNotWritableError: the disk is full or the folder not writable.
    """
    partial = path.with_suffix(".partial.npz")
    try:
        np.savez(partial, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for one of them
        os.replace(partial, path)
    except OSError as error:
        raise OutputNotWritableError(
            f"The file {path.parent.name}/{path.name} cannot be written ({error.strerror}).",
            cure="Check permissions and free space.",
        ) from error
