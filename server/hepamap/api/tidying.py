"""What the server does once an hour: it removes what has expired, and what a crash left to nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from starlette.concurrency import run_in_threadpool

from hepamap.errors import HepamapError
from hepamap.jobs.retention import Keeping, collect_garbage
from hepamap.jobs.store import JobStore

_log = structlog.stdlib.get_logger(__name__)

_EVERY_S = 3600.0


@asynccontextmanager
async def tidying(store: JobStore, keeping: Keeping, *, every_s: float = _EVERY_S) -> AsyncIterator[None]:
    """Tidy up now and again, until the end of the context.

    Args:
        store: the jobs.
        keeping: what is kept, and how long.
        every_s: pause, seconds.
    """
    task = asyncio.create_task(_tidy(store, keeping, every_s))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _tidy(store: JobStore, keeping: Keeping, every_s: float) -> None:
    while True:
        try:
            removed = await run_in_threadpool(collect_garbage, store, keeping)
        except (HepamapError, OSError) as error:
            _log.warning("not_tidied", reason=str(error))
        else:
            if removed.jobs or removed.folders:
                _log.info("tidied", analyses=len(removed.jobs), folders=len(removed.folders), bytes=removed.bytes)
        await asyncio.sleep(every_s)
