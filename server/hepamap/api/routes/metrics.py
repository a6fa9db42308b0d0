"""Metrics, for Prometheus."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request, Response

from hepamap.api.metrics import CONTENT_TYPE, Stored, exposition
from hepamap.api.routes.problems import problems
from hepamap.api.services import ServicesOf
from hepamap.operations import tallies

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus's text form.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(),
    },
)
def get_metrics(request: Request, services: ServicesOf) -> Response:
    """Queue length, finished analyses, seconds per stage, latency of this process's requests; nothing of slides or patients."""
    store, settings = services.store, services.settings
    with store.reading() as session:
        counted = tallies.read(session)
    stored = Stored(
        analyses=store.counts(),
        workers=len(store.workers(silent_for_s=settings.worker_stale_s)),
        tallies=counted,
        free_bytes=shutil.disk_usage(settings.data_dir).free,
    )
    return Response(exposition(request.app.state.metrics, stored), media_type=CONTENT_TYPE)
