"""What is to be told, and to whom: written with the end of a job, taken by the dispatcher, kept as a log."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BindParameter, case, delete, exists, literal, or_, select, update
from sqlalchemy.orm import Session

from hepamap.delivery.tables import AttemptRow, DeliveryRow
from hepamap.jobs.job import Job
from hepamap.jobs.sessions import Sessions
from hepamap.jobs.tables import UtcDateTime

EVENT = "analysis.finished"
"""The one kind of event that there is."""
DEFAULT_SECRET = "default"
"""Signs callbacks that name no secret."""

_BACK_OFF_S = (5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600)
# Longer than any attempt takes: who has taken a delivery and is silent for so long has died.
_LEASE_S = 120
_LOG_DAYS = 30


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. Times are UTC."""

    at: datetime
    seconds: float
    status: int | None
    """HTTP status of the answer; None where there was none."""
    error: str | None
    """Why it did not count; None where it did."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something to tell. Times are UTC."""

    id: str
    job_id: str
    url: str
    secret_id: str
    event: str
    body: str
    """The very text that is sent and signed."""
    state: DeliveryState
    attempts: int
    """Tries that were begun."""
    created_at: datetime
    next_at: datetime
    """When it is tried next, while it is pending."""
    log: tuple[Attempt, ...] = ()


def enqueue(session: Session, jobs: Sequence[Job]) -> None:
    """Write down what is to be told of jobs that finish; for the job store, in the transaction that finishes them."""
    for job in jobs:
        callback = callback_of(job.payload)
        if callback is not None:
            session.add(_row(job, callback, datetime.now(UTC)))


def callback_of(payload: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The callback that the client of a job asked for."""
    request: Mapping[str, Any] = payload.get("request") or {}
    callback: Mapping[str, Any] | None = request.get("callback")
    return callback


def _row(job: Job, callback: Mapping[str, Any], now: datetime) -> DeliveryRow:
    identifier = str(uuid.uuid4())
    # No more than that it has ended: what was found, and of whom, is for those to fetch who may.
    body = {
        "event": EVENT,
        "delivery": identifier,
        "created_at": now.isoformat(),
        "analysis": {
            "id": job.id,
            "state": job.state.value,
            "outcome": None if job.result is None else job.result.outcome,
            "error": None if job.failure is None else job.failure.code,
        },
    }
    return DeliveryRow(
        id=identifier,
        job_id=job.id,
        url=callback["url"],
        secret_id=callback.get("secret_id") or DEFAULT_SECRET,
        event=EVENT,
        body=json.dumps(body),
        state=DeliveryState.PENDING.value,
        attempts=0,
        created_at=now,
        next_at=now,
    )


class Outbox(Sessions):
    """The table; may be used by many threads and processes."""

    def take(self, limit: int) -> list[Delivery]:
        """Take what is due. Nobody else gets it for a while; where this process dies, it is due again after that."""
        now = self._clock()
        # A first try waits for no clock: the worker's, which wrote the time, may be ahead of this one, or was set back since.
        ripe = or_(DeliveryRow.next_at <= now, DeliveryRow.attempts == 0)
        due = (
            select(DeliveryRow.id)
            .where(DeliveryRow.state == DeliveryState.PENDING.value, ripe)
            .order_by(DeliveryRow.next_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(DeliveryRow)
            .where(DeliveryRow.id.in_(due.scalar_subquery()), ripe)
            .values(next_at=now + timedelta(seconds=_LEASE_S), attempts=DeliveryRow.attempts + 1)
            .returning(DeliveryRow)
        )
        with self.writing() as session:
            _forgive_the_future(session, now)
            return [_delivery(row) for row in session.scalars(statement, execution_options={"synchronize_session": False})]

    def settle(self, taken: Delivery, attempt: Attempt) -> DeliveryState:
        """Store how a try ended: done, to be tried again later, or given up; the state that follows."""
        if attempt.error is None:
            state = DeliveryState.DELIVERED
        elif taken.attempts > len(_BACK_OFF_S):
            state = DeliveryState.FAILED
        else:
            state = DeliveryState.PENDING
        now = self._clock()
        values: dict[str, Any] = {"state": state.value}
        if state is DeliveryState.PENDING:
            values["next_at"] = now + timedelta(seconds=_BACK_OFF_S[taken.attempts - 1])
        else:
            values["finished_at"] = now
        # Not where the lease ran out and another one has taken it since.
        mine = (DeliveryRow.id == taken.id, DeliveryRow.attempts == taken.attempts)
        with self.writing() as session:
            known = session.scalars(update(DeliveryRow).where(*mine).values(**values).returning(DeliveryRow.id)).first()
            if known is not None:
                session.add(
                    AttemptRow(
                        delivery_id=taken.id,
                        number=taken.attempts,
                        at=attempt.at,
                        seconds=attempt.seconds,
                        status=attempt.status,
                        error=attempt.error,
                    )
                )
        return state

    def of_job(self, job_id: str) -> list[Delivery]:
        """The deliveries of a job with their logs, oldest first."""
        with self.reading() as session:
            rows = session.scalars(select(DeliveryRow).where(DeliveryRow.job_id == job_id).order_by(DeliveryRow.created_at)).all()
            log = select(AttemptRow).where(AttemptRow.delivery_id.in_([row.id for row in rows])).order_by(AttemptRow.number)
            attempts = list(session.scalars(log))
            return [_delivery(row, [attempt for attempt in attempts if attempt.delivery_id == row.id]) for row in rows]

    def forget_old(self) -> None:
        """Remove what was settled long ago."""
        border = self._clock() - timedelta(days=_LOG_DAYS)
        with self.writing() as session:
            old = select(DeliveryRow.id).where(DeliveryRow.finished_at <= border)
            session.execute(delete(AttemptRow).where(AttemptRow.delivery_id.in_(old.scalar_subquery())))
            session.execute(delete(DeliveryRow).where(DeliveryRow.finished_at <= border))


def _forgive_the_future(session: Session, now: datetime) -> None:
    """Where the clock was set back, count what is left to wait from now on: else it would last until the clock has caught up."""

    def after(seconds: float) -> BindParameter[datetime]:
        return literal(now + timedelta(seconds=seconds), UtcDateTime)

    # A try that is under way, or whose process has died, waits for the lease; one that has ended, for the next.
    ended = exists().where(AttemptRow.delivery_id == DeliveryRow.id, AttemptRow.number == DeliveryRow.attempts)
    waits = [(DeliveryRow.attempts == number, after(seconds)) for number, seconds in enumerate(_BACK_OFF_S, 1)]
    latest = case((~ended, after(_LEASE_S)), *waits, else_=after(_LEASE_S))
    ahead = (DeliveryRow.state == DeliveryState.PENDING.value, DeliveryRow.attempts > 0, DeliveryRow.next_at > latest)
    session.execute(update(DeliveryRow).where(*ahead).values(next_at=latest), execution_options={"synchronize_session": False})


def _delivery(row: DeliveryRow, attempts: Sequence[AttemptRow] = ()) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        url=row.url,
        secret_id=row.secret_id,
        event=row.event,
        body=row.body,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at=row.created_at,
        next_at=row.next_at,
        log=tuple(Attempt(attempt.at, attempt.seconds, attempt.status, attempt.error) for attempt in attempts),
    )
