"""What comes again and again has two entries in the audit trail in a minute, and not a thousand: the first, and how many more."""

from __future__ import annotations

import threading
from dataclasses import replace

from hepamap.access.audit import AuditEvent, AuditTrail

_Key = tuple[str | None, AuditEvent]

_ELSEWHERE = "elsewhere"


class Recurring:
    """Events of one kind; whoever calls `flush` now and then says how long a minute is. May be used by many threads."""

    def __init__(self, trail: AuditTrail, *, most: int) -> None:
        """As of now, nothing has come.

        Args:
            trail: what is written to.
            most: so many different ones are told apart between two flushes, so that memory stays bounded.
        """
        self._trail = trail
        self._most = most
        self._lock = threading.Lock()
        self._counts: dict[_Key, int] = {}
        self._late: dict[_Key, int] = {}

    def append(self, event: AuditEvent, alike: AuditEvent, *, origin: str | None = None) -> None:
        """Write an event down at once if it is the first of its kind since the last flush, else count it.

        Args:
            event: what happened.
            alike: what all events that are counted together have in common; stands in the entry of those after the first.
            origin: where it came from, which is in no entry: those of each are counted by themselves. Of more origins than can be
                told apart, the rest counts as one. None: of more events than that, each is written.

        Raises:
            HepamapError: it could not be written down, and is not counted either.
        """
        key = self._counted(origin, alike)
        if key is None:
            return
        self._trail.append(event)
        # Not before: those after it are not written at once, and must not pass while nothing can be written.
        with self._lock:
            if key in self._counts or len(self._counts) < self._most or key[0] == _ELSEWHERE:
                self._counts.setdefault(key, 0)

    def flush(self) -> None:
        """Write down how many came beside the first ones, and begin anew.

        Raises:
            HepamapError: the trail cannot be written; what is left comes with the next flush.
        """
        with self._lock:
            over = {key: self._counts.get(key, 0) + self._late.get(key, 0) for key in {**self._late, **self._counts}}
            self._counts, self._late = {}, {}
        try:
            for (origin, alike), more in list(over.items()):
                if more:
                    self._trail.append(replace(alike, action=f"{alike.action}+{more}"))
                del over[origin, alike]
        finally:
            # Apart from what is counted: the next one of each kind must be written, or is not answered.
            with self._lock:
                self._late = {key: more for key, more in over.items() if more}

    def _counted(self, origin: str | None, alike: AuditEvent) -> _Key | None:
        """None where the event has been counted; else under what it is to be."""
        with self._lock:
            key: _Key = (origin, alike)
            if key not in self._counts and origin is not None and len(self._counts) >= self._most:
                key = (_ELSEWHERE, alike)
            if key not in self._counts:
                return key
            self._counts[key] += 1
            return None
