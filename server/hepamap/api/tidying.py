"""What the server does once an hour: it removes what has expired, and what a crash left to nobody."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog
from starlette.concurrency import run_in_threadpool

from hepamap.access.audit import AuditTrail
from hepamap.delivery.outbox import Outbox
from hepamap.errors import HepamapError, reason_of
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.retention import UNKNOWN_CURE, collect_garbage
from hepamap.jobs.store import JobStore, ignore_removed
from hepamap.operations.keeping import noted_in

_log = structlog.stdlib.get_logger(__name__)

_EVERY_S = 3600.0
_ACTOR = "server"


@asynccontextmanager
async def tidying(
    store: JobStore, keeping: Keeping, trail: AuditTrail | None, *, every_s: float = _EVERY_S
) -> AsyncIterator[None]:
    """Tidy up now and again, until the end of the context.

    Args:
        store: the jobs.
        keeping: what is kept, and how long.
        trail: where it is written down which analyses went; None: nowhere.
        every_s: pause, seconds.
    """
    ending = threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_tidy, store, keeping, trail, every_s, ending)
        try:
            yield
        finally:
            # Waits for what is under way, but not for all that is left to do: the database is closed next.
            ending.set()
            group.cancel_scope.cancel()


async def _tidy(store: JobStore, keeping: Keeping, trail: AuditTrail | None, every_s: float, ending: threading.Event) -> None:
    while True:
        for step in (lambda: _collect(store, keeping, trail, ending), Outbox(store.engine).forget_old):
            try:
                await run_in_threadpool(step)
            except HepamapError as error:
                _log.warning("not_tidied", reason=error.message)
            except OSError as error:
                _log.warning("not_tidied", reason=reason_of(error))
            except Exception:
                # The last resort: whatever this was, there is another try in an hour, and the disk must not fill up till then.
                _log.exception("tidying_crashed")
        await anyio.sleep(every_s)


def _collect(store: JobStore, keeping: Keeping, trail: AuditTrail | None, ending: threading.Event) -> None:
    noted = ignore_removed if trail is None else noted_in(trail, _ACTOR)
    removed = collect_garbage(store, keeping, on_removed=noted, stopping=ending.is_set)
    if removed.unknown:
        _log.warning("files_unknown", number=len(removed.unknown), cure=UNKNOWN_CURE)
    if removed.jobs or removed.folders:
        _log.info("tidied", analyses=len(removed.jobs), folders=len(removed.folders), bytes=removed.bytes)
