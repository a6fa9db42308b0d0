"""The open database as `claims` and `store` use it: transactions, the clock, and rows as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, TimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from hepamap.jobs.clock import asked_through, clock_of
from hepamap.jobs.database import begin_writing, open_database
from hepamap.jobs.errors import IdempotencyKeyReusedError, JobStoreError, unanswered
from hepamap.jobs.job import Computation, Idempotency, Job, JobFailure, JobProgress, JobResult
from hepamap.jobs.states import JobState
from hepamap.jobs.tables import ComputationRow, JobRow, Marked

T = TypeVar("T")
M = TypeVar("M", bound=Marked)

_TRIES = 3
NOT_STARTED: dict[str, Any] = {
    "progress_done": 0,
    "progress_total": None,
    "progress_stage": "queued",
    "stage_started_at": None,
}
"""The progress of a computation that waits."""


FinishHook = Callable[[Session, Sequence[Job]], None]
"""Called with jobs that finish, inside the transaction that finishes them: what it writes is stored if, and only if, they are."""


def _nothing(_session: Session, _jobs: Sequence[Job]) -> None:
    pass


class Sessions:
    """Transactions on the database; may be used by many threads."""

    def __init__(
        self, engine: Engine, *, clock: Callable[[], datetime] | None = None, on_finished: FinishHook = _nothing
    ) -> None:
        self.engine = engine
        self._clock = clock or clock_of(engine)
        self._on_finished = on_finished

    @classmethod
    def open(cls, place: Path | str, *, clock: Callable[[], datetime] | None = None, on_finished: FinishHook = _nothing) -> Self:
        """Open the database, which is created or brought up to date.

        Args:
            place: an SQLite file, or the URL of a PostgreSQL database.
            clock: another clock than the database's.
            on_finished: told of jobs that finish.

        Raises:
            JobStoreError: it cannot be opened or written.
        """
        return cls(open_database(place), clock=clock, on_finished=on_finished)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def now(self) -> datetime:
        """The time that all processes on this database agree on, UTC.

        Raises:
            JobStoreError: the database does not answer.
        """
        return self._clock()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads.

        Raises:
            JobStoreError: the database does not answer.
        """
        with self._session() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes; all of it is stored, or nothing.

        Raises:
            JobStoreError: the database does not answer.
            IntegrityError: another transaction was first.
        """
        with self._session() as session:
            begin_writing(session.connection())
            yield session

    def written(self, write: Callable[[Session], T], *, tries: int = _TRIES) -> T | None:
        """Do something in a transaction that writes; again where another one wrote the same in that moment, and can be found now.

        Returns:
            What it returns; None where another one was first each time, or what is referred to is gone.

        Raises:
            JobStoreError: the database does not answer.
        """
        for _ in range(tries):
            try:
                with self.writing() as session:
                    return write(session)
            except IntegrityError:
                continue
            except JobStoreError as error:
                if not error.overtaken:
                    raise
        return None

    @contextmanager
    def _session(self) -> Iterator[Session]:
        ending = False
        try:
            with Session(self.engine) as session, session.begin(), asked_through(session):
                yield session
                ending = True  # what goes wrong from here on may be nothing but the way of the answer
        except IntegrityError:
            raise
        except StaleDataError as error:
            raise too_busy(overtaken=True) from error
        except (DBAPIError, PendingRollbackError, TimeoutError) as error:
            cause = (error.orig if isinstance(error, DBAPIError) else None) or error
            raise unanswered(cause, perhaps_stored=ending) from error


def marked(session: Session, kind: type[M], idempotency: Idempotency | None) -> M | None:
    """The row of a mark that was here before; None for a new one, or none.

    Raises:
        IdempotencyKeyReusedError: it was here before, on another request.
    """
    if idempotency is None:
        return None
    row = session.scalars(select(kind).where(kind.idempotency_key == idempotency.key)).one_or_none()
    if row is not None and row.request_hash != idempotency.request_hash:
        raise IdempotencyKeyReusedError(
            "This Idempotency-Key was used before, for another request.",
            cure="Use a new key for a new request; to repeat the old one, send it unchanged.",
        )
    return row


def too_busy(*, overtaken: bool = False) -> JobStoreError:
    """Others were first, each time or, `overtaken`, this time."""
    return JobStoreError("The job database is too busy to take this request.", cure="Try again in a moment.", overtaken=overtaken)


def place_of_pieces() -> ColumnElement[str]:
    """Where the pieces of a computation lie, also of one that a server of an older version made."""
    return func.coalesce(func.nullif(ComputationRow.pieces, ""), ComputationRow.key)


def computation_of(row: ComputationRow) -> Computation:
    """A computation's row as a value."""
    return Computation(
        id=row.id,
        key=row.key,
        pieces=row.pieces or row.key,
        kind=row.kind,
        payload=row.payload,
        upload=row.upload,
        state=JobState(row.state),
        priority=row.priority,
        result=_result(row),
        progress=_progress(row),
        failure=_failure(row),
        attempts=row.attempts,
        lease=row.lease,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        stage_started_at=row.stage_started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
    )


def job_of(row: JobRow, work: ComputationRow, *, payload: dict[str, Any] | None = None) -> Job:
    """A job as its client sees it: as its computation stands, or cancelled, and then whatever becomes of the computation.

    Args:
        row: the job.
        work: its computation.
        payload: the job's, where it is not all of what is stored.
    """
    cancelled_at = row.cancelled_at
    own: dict[str, Any] = {
        "id": row.id,
        "computation_id": work.id,
        "key": work.key,
        "payload": row.payload if payload is None else payload,
        "upload": work.upload,
        "priority": row.priority,
        "created_at": row.created_at,
    }
    if cancelled_at is not None:
        return Job(
            **own,
            state=JobState.CANCELLED,
            result=None,
            progress=JobProgress(0, None, "cancelled"),
            failure=None,
            started_at=None,
            stage_started_at=None,
            finished_at=cancelled_at,
        )
    return Job(
        **own,
        state=JobState(work.state),
        result=_result(work),
        progress=_progress(work),
        failure=_failure(work),
        started_at=_not_before(row.created_at, work.started_at),
        stage_started_at=work.stage_started_at,
        finished_at=_not_before(row.created_at, work.finished_at),
    )


def failure_values(failure: JobFailure) -> dict[str, str]:
    """A failure as the columns that hold it."""
    return {"error_code": failure.code, "error_message": failure.message, "error_cure": failure.cure}


def _not_before(earliest: datetime, time: datetime | None) -> datetime | None:
    return None if time is None else max(earliest, time)


def _result(row: ComputationRow) -> JobResult | None:
    if row.outcome is None or row.result_location is None:
        return None
    return JobResult(row.outcome, tuple(row.warnings), row.result_location)


def _failure(row: ComputationRow) -> JobFailure | None:
    return None if row.error_code is None else JobFailure(row.error_code, row.error_message or "", row.error_cure or "")


def _progress(row: ComputationRow) -> JobProgress:
    return JobProgress(row.progress_done, row.progress_total, row.progress_stage)
