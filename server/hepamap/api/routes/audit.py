"""The audit trail, for whoever watches over the server."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from hepamap.access.audit import AuditEntry, AuditTrail
from hepamap.api.audit_schemas import AuditEntryAnswer, AuditPage
from hepamap.api.routes.problems import problems
from hepamap.api.services import ServicesOf

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", responses=problems(s422="A parameter is not valid."))
def list_audit(
    services: ServicesOf,
    after: Annotated[int, Query(ge=0, le=2**62, description="Begin behind the entry of this number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> AuditPage:
    """Entries of the audit trail, oldest first. Note `head` somewhere else: with it nobody can rewrite what came before."""
    trail = AuditTrail(services.store.engine)
    return AuditPage(items=[_answer(entry) for entry in trail.page(after=after, limit=limit)], head=str(trail.head()))


def _answer(entry: AuditEntry) -> AuditEntryAnswer:
    return AuditEntryAnswer.model_validate(entry.to_json())
