"""Sorts what lies in the folders of jobs: what is needed, what a crash left to nobody, and what the database does not know."""

from __future__ import annotations

import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from pathlib import Path

from hepamap.jobs.disposal import KnownFiles, computation_in, known_files
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.store import JobStore

# What is younger may be on its way: an upload without its job yet, a result that is being written.
_STRAY_AFTER_S = 24 * 3600.0
# What disks, their snapshots and their viewers put into any folder.
_OF_THE_SYSTEM = frozenset({"lost+found", ".snapshot", ".zfs", ".DS_Store", "Thumbs.db"})


@dataclass(frozen=True, slots=True)
class Strays:
    """What no job needs, as far as the database knows."""

    left: tuple[Path, ...]
    """It made them itself, and a crash or an error left them."""
    unknown: tuple[Path, ...]
    """It does not know them. They may be another database's."""


class _Standing(Enum):
    NEEDED = auto()
    LEFT = auto()
    UNKNOWN = auto()


def find_strays(store: JobStore, keeping: Keeping, now: datetime) -> Strays:
    """Look at each entry of the folders.

    Raises:
        JobStoreError: the database does not answer.
        OSError: a folder cannot be read.
    """
    # First the folders, then the question who uses them: what begins in between is not in the list.
    results, uploads, scratch = (_entries(folder) for folder in (keeping.results, keeping.uploads, keeping.scratch))
    after = now - timedelta(days=keeping.uploads_days) if keeping.uploads_days else None
    known = known_files(store, uploads_after=after)
    standing = {path: _of_result(path.name, known) for path in results}
    standing |= {path: _of(path.name, known.uploads, known.uploads_over) for path in uploads}
    standing |= {path: _of(path.name, known.pieces, known.pieces_over) for path in scratch}
    old = {path: what for path, what in standing.items() if what is not _Standing.NEEDED and _is_old(path)}
    return Strays(
        left=tuple(path for path, what in old.items() if what is _Standing.LEFT),
        unknown=tuple(path for path, what in old.items() if what is _Standing.UNKNOWN),
    )


def unfinished_results(store: JobStore, results: Path) -> list[Path]:
    """What this database's workers were writing: a result is written under a hidden name until it is whole.

    Raises:
        JobStoreError: the database does not answer.
        OSError: the folder cannot be read.
    """
    hidden = [path for path in _entries(results) if path.name.startswith(".")]
    if not hidden:
        return []
    known = known_files(store)
    own = known.unfinished | known.over
    return [path for path in hidden if computation_in(path.name) in own]


def _of_result(name: str, known: KnownFiles) -> _Standing:
    work_id = computation_in(name)
    if name in known.results or work_id in known.unfinished:
        return _Standing.NEEDED
    return _Standing.LEFT if work_id in known.over else _Standing.UNKNOWN


def _of(name: str, needed: Set[str], over: Set[str]) -> _Standing:
    if name in needed:
        return _Standing.NEEDED
    return _Standing.LEFT if name in over else _Standing.UNKNOWN


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name not in _OF_THE_SYSTEM) if folder.is_dir() else []


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _STRAY_AFTER_S
    except FileNotFoundError:
        return False  # another process was quicker
