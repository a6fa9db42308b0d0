"""What may go from the disk, as far as the database knows.

Only what a database made itself, and knows that nobody needs, is ever removed. That it does not know a folder says nothing:
another database may have made it, or this one, before an older backup of it was restored.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from hepamap.jobs.sessions import Sessions
from hepamap.jobs.states import FINISHED
from hepamap.jobs.tables import ComputationRow, DisposableRow

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AT_ONCE = 500  # databases take only so many parameters in one statement
# What could not be removed in that time is forgotten, and unknown from then on.
_REMEMBERED = timedelta(days=30)


class Place(StrEnum):
    """Where a name stands for something."""

    RESULTS = "results"
    """The id of a computation, which all its results have in their names."""
    UPLOADS = "uploads"
    SCRATCH = "scratch"
    """Where the pieces of a computation lie."""


@dataclass(frozen=True, slots=True)
class KnownFiles:
    """The names that a database knows."""

    results: frozenset[str]
    """Locations of results that jobs have."""
    unfinished: frozenset[str]
    """Ids of computations that wait or run."""
    over: frozenset[str]
    """Ids of computations that have ended, or are gone."""
    uploads: frozenset[str]
    """All, whether a computation reads them or not."""
    pieces: frozenset[str]
    """Where the pieces of computations lie that wait or run."""
    pieces_over: frozenset[str]
    """Where those of others lay."""


def computation_in(name: str) -> str | None:
    """The id of the computation that made a result, of the name that it has, or has while it is being written."""
    found = _ID.search(name)
    return None if found is None else found.group()


def register_upload(sessions: Sessions, name: str) -> None:
    """Say that an upload is about to come, which nobody needs until a computation takes it.

    Raises:
        JobStoreError: the database does not answer.
    """
    now = sessions.now()
    with sessions.writing() as session:
        dispose(session, Place.UPLOADS, [name], now)


def dispose(session: Session, place: Place, names: Collection[str], now: datetime) -> None:
    """Say within a transaction that nobody needs something any more, or yet."""
    keep(session, place, names)
    if names:
        session.execute(insert(DisposableRow), [{"place": place.value, "name": name, "since": now} for name in names])


def keep(session: Session, place: Place, names: Iterable[str]) -> None:
    """The opposite of `dispose`."""
    left = sorted(names)
    for start in range(0, len(left), _AT_ONCE):
        mine = DisposableRow.name.in_(left[start : start + _AT_ONCE])
        session.execute(delete(DisposableRow).where(DisposableRow.place == place.value, mine))


def known_files(sessions: Sessions) -> KnownFiles:
    """All names that the database knows.

    Raises:
        JobStoreError: it does not answer.
    """
    results, uploads, pieces, pieces_over = set[str](), set[str](), set[str](), set[str]()
    unfinished, over = set[str](), set[str]()
    with sessions.reading() as session:
        gone: dict[str, set[str]] = {place.value: set() for place in Place}
        for place, name in session.execute(select(DisposableRow.place, DisposableRow.name)):
            gone[place].add(name)
        columns = (ComputationRow.id, ComputationRow.key, ComputationRow.pieces, ComputationRow.upload)
        for row in session.execute(select(*columns, ComputationRow.result_location, ComputationRow.state)):
            is_over = row.state in FINISHED
            (over if is_over else unfinished).add(row.id)
            # A worker of an older version has them at the key.
            (pieces_over if is_over else pieces).update({row.pieces, row.key})
            results.add(row.result_location)
            uploads.add(row.upload)
    return KnownFiles(
        results=frozenset(results - {None}),
        unfinished=frozenset(unfinished),
        over=frozenset(over | gone[Place.RESULTS] - unfinished),
        uploads=frozenset((uploads | gone[Place.UPLOADS]) - {None}),
        pieces=frozenset(pieces),
        pieces_over=frozenset((pieces_over | gone[Place.SCRATCH]) - pieces),
    )


def forget_disposed(sessions: Sessions) -> None:
    """Remove what was said long ago.

    Raises:
        JobStoreError: the database does not answer.
    """
    border = sessions.now() - _REMEMBERED
    with sessions.writing() as session:
        session.execute(delete(DisposableRow).where(DisposableRow.since < border))
