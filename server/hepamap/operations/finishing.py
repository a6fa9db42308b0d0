"""What happens when jobs finish, in the same transaction, in whatever process they do."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from hepamap.delivery.outbox import enqueue
from hepamap.jobs.job import Job
from hepamap.operations.tallies import count_outcomes


def finish_jobs(session: Session, jobs: Sequence[Job]) -> None:
    """Count them, and write down whom to tell; for the job store."""
    count_outcomes(session, jobs)
    enqueue(session, jobs)
