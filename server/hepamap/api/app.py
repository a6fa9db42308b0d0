"""Puts the server together."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool

import hepamap
from hepamap.access.protection import require_protected
from hepamap.api.callbacks import delivering
from hepamap.api.children import outline_children, slide_children
from hepamap.api.errors import install_handlers
from hepamap.api.metrics import RequestMetrics
from hepamap.api.middleware import RequestFrame
from hepamap.api.noting import noting
from hepamap.api.routes import (
    analyses,
    audit,
    deliveries,
    events,
    health,
    maps,
    metrics,
    models,
    qupath,
    results,
    slides,
    uploads,
    verdicts,
)
from hepamap.api.schemas import AnalysisRequest, Problem
from hepamap.api.security import PUBLIC, Access, AccessGate
from hepamap.api.services import Services
from hepamap.api.tidying import tidying
from hepamap.api.verdict_schemas import VerdictRequest
from hepamap.api.views import API_PREFIX
from hepamap.api.waiting import JobWatch
from hepamap.jobs.store import JobStore
from hepamap.jobs.supervisor import SupervisorLimits, WorkerSupervisor
from hepamap.operations.finishing import finish_jobs
from hepamap.operations.folders import make_folders
from hepamap.operations.keeping import keeping_of
from hepamap.settings import Settings

_DESCRIPTION = f"""Finds hepatocellular carcinoma on H&E whole-slide images.

Ask for an analysis (`POST {API_PREFIX}/analyses`), follow its `Location` until its state is `succeeded`, then fetch its
contours (GeoJSON, as QuPath reads it) at any threshold, and its probability map. Whatever cannot be done is answered by a
problem document (RFC 9457) with a stable `code`, a sentence for a person, and a cure.

**{hepamap.RESEARCH_USE_ONLY}**"""

# Asked for where the setting `access` says so.
_CREDENTIALS: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`hm_…`), or a token of the identity provider."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}

WORKER_COMMAND = (sys.executable, "-m", "hepamap.worker")


def create_app(settings: Settings, *, worker_command: Sequence[str] = WORKER_COMMAND) -> FastAPI:
    """The server as an ASGI app. It opens the store and starts the worker when it is started, not before.

    Args:
        settings: all that can be set.
        worker_command: what is run as the embedded worker; its settings come by the environment.

    Raises:
        UnprotectedError: the settings would let anybody in.
    """
    require_protected(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        make_folders(settings)
        with (
            closing(JobStore.open(settings.database, on_finished=finish_jobs)) as store,
            closing(slide_children(settings.slide_open_s)) as readers,
            closing(outline_children()) as geometers,
        ):
            app.state.services = Services(settings, store, JobWatch(store.get), readers, geometers)
            app.state.readiness = health.Readiness()
            app.state.access = access = Access.of(settings, store.engine)
            trail = None if access.notes is None else access.notes.trail
            supervisor = _start_worker(settings, worker_command)
            try:
                async with delivering(app.state.services), noting(access.notes), tidying(store, keeping_of(settings), trail):
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
    _surround(app, settings)
    _add_routes(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


def _add_routes(app: FastAPI) -> None:
    versioned = APIRouter(prefix=API_PREFIX)
    for router in (
        analyses.router,
        results.router,
        maps.router,
        verdicts.router,
        events.router,
        deliveries.router,
        slides.router,
        uploads.router,
        models.router,
        audit.router,
    ):
        versioned.include_router(router)
    app.include_router(versioned)
    app.include_router(qupath.router)
    app.include_router(qupath.router, prefix=API_PREFIX, include_in_schema=False)
    app.include_router(health.router)
    app.include_router(metrics.router)


def _surround(app: FastAPI, settings: Settings) -> None:
    """What every request passes; the last one is the outermost, so that answers of the gate get their frame too."""
    app.state.metrics = RequestMetrics()
    app.add_middleware(AccessGate, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(RequestFrame, metrics=app.state.metrics, silence_s=settings.upload_silence_s)


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
            [
                (AnalysisRequest, "validation"),
                (Problem, "serialization"),
                (VerdictRequest, "validation"),
                (maps.MapAnswer, "serialization"),
                (events.EventAnswer, "serialization"),
            ],
            ref_template="#/components/schemas/{model}",
        )
        document["components"]["schemas"].update(extra["$defs"])
        document["components"]["securitySchemes"] = _CREDENTIALS
        document["security"] = [{name: []} for name in _CREDENTIALS]
        for path in PUBLIC:
            for operation in document["paths"][path].values():
                operation["security"] = []
        app.openapi_schema = document
    return app.openapi_schema
