"""The audit trail: who did what, when, to what; appended only, each entry bound to all before it by its hash.

Neither paths nor names of slides or patients are in it: an analysis is named by its id, a slide by its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hepamap.access.errors import AuditBrokenError
from hepamap.access.tables import AuditHeadRow, AuditRow
from hepamap.jobs.sessions import Sessions

BEGINNING = "0" * 64
"""What the first entry is bound to."""

_RESTORE = "Compare with an exported trail or a backup; who can write to the database can tell who changed it."
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What happened."""

    actor: str
    """See `scopes.Caller.id`."""
    action: str
    """Name of the operation, as in the OpenAPI document, such as `get_contours`; or of a command, such as `keys.create`."""
    status: int
    """HTTP status of the answer; 200 for a command; 102 for a request that was made and not yet answered."""
    object: str | None = None
    """Id of the analysis, upload, verdict or key."""
    slide: str | None = None
    """Fingerprint of the slide."""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event in its place in the trail."""

    seq: int
    """1 for the first one, without gaps."""
    at: str
    """UTC, ISO 8601."""
    event: AuditEvent
    hash: str
    """SHA-256 over the hash of the entry before and this one's canonical JSON."""

    def to_json(self) -> dict[str, Any]:
        """As exported: one flat object."""
        return {"seq": self.seq, "at": self.at, **asdict(self.event), "hash": self.hash}


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the trail: note it somewhere else, and nobody can shorten or rewrite what came before."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


class AuditTrail(Sessions):
    """The trail in the database; may be appended to by many threads and processes."""

    def append(self, event: AuditEvent) -> AuditEntry:
        """Write an event at the end of the trail; it is on the disk when this returns.

        Raises:
            AuditBrokenError: the stored end of the trail is gone.
            JobStoreError: the database does not answer.
        """
        with self.writing() as session:
            return self.append_within(session, event)

    def append_within(self, session: Session, event: AuditEvent) -> AuditEntry:
        """The same within a transaction that is under way: the entry is there if, and only if, what it tells of is.

        Raises:
            AuditBrokenError: the stored end of the trail is gone.
        """
        # The first statement takes the lock (SQLite: of the database, PostgreSQL: of this row), and so waits until the
        # transaction of any other process is over: nobody else can have read the same end of the trail.
        end = session.execute(
            update(AuditHeadRow).values(seq=AuditHeadRow.seq + 1).returning(AuditHeadRow.seq, AuditHeadRow.hash)
        ).first()
        if end is None:
            raise _no_end()
        seq, previous = end
        at = self._clock().isoformat()
        entry = AuditEntry(seq, at, event, entry_hash(previous, seq, at, event))
        session.add(AuditRow(**entry.to_json()))
        session.execute(update(AuditHeadRow).values(hash=entry.hash))
        return entry

    def head(self) -> AuditHead:
        """The end of the trail.

        Raises:
            AuditBrokenError: it is gone.
        """
        with self.reading() as session:
            row = session.get(AuditHeadRow, 1)
            if row is None:
                raise _no_end()
            return AuditHead(row.seq, row.hash)

    def page(self, *, after: int = 0, limit: int = _PAGE) -> tuple[AuditEntry, ...]:
        """Entries in their order.

        Args:
            after: begin behind this one.
            limit: at most so many.
        """
        query = select(AuditRow).where(AuditRow.seq > after).order_by(AuditRow.seq).limit(limit)
        with self.reading() as session:
            return tuple(_entry(row) for row in session.scalars(query))

    def entries(self, *, after: int = 0) -> Iterator[AuditEntry]:
        """All entries in their order; never more than a page in memory."""
        while page := self.page(after=after):
            yield from page
            after = page[-1].seq

    def verify(self, known: AuditHead | None = None) -> AuditHead:
        """Walk the whole trail.

        Args:
            known: an end of the trail that was noted earlier; it must still be part of it.

        Returns:
            The end of the trail.

        Raises:
            AuditBrokenError: an entry was changed, removed, added or moved; the message names the first one.
        """
        head = self.head()  # before the walk: what is appended meanwhile is behind it
        seq, previous = 0, BEGINNING
        for entry in self.entries():
            seq += 1
            if entry.seq != seq:
                raise _broken(seq, "is missing")
            if entry.hash != entry_hash(previous, seq, entry.at, entry.event):
                raise _broken(seq, "is not as it was written")
            if known is not None and seq == known.seq and entry.hash != known.hash:
                raise _broken(seq, "does not have the hash that was noted; it or one before it was rewritten")
            previous = entry.hash
            if seq == head.seq and entry.hash != head.hash:
                raise _broken(seq, "does not have the hash that was stored as the end of the trail")
        end = max(head.seq, 0 if known is None else known.seq)
        if seq < end:
            raise _broken(seq + 1, f"is missing, and all up to {end}")
        return AuditHead(seq, previous)


def entry_hash(previous: str, seq: int, at: str, event: AuditEvent) -> str:
    """The hash of an entry: SHA-256 of the previous hash, a line feed, and the entry's JSON (sorted, no blanks, UTF-8)."""
    content = json.dumps({"seq": seq, "at": at, **asdict(event)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def _broken(seq: int, how: str) -> AuditBrokenError:
    return AuditBrokenError(f"The audit trail is broken: entry {seq} {how}.", cure=_RESTORE)


def _no_end() -> AuditBrokenError:
    return AuditBrokenError("The audit trail is broken: its stored end was removed.", cure=_RESTORE)


def _entry(row: AuditRow) -> AuditEntry:
    event = AuditEvent(row.actor, row.action, row.status, row.object, row.slide, row.request_id)
    return AuditEntry(row.seq, row.at, event, row.hash)
