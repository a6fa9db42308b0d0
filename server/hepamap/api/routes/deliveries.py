"""The log of an analysis's callbacks."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from hepamap.api.routes.analyses import AnalysisId, find_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import Answer
from hepamap.api.services import ServicesOf
from hepamap.delivery.outbox import DeliveryState, Outbox

router = APIRouter(prefix="/analyses/{analysis_id}", tags=["analyses"])


class AttemptAnswer(Answer):
    """One try."""

    at: datetime = Field(description="When it began (UTC).")
    seconds: float = Field(description="How long it took, s.", examples=[0.12])
    status: int | None = Field(description="HTTP status of the answer; null where there was none.", examples=[204])
    error: str | None = Field(description="Why it did not count; null where it did.", examples=[None])


class DeliveryAnswer(Answer):
    """Something that is told."""

    id: str = Field(description="As in the header Hepamap-Delivery: the same in every try.")
    event: str = Field(description="What is told.", examples=["analysis.finished"])
    state: DeliveryState = Field(
        description="`pending`: it is tried, or tried again. `failed`: given up.", examples=["delivered"]
    )
    created_at: datetime = Field(description="When the analysis finished (UTC).")
    next_at: datetime | None = Field(description="When it is tried next (UTC); null where it is no longer tried.")
    attempts: list[AttemptAnswer] = Field(description="The tries that have ended, oldest first.")


class DeliveryList(Answer):
    """The callbacks of an analysis."""

    items: list[DeliveryAnswer] = Field(description="Oldest first; empty while it has not finished, or where nobody is told.")


@router.get("/deliveries", responses=problems(s404="There is no analysis of that id."))
def list_deliveries(analysis_id: AnalysisId, services: ServicesOf) -> DeliveryList:
    """Whether the system that asked was told, and what it answered."""
    job = find_analysis(analysis_id, services)
    return DeliveryList(
        items=[
            DeliveryAnswer(
                id=delivery.id,
                event=delivery.event,
                state=delivery.state,
                created_at=delivery.created_at,
                next_at=delivery.next_at if delivery.state is DeliveryState.PENDING else None,
                attempts=[AttemptAnswer.model_validate(attempt, from_attributes=True) for attempt in delivery.log],
            )
            for delivery in Outbox(services.store.engine).of_job(job.id)
        ]
    )
