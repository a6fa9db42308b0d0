"""Analyses: ask for one, watch it, stop it, delete it."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from hepamap.api.cursors import cursor_after, is_identifier, position_of
from hepamap.api.errors import AnalysisNotFoundError
from hepamap.api.idempotency import IdempotencyKey
from hepamap.api.representations import etag_of, has_it, not_modified
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import AnalysisAnswer, AnalysisList
from hepamap.api.security import note_slide
from hepamap.api.services import Services, ServicesOf
from hepamap.api.submission import submit
from hepamap.api.uploads import receive
from hepamap.api.views import analysis_answer, analysis_path, chosen_of
from hepamap.api.waiting import wait_as_preferred
from hepamap.jobs.job import Job
from hepamap.jobs.retention import remove_leftovers
from hepamap.jobs.states import JobState

_log = structlog.stdlib.get_logger(__name__)

router = APIRouter(prefix="/analyses", tags=["analyses"])

Prefer = Annotated[
    str | None,
    Header(description="`wait=N`: answer when the analysis has finished, or after N seconds (RFC 7240).", examples=["wait=30"]),
]
AnalysisId = Annotated[str, Path(description="Id of the analysis.", examples=["5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"])]

# The endpoint reads the body itself (an upload goes straight to the disk), so it also describes it itself.
_REQUEST_SCHEMA = {"$ref": "#/components/schemas/AnalysisRequest"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _REQUEST_SCHEMA},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "request": _REQUEST_SCHEMA,
                        "file": {"type": "string", "format": "binary", "description": "The slide, one file."},
                    },
                },
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }
}


@router.post(
    "",
    status_code=202,
    response_model=AnalysisAnswer,
    openapi_extra=_BODY,
    responses={
        200: {"description": "It has finished within the time that the client preferred to wait (`Prefer: wait=N`)."},
        202: {
            "description": "It is queued; or finished already, where the same was computed before.",
            "headers": {"Location": {"description": "The analysis.", "schema": {"type": "string"}}},
        },
        **problems(
            s403="The path is not inside a slide folder, or the server may not read the file.",
            s404="There is no such slide, or no such model.",
            s409="The slide is not the one that the client has open.",
            s413="The slide, or the JSON, is larger than the server takes.",
            s415="The body is neither JSON nor multipart.",
            s422="The slide, the region or a parameter cannot be used, the request is not valid, or its Idempotency-Key was used "
            "for another one.",
            s507="There is no room for the slide.",
        ),
    },
)
async def create_analysis(
    request: Request,
    response: Response,
    services: ServicesOf,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> AnalysisAnswer:
    """Ask for an analysis of a slide on the server (`slide.path`) or of an uploaded one (`file`).

    A question that was answered before, or is being computed, is not computed again: the new analysis shares the result.
    """
    received = await receive(request, services.uploads)
    submission = await run_in_threadpool(submit, received, services, idempotency_key=idempotency_key, caller=request.state.caller)
    job = submission.job
    note_slide(request, job.payload["fingerprint"])
    _log.info(
        "analysis_queued", job=job.id, computation=job.computation_id, shared=submission.shared, repeated=submission.repeated
    )
    job = await wait_as_preferred(job, prefer, response, services.watch, services.settings.wait_max_s)
    if job.finished and "preference-applied" in response.headers:
        response.status_code = 200
    response.headers["Location"] = analysis_path(job)
    return analysis_answer(job, services, chosen=await run_in_threadpool(chosen_of, job, services))


@router.get("", responses=problems(s422="A parameter is not valid."))
def list_analyses(
    services: ServicesOf,
    state: Annotated[JobState | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="At most so many.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> AnalysisList:
    """Analyses, newest first."""
    page = services.store.page(
        state=state, limit=limit, before=None if cursor is None else position_of(cursor), without=("request", "region")
    )
    chosen = services.thresholds.of(job.id for job in page.jobs)
    return AnalysisList(
        items=[analysis_answer(job, services, in_list=True, chosen=chosen.get(job.id)) for job in page.jobs],
        next_cursor=cursor_after(page.jobs[-1]) if page.has_more else None,
    )


@router.get(
    "/{analysis_id}",
    response_model=AnalysisAnswer,
    responses={
        304: {"description": "It is as the client has it (`If-None-Match`)."},
        **problems(s404="There is no analysis of that id."),
    },
)
async def get_analysis(
    analysis_id: AnalysisId, request: Request, response: Response, services: ServicesOf, prefer: Prefer = None
) -> AnalysisAnswer | Response:
    """One analysis as it stands, or as it stands once it has finished (`Prefer: wait=N`)."""
    job = await run_in_threadpool(find_analysis, analysis_id, services)
    job = await wait_as_preferred(job, prefer, response, services.watch, services.settings.wait_max_s)
    answer = analysis_answer(job, services, chosen=await run_in_threadpool(chosen_of, job, services))
    # The time that is left changes with every look, and says nothing new.
    etag = etag_of(answer.model_dump_json(exclude={"progress": {"eta_s"}}))
    if has_it(request.headers, etag):
        return not_modified(etag)
    response.headers["ETag"] = etag
    return answer


@router.delete(
    "/{analysis_id}",
    status_code=202,
    response_model=AnalysisAnswer,
    responses={
        202: {"description": "It waited or ran, and is cancelled now."},
        204: {
            "description": "It was finished and is gone; with it its result and its slide, unless another analysis has them too. "
            "Verdicts on it stay."
        },
        **problems(s404="There is no analysis of that id."),
    },
)
def delete_analysis(analysis_id: AnalysisId, services: ServicesOf) -> AnalysisAnswer | Response:
    """Cancel an analysis that waits or runs; delete one that is finished, with its result and its upload."""
    before = find_analysis(analysis_id, services)
    if not before.finished:
        job = services.store.request_cancel(analysis_id)
        if job is None:
            raise unknown_analysis(analysis_id)
        return analysis_answer(job, services)
    leftovers = services.store.delete_finished(analysis_id)
    if leftovers is not None:
        # A crash in between leaves files that nobody refers to; `hepamap gc` finds those.
        remove_leftovers(leftovers, services.settings.results_dir, services.settings.uploads_dir)
        _log.info("analysis_deleted", job=analysis_id)
    return Response(status_code=204)


def find_analysis(analysis_id: str, services: Services) -> Job:
    """The job of an analysis.

    Raises:
        AnalysisNotFoundError: there is none.
    """
    job = services.store.get(analysis_id) if is_identifier(analysis_id) else None
    if job is None:
        raise unknown_analysis(analysis_id)
    return job


def unknown_analysis(analysis_id: str) -> AnalysisNotFoundError:
    """There is no analysis of this id."""
    return AnalysisNotFoundError(
        f"There is no analysis {analysis_id!r}.", cure="Check the id; the analysis may have been deleted."
    )
