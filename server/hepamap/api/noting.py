"""The audit trail as the gate writes it: an entry for each call; what anybody can send without end, and polls, are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import anyio
import structlog
from starlette.concurrency import run_in_threadpool

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.access.rates import origin_of
from hepamap.access.recurring import Recurring
from hepamap.access.scopes import ANONYMOUS
from hepamap.errors import HepamapError

_log = structlog.stdlib.get_logger(__name__)

_POLLS = frozenset({"get_analysis", "watch_analysis"})
_EVERY_S = 60.0
# So many are told apart in a minute. Of addresses few: whoever has thousands of them must not fill the trail either.
_ORIGINS = 100
_POLLED = 10_000


@dataclass(frozen=True, slots=True)
class Notes:
    """The audit trail, and what is counted in it."""

    trail: AuditTrail
    strangers: Recurring
    """Refusals of who has no valid credentials, by address."""
    polls: Recurring
    """Looks at how far an analysis is, by caller and analysis."""

    @classmethod
    def of(cls, trail: AuditTrail) -> Notes:
        """On a trail."""
        return cls(trail, Recurring(trail, most=_ORIGINS), Recurring(trail, most=_POLLED))

    def append(self, event: AuditEvent, address: str) -> None:
        """Write down what happened, or count it with what is alike.

        Raises:
            HepamapError: it cannot be written down.
        """
        if event.actor == ANONYMOUS.id:
            alike = AuditEvent(event.actor, event.action, event.status)
            self.strangers.append(event, alike, origin=origin_of(address))
        elif event.action in _POLLS:
            self.polls.append(event, replace(event, request_id=None))
        else:
            self.trail.append(event)

    def flush(self) -> None:
        """Write down what has been counted."""
        for counted in (self.strangers, self.polls):
            try:
                counted.flush()
            except HepamapError as error:
                _log.warning("audit_counts_wait", reason=error.message)


@asynccontextmanager
async def noting(notes: Notes | None, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Write down what is counted for the audit trail, each minute and at the end of the context."""
    if notes is None:
        yield
        return
    async with anyio.create_task_group() as group:
        group.start_soon(_flush_now_and_then, notes, every_s)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(_flush, notes)


async def _flush_now_and_then(notes: Notes, every_s: float) -> None:
    while True:
        await anyio.sleep(every_s)
        await run_in_threadpool(_flush, notes)


def _flush(notes: Notes) -> None:
    try:
        notes.flush()
    except Exception:
        # The last resort: what escapes from here would end the server's task group, and all that runs beside it.
        _log.exception("audit_flush_crashed")
