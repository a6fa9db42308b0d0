"""Removes what is too old, and what a crash left to nobody; never what a computation that waits or runs may need."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from hepamap.errors import reason_of
from hepamap.jobs.belonging import belongs, bind
from hepamap.jobs.job import Leftovers
from hepamap.jobs.store import JobStore, RemovalHook, ignore_removed

_log = structlog.stdlib.get_logger(__name__)

# What is younger may be on its way: an upload without its job yet, a result that is being written.
_STRAY_AFTER_S = 24 * 3600.0
_AT_ONCE = 200
"""So many jobs expire in one transaction: while it lasts, nobody else writes on SQLite, or into the audit trail."""
# Between two of them, seconds: who waits for SQLite's lock looks again after at most 0.1 s.
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where things are, and how long they are kept; see the settings of the same names."""

    data: Path
    """Has the mark of the database that it belongs to."""
    results: Path
    uploads: Path
    scratch: Path
    results_days: float
    """After a job has finished; 0: until somebody deletes it."""
    uploads_days: float
    """After the last computation that read it has finished; 0: as long as the job."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    jobs: tuple[str, ...]
    """Ids."""
    folders: tuple[Path, ...]
    """Results, uploads, scratch."""
    bytes: int
    """What the folders hold."""
    foreign: bool = False
    """The data folder is not this database's, as far as can be known: what no job refers to was not removed."""


FOREIGN_CURE = (
    "Name the database that they belong to (HEPAMAP_DATABASE_URL, HEPAMAP_DATA_DIR), or restore it. If they are this one's, and "
    "what no analysis in it refers to may go: hepamap gc --bind."
)
"""What to do about a data folder of another database."""


def remove_leftovers(leftovers: Leftovers, results: Path, uploads: Path) -> None:
    """Remove the files of jobs that are gone."""
    for folder in _folders(leftovers, results, uploads):
        shutil.rmtree(folder, ignore_errors=True)


def collect_garbage(
    store: JobStore, keeping: Keeping, *, dry_run: bool = False, on_removed: RemovalHook = ignore_removed
) -> Removed:
    """Remove expired jobs, results and uploads, and files that nobody refers to, if the data folder is this database's.

    Args:
        store: the jobs.
        keeping: what is kept, and how long.
        dry_run: change nothing, only say what would go.
        on_removed: told of the jobs that go.

    Raises:
        JobStoreError: the database does not answer.
        OSError: the data folder cannot be read.
    """
    ours = keeping.data.is_dir() and belongs(store, keeping.data, keeping.results, keeping.uploads)
    now = datetime.now(UTC)
    # Nothing finished before the year one: then only what no job refers to goes.
    before = now - timedelta(days=keeping.results_days) if keeping.results_days else datetime.min.replace(tzinfo=UTC)
    jobs: list[str] = []
    folders: dict[Path, int] = {}
    # At once, and not at the end: a database that goes away in between must not make strays of what has expired.
    for leftovers in [store.expire(before, dry_run=True)] if dry_run else _expired(store, before, on_removed):
        jobs += leftovers.jobs
        folders |= _removed(_folders(leftovers, keeping.results, keeping.uploads), dry_run)
    if ours:
        folders |= _removed([path for path in _strays(store, keeping, now) if path not in folders], dry_run)
        if not dry_run:
            _bind(store, keeping.data)
    foreign = keeping.data.is_dir() and not ours
    return Removed(tuple(jobs), tuple(folders), sum(folders.values()), foreign)


def _bind(store: JobStore, data: Path) -> None:
    try:
        bind(store, data)
    except OSError as error:
        # Such as a full disk, which must be tidied all the same; what is judged now is judged again next time.
        _log.warning("data_folder_not_marked", reason=reason_of(error))


def _expired(store: JobStore, before: datetime, on_removed: RemovalHook) -> Iterator[Leftovers]:
    """Let jobs expire some at a time, with room for others in between."""
    while True:
        leftovers = store.expire(before, at_most=_AT_ONCE, on_removed=on_removed)
        yield leftovers
        if len(leftovers.jobs) < _AT_ONCE:
            return
        time.sleep(_PAUSE_S)


def _removed(paths: Iterable[Path], dry_run: bool) -> dict[Path, int]:
    """Remove what is there of it; its bytes."""
    sizes = {path: _size(path) for path in paths if path.exists()}
    if not dry_run:
        for path in sizes:
            _remove(path)
    return sizes


def _folders(leftovers: Leftovers, results: Path, uploads: Path) -> tuple[Path, ...]:
    return (*(results / name for name in leftovers.results), *(uploads / name for name in leftovers.uploads))


def _strays(store: JobStore, keeping: Keeping, now: datetime) -> Iterable[Path]:
    # First the folders, then the question who uses them: what begins in between is not in the list.
    results, uploads, scratch = (_entries(folder) for folder in (keeping.results, keeping.uploads, keeping.scratch))
    locations, ids, pieces = store.in_use()
    # A result that is being written has its computation's id in its name.
    yield from (
        path for path in results if path.name not in locations and not any(each in path.name for each in ids) and _old(path)
    )
    after = now - timedelta(days=keeping.uploads_days) if keeping.uploads_days else None
    yield from (path for path in uploads if not store.uses_upload(path.name, after=after) and _old(path))
    yield from (path for path in scratch if path.name not in pieces)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _STRAY_AFTER_S
    except FileNotFoundError:
        return False  # another process was quicker


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
