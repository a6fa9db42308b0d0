"""Health and version: for load balancers, for the operator, and for QuPath's "Test connection"."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

import hepamap
from hepamap.api.schemas import CheckAnswer, LiveAnswer, ReadyAnswer, VersionAnswer
from hepamap.api.services import Services, ServicesOf
from hepamap.errors import HepamapError, PackInvalidError
from hepamap.jobs.states import JobState
from hepamap.model_pack import find_pack, list_packs
from hepamap.operations.packs import PackChecker

router = APIRouter(tags=["health"])

# Of the process: what it remembers of a file holds for every app in it.
_PACKS = PackChecker()


@router.get("/health/live")
async def live() -> LiveAnswer:
    """The process answers; says nothing about the rest. Needs no thread, so it answers even when all are busy."""
    return LiveAnswer()


@router.get(
    "/health/ready",
    responses={503: {"model": ReadyAnswer, "description": "Something is missing; the checks say what."}},
)
async def ready(request: Request, services: ServicesOf, response: Response) -> ReadyAnswer:
    """Whether an analysis that is asked for now would be done."""
    answer: ReadyAnswer = await request.app.state.readiness.of(services)
    if answer.status != "ready":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return answer


@router.get("/version")
def version() -> VersionAnswer:
    """Which software answers."""
    return VersionAnswer(version=hepamap.__version__)


class Readiness:
    """Looks at most once in a while, and once at a time, however many ask: anybody may, and a look writes and queries."""

    def __init__(self) -> None:
        self._answer: ReadyAnswer | None = None
        self._looked_at = 0.0
        self._look: asyncio.Task[ReadyAnswer] | None = None

    async def of(self, services: Services) -> ReadyAnswer:
        """The answer of now, or of a moment ago."""
        fresh = time.monotonic() - self._looked_at < services.settings.ready_reuse_s
        if self._answer is not None and fresh:
            return self._answer
        if self._look is None:
            self._look = asyncio.create_task(self._look_once(services))
        # Shielded: one client that goes must not take the answer from the others. And none of them holds a thread.
        return await asyncio.shield(self._look)

    async def _look_once(self, services: Services) -> ReadyAnswer:
        try:
            self._answer = await run_in_threadpool(_look, services)
            self._looked_at = time.monotonic()
            return self._answer
        finally:
            self._look = None


def _look(services: Services) -> ReadyAnswer:
    checks = {
        "database": _check(_database, services),
        "disk": _check(_disk, services),
        "queue": _check(_queue, services),
        "worker": _check(_worker, services),
        "models": _check(_models, services),
    }
    is_ready = all(check.ok for check in checks.values())
    return ReadyAnswer(status="ready" if is_ready else "not_ready", checks=checks)


def _check(probe: Callable[[Services], CheckAnswer], services: Services) -> CheckAnswer:
    try:
        return probe(services)
    except HepamapError as error:
        return CheckAnswer(ok=False, detail=error.message)
    except OSError as error:
        # The number's name and not the error's text, which has the server's paths in it.
        return CheckAnswer(ok=False, detail=os.strerror(error.errno) if error.errno else "input/output error")


def _database(services: Services) -> CheckAnswer:
    services.store.ping()
    return CheckAnswer(ok=True, detail="answers")


def _disk(services: Services) -> CheckAnswer:
    settings = services.settings
    with tempfile.TemporaryFile(dir=settings.data_dir) as file:
        file.write(b"x")
    free = shutil.disk_usage(settings.data_dir).free
    detail = f"{free / 1024**3:.1f} GiB free, {settings.min_free_bytes / 1024**3:.1f} GiB needed"
    return CheckAnswer(ok=free >= settings.min_free_bytes, detail=detail)


def _queue(services: Services) -> CheckAnswer:
    # For people: a long queue is no reason to send nobody here, and that nobody works on it is what the check of the worker says.
    counts = services.store.counts()
    return CheckAnswer(ok=True, detail=f"{counts[JobState.QUEUED]} waiting, {counts[JobState.RUNNING]} running")


def _worker(services: Services) -> CheckAnswer:
    workers = services.store.workers(silent_for_s=services.settings.worker_stale_s)
    if not workers:
        return CheckAnswer(ok=False, detail="no worker process has been seen lately")
    able = [worker for worker in workers if worker.trouble is None]
    if not able:
        return CheckAnswer(ok=False, detail=f"{len(workers)} worker process(es), but {workers[0].trouble}")
    age_s = (datetime.now(UTC) - max(worker.heartbeat_at for worker in able)).total_seconds()
    return CheckAnswer(ok=True, detail=f"{len(able)} worker process(es), last seen {age_s:.1f} s ago")


def _models(services: Services) -> CheckAnswer:
    folder = services.settings.models_dir
    _PACKS.verify(find_pack(folder, services.settings.default_model))
    broken: list[PackInvalidError] = []
    whole = ", ".join(pack.name for pack in list_packs(folder, broken))
    # Analyses with the other models are done all the same.
    return CheckAnswer(ok=True, detail="; ".join([whole, *(error.message for error in broken)]))
