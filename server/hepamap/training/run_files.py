"""The files of a training's run folder."""

from __future__ import annotations

import csv
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import OutputNotWritableError
from hepamap.training.errors import ResumeImpossibleError

STATE_KEY = "state"
"""Of the array in a checkpoint that says how far a training was; the others are its numbers."""

LOG_NAME, BEST_NAME, CHECKPOINT_NAME, TENSORBOARD_NAME = "log.csv", "best.npz", "checkpoint.npz", "tensorboard"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training was at the end of an epoch."""

    work: str
    """What was trained: another recipe or other data cannot go on from here."""
    first_weights: str
    """What it began with, in words."""
    epochs: int
    """Finished."""
    steps: int
    elapsed_s: float
    best_epoch: int
    best_val_loss: float
    stopped: bool
    """No further epoch was to come."""
    time_is_up: bool
    remembered: list[dict[str, Any]]
    """By callback."""


def read_npz(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Arrays of a file by name; all where none is named.

    Raises:
        OSError, ValueError: it cannot be read, or is damaged.
        KeyError: it has no array of a name.
    """
    try:
        # Opened here, because NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except (BadZipFile, AttributeError, EOFError, IndexError, zlib.error) as error:  # a single array has no names
        raise ValueError(f"no archive of arrays: {error}") from error


def read_progress(path: Path, work: str) -> Progress | None:
    """How far the training of a checkpoint was, without reading its numbers; None where none was written.

    Args:
        path: the checkpoint.
        work: what is to be trained now.

    Raises:
        ResumeImpossibleError: the file is of another work, or damaged.
    """
    if not path.exists():
        return None
    try:
        state = read_npz(path, STATE_KEY)[STATE_KEY]
    except (OSError, ValueError, KeyError) as error:
        raise damaged_state(path, error) from error
    return progress_of(state, path, work)


def progress_of(state: NDArray[Any] | None, path: Path, work: str) -> Progress:
    """The state of a checkpoint, read; raises as `read_progress` does."""
    try:
        progress = Progress(**json.loads(str(state)))
    except (ValueError, TypeError) as error:
        raise damaged_state(path, error) from error
    if progress.work != work:
        raise ResumeImpossibleError(
            f"The training in {path.parent.name} had another recipe or other data.",
            cure="Resume with the very same ones; to change something, start anew from its best weights "
            '(initialise = "weights:RUN/best.npz" in the recipe).',
        )
    return progress


def damaged_state(path: Path, reason: object) -> ResumeImpossibleError:
    """The error for a run folder with which nothing can go on."""
    return ResumeImpossibleError(
        f"The state of the training in {path.parent.name} is damaged ({reason}).", cure="Start anew with --overwrite."
    )


def cut_log(path: Path, epochs: int) -> None:
    """Leave the rows of the epochs that need not be done again; whole or not at all.

    Raises:
        ResumeImpossibleError: the log is missing, empty or no log.
        OutputNotWritableError: the disk is full or the folder not writable.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        kept = [row for row in rows if int(row[header.index("epoch")]) < epochs]
    except (OSError, ValueError, IndexError) as error:
        raise damaged_state(path, f"{path.name}: {error}") from error
    text = io.StringIO()
    csv.writer(text).writerows([header, *kept])
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all.

    Raises:
        OutputNotWritableError: the disk is full or the folder not writable.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError as error:
        raise _not_writable(path, error) from error


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
        raise _not_writable(path, error) from error


def _not_writable(path: Path, error: OSError) -> OutputNotWritableError:
    return OutputNotWritableError(
        f"The file {path.parent.name}/{path.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
    )
