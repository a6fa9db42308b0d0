"""Every question to, and every change of, the stored jobs.

Each change is one UPDATE that names the states it may start from, so two processes can never both make it: the second
finds no row. Nothing is read first and written later.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, case, delete, exists, or_, select, tuple_, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from hepamap.jobs.database import open_database
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Beat, Job, JobFailure, JobPage, JobProgress, JobResult, WorkerSeen
from hepamap.jobs.states import FINISHED, JobState, sources_of
from hepamap.jobs.tables import JobRow, WorkerRow

_WORKER_LOST = JobFailure(
    code="worker_lost",
    message="The worker process died every time it was given this analysis.",
    cure="The slide may need more memory than the server has. Ask the operator to look into the server's log.",
)
_NOT_STARTED = {"progress_done": 0, "progress_total": None, "progress_stage": "queued", "stage_started_at": None}


def _now() -> datetime:
    return datetime.now(UTC)


class JobStore:
    """The jobs in the database; may be used by many threads."""

    def __init__(self, engine: Engine, *, clock: Callable[[], datetime] = _now) -> None:
        self._engine = engine
        self._clock = clock

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], datetime] = _now) -> JobStore:
        """Open the store in an SQLite file, which is created or brought up to date.

        Raises:
            JobStoreError: it cannot be opened or written.
        """
        return cls(open_database(path), clock=clock)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # ---- clients -------------------------------------------------------------------------------------------------

    def add(self, *, kind: str, payload: Mapping[str, Any], key: str, priority: int = 0, job_id: str | None = None) -> Job:
        """Queue a job.

        Args:
            kind: which handler does it.
            payload: what the handler needs, as JSON.
            key: what the job computes.
            priority: higher comes first.
            job_id: a UUID where the caller needs to know it beforehand.
        """
        row = JobRow(
            id=job_id or str(uuid.uuid4()),
            key=key,
            kind=kind,
            payload=dict(payload),
            state=JobState.QUEUED.value,
            priority=priority,
            warnings=[],
            attempts=0,
            cancel_requested=False,
            created_at=self._clock(),
            **_NOT_STARTED,
        )
        with self._session() as session:
            session.add(row)
            session.flush()
            return _job(row)

    def get(self, job_id: str) -> Job | None:
        """The job of an id."""
        with self._session() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else _job(row)

    def page(self, *, state: JobState | None = None, limit: int = 50, before: tuple[datetime, str] | None = None) -> JobPage:
        """Jobs, newest first.

        Args:
            state: only those in this state.
            limit: at most so many.
            before: creation time and id of the last job of the page before.
        """
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(JobRow.state == state.value)
        if before is not None:
            query = query.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*before))
        with self._session() as session:
            jobs = [_job(row) for row in session.scalars(query)]
        return JobPage(tuple(jobs[:limit]), has_more=len(jobs) > limit)

    def request_cancel(self, job_id: str) -> Job | None:
        """Cancel a queued job at once, ask the worker of a running one to stop; a finished one stays as it is.

        Returns:
            The job as it is now, or None where there is no such job.
        """
        waiting = self._move(JobState.CANCELLED, JobRow.id == job_id, JobRow.state == JobState.QUEUED.value)
        if waiting is not None:
            return waiting
        with self._session() as session:
            session.execute(
                update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.RUNNING.value).values(cancel_requested=True)
            )
        return self.get(job_id)

    def delete_finished(self, job_id: str) -> bool:
        """Forget a finished job; False where there is none of that id."""
        with self._session() as session:
            deleted = session.scalars(
                delete(JobRow).where(JobRow.id == job_id, JobRow.state.in_(_values(FINISHED))).returning(JobRow.id)
            ).first()
        return deleted is not None

    def ping(self) -> None:
        """Ask the database something.

        Raises:
            JobStoreError: it does not answer.
        """
        with self._session() as session:
            session.execute(select(exists().where(JobRow.id == "")))

    # ---- workers -------------------------------------------------------------------------------------------------

    def claim(self) -> Job | None:
        """Take the next queued job, by priority, then by age; None where nothing waits."""
        next_id = (
            select(JobRow.id)
            .where(JobRow.state == JobState.QUEUED.value)
            .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        now = self._clock()
        return self._move(
            JobState.RUNNING,
            JobRow.id == next_id,
            lease=str(uuid.uuid4()),
            attempts=JobRow.attempts + 1,
            started_at=now,
            stage_started_at=now,
            heartbeat_at=now,
            progress_stage="starting",
        )

    def beat(self, job: Job, progress: JobProgress) -> Beat:
        """Report on a claimed job, and learn whether to go on."""
        now = self._clock()
        same_stage = JobRow.progress_stage == progress.stage
        statement = (
            update(JobRow)
            .where(*_held(job))
            .values(
                heartbeat_at=now,
                stage_started_at=case((same_stage, JobRow.stage_started_at), else_=now),
                progress_done=progress.done,
                progress_total=progress.total,
                progress_stage=progress.stage,
            )
            .returning(JobRow.cancel_requested)
        )
        with self._session() as session:
            cancel_requested = session.scalars(statement).first()
        return Beat(owned=cancel_requested is not None, cancel_requested=bool(cancel_requested))

    def succeed(self, job: Job, result: JobResult) -> bool:
        """Store what a claimed job came to; False where the claim is no longer valid."""
        moved = self._move(
            JobState.SUCCEEDED,
            *_held(job),
            outcome=result.outcome,
            warnings=[dict(warning) for warning in result.warnings],
            result_location=result.location,
        )
        return moved is not None

    def fail(self, job: Job, failure: JobFailure) -> bool:
        """Store why a claimed job failed; False where the claim is no longer valid."""
        return self._move(JobState.FAILED, *_held(job), **_failure_values(failure)) is not None

    def cancel(self, job: Job) -> bool:
        """Store that a claimed job stopped because a client asked for it; False where the claim is no longer valid."""
        return self._move(JobState.CANCELLED, *_held(job)) is not None

    def hand_back(self, job: Job) -> bool:
        """Put a claimed job back into the queue because its worker stops; that start does not count as an attempt."""
        return self._move(JobState.QUEUED, *_held(job), attempts=JobRow.attempts - 1) is not None

    def recover(self, *, attempts_max: int, silent_for_s: float | None = None) -> tuple[Job, ...]:
        """Settle the running jobs whose worker is gone: cancelled, failed after too many attempts, or queued again.

        Args:
            attempts_max: how often a job may be started.
            silent_for_s: a worker counts as gone after so many seconds without a heartbeat; None: every one is gone.

        Returns:
            The jobs that were settled, as they are now.
        """
        gone = JobRow.state == JobState.RUNNING.value
        if silent_for_s is not None:
            gone = and_(gone, JobRow.heartbeat_at <= self._clock() - timedelta(seconds=silent_for_s))
        with self._session() as session:
            ids = list(session.scalars(select(JobRow.id).where(gone)))
        settled = [self._settle(and_(JobRow.id == job_id, gone), attempts_max) for job_id in ids]
        return tuple(job for job in settled if job is not None)

    def _settle(self, gone: ColumnElement[bool], attempts_max: int) -> Job | None:
        return (
            self._move(JobState.CANCELLED, gone, JobRow.cancel_requested.is_(True))
            or self._move(JobState.FAILED, gone, JobRow.attempts >= attempts_max, **_failure_values(_WORKER_LOST))
            or self._move(JobState.QUEUED, gone)
        )

    def report_worker(self, worker: WorkerSeen) -> None:
        """Store a worker's sign of life."""
        with self._session() as session:
            session.merge(
                WorkerRow(
                    id=worker.id,
                    host=worker.host,
                    pid=worker.pid,
                    started_at=worker.started_at,
                    heartbeat_at=self._clock(),
                )
            )

    def forget_workers(self, *, silent_for_s: float, worker_id: str | None = None) -> None:
        """Remove workers that are gone: those silent for so long, and the one that says so itself."""
        silent = WorkerRow.heartbeat_at <= self._clock() - timedelta(seconds=silent_for_s)
        with self._session() as session:
            session.execute(delete(WorkerRow).where(or_(silent, WorkerRow.id == worker_id)))

    def workers(self, *, silent_for_s: float) -> tuple[WorkerSeen, ...]:
        """The workers that gave a sign of life within the last so many seconds."""
        recent = WorkerRow.heartbeat_at > self._clock() - timedelta(seconds=silent_for_s)
        with self._session() as session:
            rows = session.scalars(select(WorkerRow).where(recent).order_by(WorkerRow.id))
            return tuple(WorkerSeen(row.id, row.host, row.pid, row.started_at, row.heartbeat_at) for row in rows)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _move(self, target: JobState, *conditions: ColumnElement[bool], **values: Any) -> Job | None:
        """The only place that changes a state: from a state that the table allows, or not at all."""
        if target in FINISHED:
            values |= {"finished_at": self._clock(), "lease": None}
        elif target is JobState.QUEUED:
            values |= {**_NOT_STARTED, "started_at": None, "heartbeat_at": None, "lease": None}
        statement = (
            update(JobRow)
            .where(JobRow.state.in_(_values(sources_of(target))), *conditions)
            .values(state=target.value, **values)
            .returning(JobRow)
        )
        with self._session() as session:
            row = session.scalars(statement, execution_options={"synchronize_session": False}).first()
            return None if row is None else _job(row)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session, session.begin():
                yield session
        except OperationalError as error:
            raise JobStoreError(
                f"The job database does not answer: {error.orig}.",
                cure="Try again in a moment. If it stays so, the operator should look at the disk of the data folder.",
            ) from error


def _values(states: frozenset[JobState]) -> list[str]:
    return sorted(state.value for state in states)


def _held(job: Job) -> tuple[ColumnElement[bool], ...]:
    """The job is still running under the claim that this value came from."""
    return (JobRow.id == job.id, JobRow.state == JobState.RUNNING.value, JobRow.lease == job.lease)


def _failure_values(failure: JobFailure) -> dict[str, str]:
    return {"error_code": failure.code, "error_message": failure.message, "error_cure": failure.cure}


def _job(row: JobRow) -> Job:
    result = failure = None
    if row.outcome is not None and row.result_location is not None:
        result = JobResult(row.outcome, tuple(row.warnings), row.result_location)
    if row.error_code is not None:
        failure = JobFailure(row.error_code, row.error_message or "", row.error_cure or "")
    return Job(
        id=row.id,
        key=row.key,
        kind=row.kind,
        payload=row.payload,
        state=JobState(row.state),
        priority=row.priority,
        result=result,
        progress=JobProgress(row.progress_done, row.progress_total, row.progress_stage),
        failure=failure,
        attempts=row.attempts,
        lease=row.lease,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        stage_started_at=row.stage_started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
    )
