"""What people say about results: verdicts, and the threshold that they chose."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
import shapely
import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from shapely.geometry import mapping, shape
from starlette.concurrency import run_in_threadpool

from hepamap.api.cursors import cursor_at, in_utc, is_identifier, position_of
from hepamap.api.idempotency import IdempotencyKey
from hepamap.api.judgement import judge
from hepamap.api.routes.analyses import AnalysisId, find_analysis, unknown_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import AnalysisAnswer, FrameAnswer
from hepamap.api.security import note_slide
from hepamap.api.services import ServicesOf
from hepamap.api.stored import require_finished
from hepamap.api.uploads import receive_json
from hepamap.api.verdict_schemas import (
    ThresholdRequest,
    VerdictAnswer,
    VerdictList,
    VerdictPageAnswer,
    VerdictWithGeometry,
)
from hepamap.api.views import API_PREFIX, analysis_answer
from hepamap.geometry import Point
from hepamap.results import Frame, frame_json, require_threshold
from hepamap.verdicts.errors import VerdictNotFoundError
from hepamap.verdicts.verdict import Verdict

_log = structlog.stdlib.get_logger(__name__)

router = APIRouter(tags=["verdicts"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/VerdictRequest"}}},
    }
}


@router.put(
    "/analyses/{analysis_id}/threshold",
    responses=problems(
        s400="The body cannot be read as text.",
        s404="There is no analysis of that id.",
        s409="It has no result (yet).",
        s422="The threshold is not a probability, or the request is not valid.",
    ),
)
def put_threshold(analysis_id: AnalysisId, wanted: ThresholdRequest, request: Request, services: ServicesOf) -> AnalysisAnswer:
    """Write back the threshold that a person chose; contours come at it from now on, unless another one is asked for."""
    job = find_analysis(analysis_id, services)
    require_finished(job, services)
    require_threshold(wanted.threshold)
    note_slide(request, job.payload["fingerprint"])
    chosen = services.thresholds.choose(job.id, wanted.threshold, user=wanted.user, actor=request.state.caller)
    if chosen is None:
        raise unknown_analysis(analysis_id)
    return analysis_answer(job, services, chosen=chosen)


@router.post(
    "/analyses/{analysis_id}/verdicts",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        201: {
            "description": "It is stored; or was, by the same request sent before.",
            "headers": {"Location": {"description": "The verdict.", "schema": {"type": "string"}}},
        },
        **problems(
            s404="There is no analysis of that id.",
            s409="It has no result (yet), or none that could be accepted.",
            s413="The JSON is larger than the server takes.",
            s415="The body is not JSON.",
            s422="The geometry or the threshold cannot be used, the request is not valid, or its Idempotency-Key was used for "
            "another one.",
        ),
    },
)
async def post_verdict(
    analysis_id: AnalysisId,
    request: Request,
    response: Response,
    services: ServicesOf,
    idempotency_key: IdempotencyKey = None,
) -> VerdictAnswer:
    """Say what a person thinks of the contours. Verdicts are appended and never changed; the last one counts."""
    job = await run_in_threadpool(find_analysis, analysis_id, services)
    note_slide(request, job.payload["fingerprint"])
    body = await receive_json(request, services.settings.max_request_bytes)
    actor = request.state.caller
    verdict = await run_in_threadpool(judge, body, job, services, actor=actor, idempotency_key=idempotency_key)
    # Neither who nor why: names and reasons are in the database, for those who may read them.
    _log.info("verdict", job=job.id, verdict=verdict.id, decision=verdict.opinion.decision.value)
    response.headers["Location"] = f"{API_PREFIX}/verdicts/{verdict.id}"
    return VerdictAnswer(**_members(verdict))


@router.get("/analyses/{analysis_id}/verdicts", responses=problems(s404="There is no analysis of that id."))
def list_verdicts_of_analysis(analysis_id: AnalysisId, services: ServicesOf) -> VerdictList:
    """The verdicts on one analysis, oldest first; they stay when the analysis is deleted."""
    verdicts = services.verdicts.of_job(analysis_id) if is_identifier(analysis_id) else ()
    if not verdicts:
        find_analysis(analysis_id, services)
    return VerdictList(items=[VerdictAnswer(**_members(verdict)) for verdict in verdicts])


@router.get("/verdicts", responses=problems(s422="A parameter is not valid."))
def list_verdicts(
    services: ServicesOf,
    since: Annotated[
        datetime | None, Query(description="Only those of this time or later (ISO 8601).", examples=["2026-01-31T08:00:00Z"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> VerdictPageAnswer:
    """Verdicts on all analyses, oldest first."""
    page = services.verdicts.page(
        since=None if since is None else in_utc(since), limit=limit, after=None if cursor is None else position_of(cursor)
    )
    last = page.verdicts[-1] if page.has_more else None
    return VerdictPageAnswer(
        items=[VerdictAnswer(**_members(verdict)) for verdict in page.verdicts],
        next_cursor=None if last is None else cursor_at(last.at, last.id),
    )


@router.get(
    "/verdicts/{verdict_id}", responses=problems(s404="There is no verdict of that id.", s422="A parameter is not valid.")
)
def get_verdict(
    verdict_id: Annotated[str, Path(description="Id of the verdict.", examples=["0c7a4f6e-3f39-4c88-a9a1-7b8c5b0f4f10"])],
    services: ServicesOf,
    frame: Annotated[
        Literal["client", "level0"], Query(description="Frame of the geometry: that of the analysis, or level 0.")
    ] = "client",
) -> VerdictWithGeometry:
    """One verdict, with the final tumour area."""
    verdict = services.verdicts.get(verdict_id) if is_identifier(verdict_id) else None
    if verdict is None:
        raise VerdictNotFoundError(f"There is no verdict {verdict_id!r}.", cure="Check the id.")
    own = verdict.slide.frame if frame == "client" else Frame("level0", Point(0.0, 0.0))
    geometry = verdict.opinion.geometry_l0
    return VerdictWithGeometry(
        **_members(verdict),
        frame=FrameAnswer.model_validate(frame_json(own)),
        geometry=None if geometry is None else _moved(geometry, own.offset_l0),
    )


def _members(verdict: Verdict) -> dict[str, Any]:
    opinion = verdict.opinion
    return {
        "id": verdict.id,
        "analysis": verdict.job_id,
        "at": verdict.at,
        "decision": opinion.decision,
        "reason": opinion.reason,
        "user": opinion.user,
        "actor": verdict.actor,
        "threshold": opinion.threshold,
        "min_area_um2": opinion.min_area_um2,
        "iou": opinion.iou,
        "area_mm2": opinion.area_mm2,
        "slide": verdict.slide.fingerprint,
        "model": f"{verdict.model.id}@{verdict.model.version}",
    }


def _moved(geometry_l0: Any, offset_l0: Point) -> dict[str, Any]:
    if not geometry_l0["coordinates"]:
        return dict(geometry_l0)
    moved = shapely.transform(shape(geometry_l0), lambda points: (points - np.array([offset_l0.x, offset_l0.y])).round(2) + 0.0)
    return dict(mapping(moved))
