"""Puts the server together."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool

import hepamap
from hepamap.api.errors import install_handlers
from hepamap.api.middleware import RequestFrame
from hepamap.api.routes import analyses, events, health, models, results, slides, uploads
from hepamap.api.schemas import AnalysisRequest, Problem
from hepamap.api.services import Services
from hepamap.api.uploads import remove_strays
from hepamap.api.views import API_PREFIX
from hepamap.api.waiting import JobWatch
from hepamap.errors import OutputNotWritableError
from hepamap.jobs.store import JobStore
from hepamap.jobs.supervisor import SupervisorLimits, WorkerSupervisor
from hepamap.operations.finishing import finish_jobs
from hepamap.settings import Settings

_DESCRIPTION = f"""Finds hepatocellular carcinoma on H&E whole-slide images.

Ask for an analysis (`POST {API_PREFIX}/analyses`), follow its `Location` until its state is `succeeded`, then fetch its
contours (GeoJSON, as QuPath reads it) at any threshold, and its probability map. Whatever cannot be done is answered by a
problem document (RFC 9457) with a stable `code`, a sentence for a person, and a cure.

**{hepamap.RESEARCH_USE_ONLY}**"""

# No upload takes so long; what is older and belongs to no analysis was cut off by a crash.
_STRAY_UPLOAD_AFTER_S = 24 * 3600.0

WORKER_COMMAND = (sys.executable, "-m", "hepamap.worker")


def create_app(settings: Settings, *, worker_command: Sequence[str] = WORKER_COMMAND) -> FastAPI:
    """The server as an ASGI app. It opens the store and starts the worker when it is started, not before.

    Args:
        settings: all that can be set.
        worker_command: what is run as the embedded worker; its settings come by the environment.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        prepare_folders(settings)
        with closing(JobStore.open(settings.database, on_finished=finish_jobs)) as store:
            app.state.services = Services(settings, store, JobWatch(store.get))
            remove_strays(settings.uploads_dir, store.uses_upload, older_than_s=_STRAY_UPLOAD_AFTER_S)
            supervisor = _start_worker(settings, worker_command)
            try:
                yield
            finally:
                if supervisor is not None:
                    await run_in_threadpool(supervisor.stop)

    app = FastAPI(
        title="hepamap",
        version=hepamap.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Both pages would fetch their scripts from the internet; hospitals have none, and need not tell anybody.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    install_handlers(app)
    app.add_middleware(RequestFrame)
    versioned = APIRouter(prefix=API_PREFIX)
    for router in (analyses.router, results.router, events.router, slides.router, uploads.router, models.router):
        versioned.include_router(router)
    app.include_router(versioned)
    app.include_router(health.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


def prepare_folders(settings: Settings) -> None:
    """Make the folders that the server writes into.

    Raises:
        OutputNotWritableError: one of them cannot be made.
    """
    for folder in (settings.data_dir, settings.results_dir, settings.uploads_dir):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputNotWritableError(
                f"The folder {folder} cannot be made: {error.strerror}.", cure="Set HEPAMAP_DATA_DIR to a writable folder."
            ) from error


def _start_worker(settings: Settings, command: Sequence[str]) -> WorkerSupervisor | None:
    if not settings.embedded_worker:
        return None
    limits = SupervisorLimits(settings.worker_restart_delay_s, settings.worker_restart_delay_max_s, settings.worker_stop_s)
    supervisor = WorkerSupervisor(command, settings.environment(), limits)
    supervisor.start()
    return supervisor


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schemas that no endpoint's signature names."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, extra = models_json_schema(
            [(AnalysisRequest, "validation"), (Problem, "serialization"), (events.EventAnswer, "serialization")],
            ref_template="#/components/schemas/{model}",
        )
        document["components"]["schemas"].update(extra["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
