"""What may go from the disk, as far as the database knows.

Only what a database made itself, and knows that nobody needs, is ever removed. That it does not know a folder says nothing:
another database may have made it, or this one, before an older backup of it was restored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from hepamap.jobs.database import is_postgresql
from hepamap.jobs.sessions import Sessions, place_of_pieces
from hepamap.jobs.states import FINISHED
from hepamap.jobs.tables import ComputationRow, DisposableRow

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What could not be removed in that time is forgotten, and unknown from then on.
_REMEMBERED = timedelta(days=30)


_KNOWING = (
    ComputationRow.id,
    ComputationRow.key,
    place_of_pieces().label("place"),
    ComputationRow.upload,
    ComputationRow.result_location,
    ComputationRow.state,
    ComputationRow.finished_at,
)


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
    """Uploads that a computation may still read, or that are kept for their jobs."""
    uploads_over: frozenset[str]
    """All others."""
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
    with sessions.writing() as session:
        dispose(session, Place.UPLOADS, [name], sessions.now())


def dispose(session: Session, place: Place, names: Iterable[str], now: datetime) -> None:
    """Say within a transaction that nobody needs something any more, or yet."""
    # Sorted, since another transaction may say the same of some of them: two that wait for each other would never end.
    rows = [{"place": place.value, "name": name, "since": now} for name in sorted(names)]
    if not rows:
        return
    say = (postgresql.insert if is_postgresql(session.get_bind().engine.url) else sqlite.insert)(DisposableRow)
    key = (DisposableRow.place, DisposableRow.name)
    session.execute(say.on_conflict_do_update(index_elements=key, set_={"since": say.excluded.since}), rows)


def keep(session: Session, place: Place, name: str) -> None:
    """The opposite of `dispose`, of one."""
    session.execute(delete(DisposableRow).where(DisposableRow.place == place.value, DisposableRow.name == name))


def known_files(sessions: Sessions, *, uploads_after: datetime | None = None) -> KnownFiles:
    """All names that the database knows.

    Args:
        sessions: the database.
        uploads_after: an upload is kept for computations that are unfinished, or finished after this time (UTC); None: for all.

    Raises:
        JobStoreError: it does not answer.
    """
    results, unfinished, over = set[str](), set[str](), set[str]()
    uploads, uploads_over, pieces, pieces_over = set[str](), set[str](), set[str](), set[str]()
    with sessions.reading() as session:
        for row in session.execute(select(*_KNOWING)):
            is_over = row.state in FINISHED
            (over if is_over else unfinished).add(row.id)
            (pieces_over if is_over else pieces).add(row.place)
            if not is_over:
                pieces.add(row.key)  # a worker of an older version has them there
            if row.result_location is not None:
                results.add(row.result_location)
            if row.upload is not None:
                is_read = row.finished_at is None or uploads_after is None or row.finished_at > uploads_after
                (uploads if is_read else uploads_over).add(row.upload)
        # Last: what goes while this looks is in one of both.
        gone: dict[str, set[str]] = {place.value: set() for place in Place}
        for place, name in session.execute(select(DisposableRow.place, DisposableRow.name)):
            gone[place].add(name)
    return KnownFiles(
        results=frozenset(results),
        unfinished=frozenset(unfinished),
        over=frozenset((over | gone[Place.RESULTS]) - unfinished),
        uploads=frozenset(uploads),
        uploads_over=frozenset((uploads_over | gone[Place.UPLOADS]) - uploads),
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
