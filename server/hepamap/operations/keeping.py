"""How long things are kept, by the settings; and how it is written down that they go."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.jobs.keeping import Keeping
from hepamap.jobs.store import RemovalHook
from hepamap.settings import Settings


def keeping_of(settings: Settings) -> Keeping:
    """What the settings say."""
    return Keeping(
        results=settings.results_dir,
        uploads=settings.uploads_dir,
        scratch=settings.scratch_dir,
        results_days=settings.keep_results_days,
        uploads_days=settings.keep_uploads_days,
    )


def noted_in(trail: AuditTrail, actor: str) -> RemovalHook:
    """Write each analysis that expires into the audit trail, in the transaction that removes it."""

    def note(session: Session, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            trail.append_within(session, AuditEvent(actor, "analyses.expire", 200, object=job_id))

    return note
