"""An analysis as server-sent events: its state and progress as they change, until it has finished."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from hepamap.api.routes.analyses import AnalysisId, find_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import Answer, FailureAnswer, LinksAnswer, ProgressAnswer
from hepamap.api.services import Services, ServicesOf
from hepamap.api.views import analysis_answer
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Job
from hepamap.jobs.states import JobState

router = APIRouter(prefix="/analyses/{analysis_id}", tags=["analyses"])

_RECONNECT_MS = 2000


class EventAnswer(Answer):
    """The data of an event."""

    id: str = Field(description="The analysis.", examples=["5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"])
    state: JobState = Field(description="As of the analysis.", examples=["running"])
    outcome: str | None = Field(description="As of the analysis.", examples=[None])
    cancel_requested: bool = Field(description="As of the analysis.", examples=[False])
    progress: ProgressAnswer = Field(description="As of the analysis.")
    error: FailureAnswer | None = Field(description="As of the analysis.")
    links: LinksAnswer = Field(description="As of the analysis.")


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["state", "progress", "end", "gone"]},
        "id": {"type": "string", "description": "For `Last-Event-ID`."},
        "retry": {"type": "integer"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/EventAnswer"},
        },
    },
}


@router.get(
    "/events",
    response_class=Response,
    responses={
        200: {
            "description": "`state` whenever the state changes, `progress` in between, `end` with the final state, `gone` where "
            "the analysis was deleted (its data is an empty object). Comments keep the line open. After `end` and `gone` the "
            "stream ends.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "The client has seen the end (`Last-Event-ID`); it need not come back."},
        **problems(s404="There is no analysis of that id.", s422="`Last-Event-ID` is too long."),
    },
)
async def watch_analysis(
    analysis_id: AnalysisId,
    services: ServicesOf,
    last_event_id: Annotated[str, Header(description="The last event that the client has seen.", max_length=200)] = "",
) -> Response:
    """Follow an analysis; a client that comes back with `Last-Event-ID` is told only what is new."""
    job = await run_in_threadpool(find_analysis, analysis_id, services)
    if job.finished and _id_of(_event_of(job, services)) == last_event_id:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second for nginx, which would collect events
    return EventSourceResponse(_events(job, services, last_event_id), headers=headers)


async def _events(first: Job, services: Services, seen: str) -> AsyncIterator[bytes]:
    """The stream; it also ends when the server stops, and the client comes back to the next one."""
    yield format_sse_event(retry=_RECONNECT_MS)
    job: Job | None = first
    state: JobState | None = None
    spoke = time.monotonic()
    while job is not None:
        event = _event_of(job, services)
        identifier = _id_of(event)
        if identifier != seen:
            kind = "end" if job.finished else "progress" if job.state is state else "state"
            yield format_sse_event(event=kind, id=identifier, data_str=event.model_dump_json())
            seen, spoke = identifier, time.monotonic()
        elif time.monotonic() - spoke >= services.settings.events_heartbeat_s:
            # Proxies close what is silent, and only by writing does the server see that a client has gone.
            yield format_sse_event(comment="still here")
            spoke = time.monotonic()
        if job.finished or services.watch.closed:
            return
        state = job.state
        try:
            job = await services.watch.look(job.id)
        except JobStoreError:
            # The stream has begun, so that no status can say it; what is known stays true until the database is back.
            continue
    yield format_sse_event(event="gone", data_str="{}")


def _event_of(job: Job, services: Services) -> EventAnswer:
    return EventAnswer.model_validate(analysis_answer(job, services, in_list=True), from_attributes=True)


def _id_of(event: EventAnswer) -> str:
    """What tells an event from the one before; the time that is left changes with every look and says nothing new."""
    lasting = event.model_dump_json(exclude={"progress": {"eta_s"}})
    return hashlib.sha256(lasting.encode()).hexdigest()[:16]
