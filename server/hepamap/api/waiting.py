"""Waiting for jobs: however many clients wait, one look at the database at a time answers them all, and none is held between."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Job

_log = structlog.stdlib.get_logger(__name__)

_INTERVAL_S = 0.25
_PREFERENCE = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)

_Wanted = dict[str, "asyncio.Future[Job | Exception | None]"]


class JobWatch:
    """Looks at the jobs that somebody waits for; belongs to one event loop."""

    def __init__(self, get: Callable[[str], Job | None], *, interval_s: float = _INTERVAL_S) -> None:
        self._get = get
        self._interval_s = interval_s
        self._wanted: _Wanted = {}
        self._round: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the server is about to stop, and nobody should wait any more."""
        return self._closed

    def close(self) -> None:
        """Let all go who wait, at their next look; may be called from a signal handler."""
        self._closed = True

    async def look(self, job_id: str) -> Job | None:
        """The job as it is after a short while; None where it is gone.

        Raises:
            JobStoreError: the database does not answer.
        """
        future = self._wanted.setdefault(job_id, asyncio.get_running_loop().create_future())
        if self._round is None:
            self._round = asyncio.create_task(self._look_while_wanted())
        # Shielded: one client that goes must not take the answer from the others.
        found = await asyncio.shield(future)
        if isinstance(found, Exception):
            raise found
        return found

    async def until_finished(self, job: Job, seconds: float) -> Job:
        """The job when it has finished, or as it was last seen within so many seconds, however long a look takes."""
        deadline = time.monotonic() + seconds
        while not job.finished and not self._closed and (left_s := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    now = await self.look(job.id)
            except TimeoutError:
                break
            except JobStoreError:
                # What the client asked for has been done or found; that nobody can look just now does not undo it.
                continue
            if now is None:
                break
            job = now
        return job

    async def _look_while_wanted(self) -> None:
        """One round after the other: where the database is slow, rounds beside each other would take all threads."""
        try:
            while self._wanted:
                await asyncio.sleep(self._interval_s)
                wanted, self._wanted = self._wanted, {}
                await self._answer(wanted)
        finally:
            self._round = None

    async def _answer(self, wanted: _Wanted) -> None:
        """Look once, and give every one who waits a result; whatever happens, none is left to wait for ever."""
        try:
            found = await run_in_threadpool(self._find, tuple(wanted))
            for job_id, future in wanted.items():
                future.set_result(found[job_id])
        except Exception as error:
            _log.exception("look_crashed")
            for future in wanted.values():
                if not future.done():
                    future.set_exception(error)
        finally:
            for future in wanted.values():
                future.cancel()  # where the server ends amid a look; one that is done stays so

    def _find(self, job_ids: tuple[str, ...]) -> dict[str, Job | Exception | None]:
        found: dict[str, Job | Exception | None] = {}
        away: JobStoreError | None = None
        for job_id in job_ids:
            if away is not None:
                # Each further try could take as long again.
                found[job_id] = away
                continue
            try:
                found[job_id] = self._get(job_id)
            except JobStoreError as error:
                found[job_id] = away = error
            except Exception as error:
                # Of this job alone: who waits for another one gets an answer.
                found[job_id] = error
        return found


def preferred_wait_s(prefer: str | None) -> int | None:
    """The seconds that `Prefer: wait=N` (RFC 7240) asks for; None where it does not. What cannot be read counts as absent."""
    for preference in (prefer or "").split(","):
        found = _PREFERENCE.fullmatch(preference)
        if found:
            return int(found[1])
    return None


async def wait_as_preferred(job: Job, prefer: str | None, response: Response, watch: JobWatch, max_s: float) -> Job:
    """Wait for a job as its client prefers, and say so in the answer.

    Args:
        job: as it is now.
        prefer: the header of that name; several preferences are separated by commas.
        response: gets `Preference-Applied`.
        watch: looks at the job.
        max_s: the longest wait that the server goes along with.
    """
    seconds = preferred_wait_s(prefer)
    if seconds is None:
        return job
    seconds = min(seconds, int(max_s))
    response.headers["Preference-Applied"] = f"wait={seconds}"
    return await watch.until_finished(job, seconds)
