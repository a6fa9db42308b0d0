"""The workers' side of the job database: claims, leases, heartbeats, ends.

Each change is one UPDATE that names the states it may start from, so two processes can never both make it: the second
finds no row. Nothing is read first and written later.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from hepamap.jobs.job import Beat, Computation, JobFailure, JobProgress, JobResult, WorkerSeen
from hepamap.jobs.queue import wake_a_worker
from hepamap.jobs.sessions import NOT_STARTED, Sessions, computation_of, failure_values, job_of, place_of_pieces
from hepamap.jobs.states import FINISHED, JobState, sources_of
from hepamap.jobs.tables import ComputationRow, JobRow, WorkerRow

_WORKER_LOST = JobFailure(
    code="worker_lost",
    message="The worker process died or got stuck each time that it was given this analysis, without getting any further.",
    cure="The slide may need more memory than the server has, or lie where it cannot be read at times. "
    "Ask the operator to look into the server's log.",
)


class Claims(Sessions):
    """What workers do with computations."""

    def claim(self) -> Computation | None:
        """Take the next queued computation, by priority, then by age; None where nothing waits."""
        next_id = (
            select(ComputationRow.id)
            .where(ComputationRow.state == JobState.QUEUED.value)
            .order_by(ComputationRow.priority.desc(), ComputationRow.created_at, ComputationRow.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        now = self._clock()
        return self._move(
            JobState.RUNNING,
            ComputationRow.id == next_id,
            lease=str(uuid.uuid4()),
            attempts=ComputationRow.attempts + 1,
            starts_in_vain=ComputationRow.starts_in_vain + 1,
            started_at=now,
            stage_started_at=now,
            heartbeat_at=now,
            progress_stage="starting",
        )

    def computation(self, work_id: str) -> Computation | None:
        """The computation of an id, as it is now."""
        with self.reading() as session:
            row = session.get(ComputationRow, work_id)
            return None if row is None else computation_of(row)

    def wanted(self, pieces: str) -> bool:
        """Whether a computation that may go on from these pieces waits or runs."""
        unfinished = (place_of_pieces() == pieces) & ComputationRow.state.not_in([state.value for state in FINISHED])
        with self.reading() as session:
            return bool(session.scalar(select(exists().where(unfinished))))

    def beat(self, work: Computation, progress: JobProgress, *, kept: bool = False) -> Beat:
        """Report on a claimed computation, and learn whether to go on.

        Args:
            work: the computation, as it was claimed.
            progress: how far it is.
            kept: whether this start has stored something that the next one need not do again.
        """
        now = self._clock()
        same_stage = ComputationRow.progress_stage == progress.stage
        statement = (
            update(ComputationRow)
            .where(*_held(work))
            .values(
                heartbeat_at=now,
                stage_started_at=case((same_stage, ComputationRow.stage_started_at), else_=now),
                progress_done=progress.done,
                progress_total=progress.total,
                progress_stage=progress.stage,
                **({"starts_in_vain": 0} if kept else {}),
            )
            .returning(ComputationRow.cancel_requested)
        )
        with self.writing() as session:
            cancel_requested = session.scalars(statement).first()
        return Beat(owned=cancel_requested is not None, cancel_requested=bool(cancel_requested))

    def succeed(self, work: Computation, result: JobResult) -> bool:
        """Store what a claimed computation came to; False where the claim is no longer valid."""
        moved = self._move(
            JobState.SUCCEEDED,
            *_held(work),
            outcome=result.outcome,
            warnings=[dict(warning) for warning in result.warnings],
            result_location=result.location,
        )
        return moved is not None

    def fail(self, work: Computation, failure: JobFailure) -> bool:
        """Store why a claimed computation failed; False where the claim is no longer valid."""
        return self._move(JobState.FAILED, *_held(work), **failure_values(failure)) is not None

    def cancel(self, work: Computation) -> bool:
        """Store that a claimed computation stopped because nobody waits for it; False where the claim is no longer valid."""
        return self._move(JobState.CANCELLED, *_held(work)) is not None

    def hand_back(self, work: Computation) -> bool:
        """Put a claimed computation back into the queue because its worker stops; that start does not count."""
        in_vain = ComputationRow.starts_in_vain
        uncounted = case((in_vain > 0, in_vain - 1), else_=in_vain)
        moved = self._move(JobState.QUEUED, *_held(work), attempts=ComputationRow.attempts - 1, starts_in_vain=uncounted)
        return moved is not None

    def recover(self, *, attempts_max: int, silent_for_s: float | None = None) -> tuple[Computation, ...]:
        """Settle the running computations whose worker is gone: cancelled, failed, or queued again.

        Args:
            attempts_max: how often in a row a computation may be started in vain; a start that stored something is not.
            silent_for_s: a worker counts as gone after so many seconds without a heartbeat; None: every one is gone.

        Returns:
            The computations that were settled, as they are now.
        """
        gone = ComputationRow.state == JobState.RUNNING.value
        if silent_for_s is not None:
            self._forgive_the_future(silent_for_s)
            gone = and_(gone, ComputationRow.heartbeat_at <= self._clock() - timedelta(seconds=silent_for_s))
        with self.reading() as session:
            ids = list(session.scalars(select(ComputationRow.id).where(gone)))
        settled = [self._settle(and_(ComputationRow.id == work_id, gone), attempts_max) for work_id in ids]
        return tuple(work for work in settled if work is not None)

    def _forgive_the_future(self, silent_for_s: float) -> None:
        """Where the clock was set back, count signs of life from now on: else the dead would live until it has caught up."""
        now = self._clock()
        for row in (ComputationRow, WorkerRow):
            ahead = row.heartbeat_at > now + timedelta(seconds=silent_for_s)
            with self.reading() as session:
                if not session.scalar(select(exists().where(ahead))):
                    continue
            with self.writing() as session:
                session.execute(update(row).where(ahead).values(heartbeat_at=now))

    def _settle(self, gone: ColumnElement[bool], attempts_max: int) -> Computation | None:
        return (
            self._move(JobState.CANCELLED, gone, ComputationRow.cancel_requested.is_(True))
            or self._move(JobState.FAILED, gone, ComputationRow.starts_in_vain >= attempts_max, **failure_values(_WORKER_LOST))
            or self._move(JobState.QUEUED, gone)
        )

    # ---- workers themselves --------------------------------------------------------------------------------------

    def report_worker(self, worker: WorkerSeen) -> None:
        """Store a worker's sign of life; where another one takes the row off the list in that moment, it is put on again."""
        self.written(
            lambda session: session.merge(
                WorkerRow(
                    id=worker.id,
                    host=worker.host,
                    pid=worker.pid,
                    started_at=worker.started_at,
                    heartbeat_at=self._clock(),
                    trouble=worker.trouble,
                )
            )
        )

    def forget_workers(self, *, silent_for_s: float, worker_id: str | None = None) -> None:
        """Remove workers that are gone: those silent for so long, and the one that says so itself."""
        self._forgive_the_future(silent_for_s)
        silent = WorkerRow.heartbeat_at <= self._clock() - timedelta(seconds=silent_for_s)
        with self.writing() as session:
            session.execute(delete(WorkerRow).where(or_(silent, WorkerRow.id == worker_id)))

    def workers(self, *, silent_for_s: float) -> tuple[WorkerSeen, ...]:
        """The workers that gave a sign of life within the last so many seconds."""
        recent = WorkerRow.heartbeat_at > self._clock() - timedelta(seconds=silent_for_s)
        with self.reading() as session:
            rows = session.scalars(select(WorkerRow).where(recent).order_by(WorkerRow.id))
            return tuple(WorkerSeen(row.id, row.host, row.pid, row.started_at, row.heartbeat_at, row.trouble) for row in rows)

    # ---- inside --------------------------------------------------------------------------------------------------

    def _move(self, target: JobState, *conditions: ColumnElement[bool], **values: Any) -> Computation | None:
        """Change a state in a transaction of its own."""
        with self.writing() as session:
            row = self._move_within(session, target, *conditions, **values)
            return None if row is None else computation_of(row)

    def _move_within(
        self, session: Session, target: JobState, *conditions: ColumnElement[bool], **values: Any
    ) -> ComputationRow | None:
        """The only place that changes a state: from a state that the table allows, or not at all."""
        if target in FINISHED:
            values |= {"finished_at": self._clock(), "lease": None}
        elif target is JobState.QUEUED:
            values |= {**NOT_STARTED, "started_at": None, "heartbeat_at": None, "lease": None}
        if target in (JobState.FAILED, JobState.CANCELLED):
            # Who asks the same again gets another try, and not the old failure.
            values["shared_key"] = None
        statement = (
            update(ComputationRow)
            .where(ComputationRow.state.in_([state.value for state in sources_of(target)]), *conditions)
            .values(state=target.value, **values)
            .returning(ComputationRow)
        )
        options = {"synchronize_session": False, "populate_existing": True}
        row = session.scalars(statement, execution_options=options).first()
        if row is not None and target is JobState.QUEUED:
            wake_a_worker(session, row.priority)
        if row is not None and target in FINISHED:
            waiting = select(JobRow).where(JobRow.computation_id == row.id, JobRow.cancelled_at.is_(None))
            self._on_finished(session, [job_of(job, row) for job in session.scalars(waiting)])
        return row


def _held(work: Computation) -> tuple[ColumnElement[bool], ...]:
    """It is still running under the claim that this value came from."""
    return (ComputationRow.id == work.id, ComputationRow.state == JobState.RUNNING.value, ComputationRow.lease == work.lease)
