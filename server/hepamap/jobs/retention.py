"""Removes what is too old, and what a crash left to nobody; never what a computation that waits or runs may need."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hepamap.jobs.disposal import forget_disposed
from hepamap.jobs.job import Leftovers
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.store import JobStore, RemovalHook, ignore_removed
from hepamap.jobs.strays import find_strays

_AT_ONCE = 200
"""So many jobs expire in one transaction: while it lasts, nobody else writes on SQLite, or into the audit trail."""
# Between two of them, seconds: who waits for SQLite's lock looks again after at most 0.1 s.
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    jobs: tuple[str, ...]
    """Ids."""
    folders: tuple[Path, ...]
    """Results, uploads, scratch."""
    bytes: int
    """What the folders hold."""
    unknown: tuple[Path, ...] = ()
    """What stays because the database does not know it."""


UNKNOWN_CURE = (
    "They may be another database's (HEPAMAP_DATABASE_URL, HEPAMAP_DATA_DIR), younger than the backup that was restored, or left "
    "by an older version. See them: hepamap gc --unknown --dry-run. Where nobody needs them: hepamap gc --unknown."
)
"""What to do about files that the database does not know."""


def remove_leftovers(leftovers: Leftovers, results: Path, uploads: Path) -> None:
    """Remove the files of jobs that are gone."""
    for folder in _folders(leftovers, results, uploads):
        shutil.rmtree(folder, ignore_errors=True)


def collect_garbage(
    store: JobStore,
    keeping: Keeping,
    *,
    unknown: bool = False,
    dry_run: bool = False,
    on_removed: RemovalHook = ignore_removed,
    stopping: Callable[[], bool] = lambda: False,
) -> Removed:
    """Remove expired jobs, results and uploads, and what a crash left to nobody.

    Args:
        store: the jobs.
        keeping: what is kept, and how long.
        unknown: remove also what the database does not know, if it is older than a day. Somebody has to have looked at it.
        dry_run: change nothing, only say what would go.
        on_removed: told of the jobs that go.
        stopping: asked now and again whether to leave the rest to the next time.

    Raises:
        JobStoreError: the database does not answer.
        OSError: a folder cannot be read.
    """
    now = datetime.now(UTC)
    # Nothing finished before the year one: then only what no job refers to goes.
    before = now - timedelta(days=keeping.results_days) if keeping.results_days else datetime.min.replace(tzinfo=UTC)
    jobs: list[str] = []
    folders: dict[Path, int] = {}
    # At once, and not at the end: whoever is stopped in between has removed what has expired by then.
    for leftovers in [store.expire(before, dry_run=True)] if dry_run else _expired(store, before, on_removed, stopping):
        jobs += leftovers.jobs
        folders |= _removed(_folders(leftovers, keeping.results, keeping.uploads), dry_run)
    strays = find_strays(store, keeping, now)
    left = [*strays.left, *strays.unknown] if unknown else strays.left
    folders |= _removed([path for path in left if path not in folders], dry_run, stopping)
    if not dry_run and not stopping():
        forget_disposed(store)
    return Removed(tuple(jobs), tuple(folders), sum(folders.values()), () if unknown else strays.unknown)


def _expired(store: JobStore, before: datetime, on_removed: RemovalHook, stopping: Callable[[], bool]) -> Iterator[Leftovers]:
    """Let jobs expire some at a time, with room for others in between."""
    while not stopping():
        leftovers = store.expire(before, at_most=_AT_ONCE, on_removed=on_removed)
        yield leftovers
        if len(leftovers.jobs) < _AT_ONCE:
            return
        time.sleep(_PAUSE_S)


def _removed(paths: Iterable[Path], dry_run: bool, stopping: Callable[[], bool] = lambda: False) -> dict[Path, int]:
    """Remove what is there of it; its bytes."""
    sizes = {}
    for path in paths:
        if stopping():
            break
        if path.exists():
            sizes[path] = _size(path)
            if not dry_run:
                _remove(path)
    return sizes


def _folders(leftovers: Leftovers, results: Path, uploads: Path) -> tuple[Path, ...]:
    return (*(results / name for name in leftovers.results), *(uploads / name for name in leftovers.uploads))


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
        # As above: what cannot be removed must not keep the rest.
        with contextlib.suppress(OSError):
            path.unlink()
