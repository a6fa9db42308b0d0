"""The clients' side of the job database: questions, jobs, what is left when jobs go.

A job is what one client asked for; a computation is what a worker does. Jobs with one key share one computation. Whoever
changes what a computation is wanted for holds its row's lock, so a job cannot join one that is being given up.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Engine,
    Select,
    Text,
    case,
    cast,
    delete,
    exists,
    func,
    null,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, defer

from hepamap.jobs.claims import Claims
from hepamap.jobs.database import is_postgresql
from hepamap.jobs.disposal import Place, dispose, keep
from hepamap.jobs.job import Idempotency, Job, JobPage, JobResult, Leftovers, Question, Submission
from hepamap.jobs.queue import wake_a_worker
from hepamap.jobs.sessions import NOT_STARTED, job_of, marked, place_of_pieces, too_busy
from hepamap.jobs.states import FINISHED, JobState
from hepamap.jobs.tables import ComputationRow, JobRow

_SUBMIT_TRIES = 10
_DELETED_AT_ONCE = 500  # databases take only so many parameters in one statement
_FINISHED = [state.value for state in FINISHED]

RemovalHook = Callable[[Session, Sequence[str]], None]
"""Called with the ids of jobs that expire, inside the transaction that removes them."""


def ignore_removed(_session: Session, _job_ids: Sequence[str]) -> None:
    """Nobody wants to know."""


def _always(_: object) -> bool:
    return True


class JobStore(Claims):
    """The jobs in the database; may be used by many threads."""

    # ---- asking --------------------------------------------------------------------------------------------------

    def submit(
        self,
        question: Question,
        *,
        idempotency: Idempotency | None = None,
        usable: Callable[[JobResult], bool] = _always,
        is_there: Callable[[str], bool] = _always,
    ) -> Submission:
        """Make a job of a question; it joins the computation of its key, or a new one is queued, in one transaction.

        Args:
            question: what is asked for.
            idempotency: the client's mark; where it was here before, its job is the answer.
            usable: whether a stored result is still there; one that is not answers nobody any more.
            is_there: whether an upload is; the question's own takes the place of one that is not.

        Raises:
            IdempotencyKeyReusedError: the mark was here before, on another request.
            JobStoreError: the database does not answer; `perhaps_stored` says that the job may be there all the same.
        """

        def ask(session: Session) -> Submission:
            repeated = _repeated(session, idempotency)
            if repeated is None:
                return self._submit(session, question, idempotency, usable, is_there)
            if question.upload is None:
                return repeated
            # None: it expired in this moment.
            work = session.get(ComputationRow, repeated.job.computation_id, with_for_update=True, populate_existing=True)
            return replace(repeated, shared=work is None or not self._given(session, work, question, is_there))

        submission = self.written(ask, tries=_SUBMIT_TRIES)
        if submission is None:
            raise too_busy()
        return submission

    def find_repeated(self, idempotency: Idempotency) -> Job | None:
        """The job of a mark that was here before, None for a new one.

        Raises:
            IdempotencyKeyReusedError: it was here before, on another request.
        """
        with self.reading() as session:
            repeated = _repeated(session, idempotency)
            return None if repeated is None else repeated.job

    def _submit(
        self,
        session: Session,
        question: Question,
        idempotency: Idempotency | None,
        usable: Callable[[JobResult], bool],
        is_there: Callable[[str], bool],
    ) -> Submission:
        now = self._clock()
        work = session.scalars(
            select(ComputationRow)
            .where(ComputationRow.shared_key == question.key)
            .options(defer(ComputationRow.payload, raiseload=True))
            .with_for_update()
        ).one_or_none()
        if work is not None and work.result_location is not None:
            result = JobResult(work.outcome or "", tuple(work.warnings), work.result_location)
            if not usable(result):
                work.shared_key = None
                session.flush()
                work = None
        shared = work is not None
        if work is None:
            work = _new_computation(session, question, now)
            session.add(work)
            session.flush()
            if question.upload is not None:
                keep(session, Place.UPLOADS, question.upload)
            wake_a_worker(session, work.priority)
        else:
            if work.state == JobState.QUEUED.value:
                work.priority = max(work.priority, question.priority)
            shared = not self._given(session, work, question, is_there)
        job = JobRow(
            id=str(uuid.uuid4()),
            computation_id=work.id,
            payload=dict(question.payload),
            priority=question.priority,
            idempotency_key=None if idempotency is None else idempotency.key,
            request_hash=None if idempotency is None else idempotency.request_hash,
            created_at=now,
        )
        session.add(job)
        session.flush()
        answer = job_of(job, work)
        if answer.finished:
            self._on_finished(session, [answer])
        return Submission(answer, repeated=False, shared=shared)

    def _given(self, session: Session, work: ComputationRow, question: Question, is_there: Callable[[str], bool]) -> bool:
        """Whether a computation takes the copy of the slide that came with a question, for all starts from now on.

        A file at a path may go before a worker has done with it, or before another one has to begin again; a copy that was
        sent stays until it is done.
        """
        if question.upload is None or work.key != question.key or work.state in _FINISHED:
            return False
        if work.upload is not None:
            if is_there(work.upload):
                return False
            # It may only have been out of sight.
            dispose(session, Place.UPLOADS, [work.upload], self._clock())
        work.payload, work.upload = dict(question.work), question.upload
        keep(session, Place.UPLOADS, question.upload)
        return True

    # ---- looking -------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job | None:
        """The job of an id."""
        with self.reading() as session:
            found = session.execute(_JOBS.where(JobRow.id == job_id)).one_or_none()
            return None if found is None else job_of(*found)

    def page(
        self,
        *,
        state: JobState | None = None,
        limit: int = 50,
        before: tuple[datetime, str] | None = None,
        without: Sequence[str] = (),
    ) -> JobPage:
        """Jobs, newest first.

        Args:
            state: only those in this state.
            limit: at most so many.
            before: creation time and id of the last job of the page before.
            without: way to a member of the payloads that stays in the database, as it can be large; none: all come whole.
        """
        content: ColumnElement[Any] = null()
        query = _JOBS
        if without:
            content = _without(self.engine, without)
            query = query.options(defer(JobRow.payload, raiseload=True))
        query = query.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(_STATE.in_([state.value]))
        if before is not None:
            query = query.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*before))
        with self.reading() as session:
            rows = session.execute(query.add_columns(content))
            jobs = [job_of(job, work, payload=payload) for job, work, payload in rows]
        return JobPage(tuple(jobs[:limit]), has_more=len(jobs) > limit)

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        query = select(_STATE, func.count()).join_from(JobRow, ComputationRow).group_by(_STATE)
        with self.reading() as session:
            found = {JobState(state): number for state, number in session.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def ping(self) -> None:
        """Ask the database something.

        Raises:
            JobStoreError: it does not answer.
        """
        with self.reading() as session:
            session.execute(select(exists().where(JobRow.id == "")))

    # ---- ending --------------------------------------------------------------------------------------------------

    def request_cancel(self, job_id: str) -> Job | None:
        """Cancel a job at once, whatever its worker does; a finished one stays as it is.

        The computation ends with the last job that wants it: a queued one now, a running one when its worker hears of it.

        Returns:
            The job as it is now, or None where there is no such job.
        """
        now = self._clock()
        with self.writing() as session:
            found = session.execute(_JOBS.where(JobRow.id == job_id).with_for_update()).one_or_none()
            if found is None:
                return None
            job, work = found
            if not job_of(job, work).finished:
                job.cancelled_at = now
                session.flush()
                self._give_up_unwanted(session, work)
                self._on_finished(session, [job_of(job, work)])
            return job_of(job, work)

    def _give_up_unwanted(self, session: Session, work: ComputationRow) -> None:
        """End a computation that no job waits for any more."""
        wanted = exists().where(JobRow.computation_id == work.id, JobRow.cancelled_at.is_(None))
        if session.scalar(select(wanted)):
            return
        waiting = ComputationRow.state == JobState.QUEUED.value
        if self._move_within(session, JobState.CANCELLED, ComputationRow.id == work.id, waiting) is None:
            work.cancel_requested, work.shared_key = True, None
            session.flush()

    def delete_finished(self, job_id: str) -> Leftovers | None:
        """Forget a finished job; None where there is none of that id.

        Returns:
            What nobody refers to any more, to be removed from the disk.
        """
        with self.writing() as session:
            found = session.execute(_JOBS.where(JobRow.id == job_id).with_for_update()).one_or_none()
            if found is None or not job_of(*found).finished:
                return None
            return _forget(session, [job_id], self._clock())

    def expire(
        self,
        before: datetime,
        *,
        at_most: int | None = None,
        dry_run: bool = False,
        on_removed: RemovalHook = ignore_removed,
    ) -> Leftovers:
        """Forget jobs that finished before a time, oldest first, and computations that no job refers to.

        Args:
            before: UTC.
            at_most: so many jobs; None: all. Nobody else writes meanwhile on SQLite, or into the audit trail.
            dry_run: change nothing, only say what would go.
            on_removed: told of the jobs that go.
        """
        over = case((JobRow.cancelled_at.is_not(None), JobRow.cancelled_at), else_=ComputationRow.finished_at)
        query = select(JobRow.id).join(ComputationRow).where(over < before, JobRow.created_at < before)
        query = query.order_by(JobRow.created_at, JobRow.id).limit(at_most)
        with self.writing() as session:
            leftovers = _forget(session, session.scalars(query).all(), self._clock())
            if dry_run:
                session.rollback()
            elif leftovers.jobs:
                on_removed(session, leftovers.jobs)
        return leftovers


# Without what the worker needs: a region can be megabytes, and is in the payload of the job too.
_JOBS: Select[JobRow, ComputationRow] = (
    select(JobRow, ComputationRow).join(ComputationRow).options(defer(ComputationRow.payload, raiseload=True))
)
_STATE: ColumnElement[str] = case((JobRow.cancelled_at.is_not(None), JobState.CANCELLED.value), else_=ComputationRow.state)


def _without(engine: Engine, way: Sequence[str]) -> ColumnElement[Any]:
    """The payload without one member, taken out by the database."""
    if is_postgresql(engine.url):
        removed: ColumnElement[Any] = cast(JobRow.payload, JSONB).op("#-")(cast(list(way), ARRAY(Text)))
    else:
        removed = func.json_remove(JobRow.payload, ".".join(["$", *way]))
    return type_coerce(removed, JSON)


def _repeated(session: Session, idempotency: Idempotency | None) -> Submission | None:
    row = marked(session, JobRow, idempotency)
    if row is None:
        return None
    found = session.execute(_JOBS.where(JobRow.id == row.id)).one()
    return Submission(job_of(*found), repeated=True, shared=True)


def _new_computation(session: Session, question: Question, now: datetime) -> ComputationRow:
    work_id = str(uuid.uuid4())
    unfinished = select(place_of_pieces()).where(ComputationRow.key == question.key, ComputationRow.state.not_in(_FINISHED))
    # Not those of one that has finished: they may have been left behind, and are no part of a fresh answer.
    going_on = None if question.anew else session.scalars(unfinished.order_by(ComputationRow.created_at.desc()).limit(1)).first()
    return ComputationRow(
        id=work_id,
        key=question.key,
        pieces=going_on or work_id,
        shared_key=question.key,
        kind=question.kind,
        payload=dict(question.work),
        upload=question.upload,
        state=JobState.QUEUED.value,
        priority=question.priority,
        warnings=[],
        attempts=0,
        cancel_requested=False,
        created_at=now,
        **NOT_STARTED,
    )


def _forget(session: Session, job_ids: Iterable[str], now: datetime) -> Leftovers:
    """Delete jobs, then the finished computations that have none left."""
    jobs = tuple(job_ids)
    for start in range(0, len(jobs), _DELETED_AT_ONCE):
        session.execute(delete(JobRow).where(JobRow.id.in_(jobs[start : start + _DELETED_AT_ONCE])))
    orphaned = ComputationRow.state.in_(_FINISHED) & ~exists().where(JobRow.computation_id == ComputationRow.id)
    # Locked first, and looked at again by a statement of its own: a job may have joined until then, and none can afterwards.
    locked = session.scalars(select(ComputationRow.id).where(orphaned).order_by(ComputationRow.id).with_for_update()).all()
    rows: list[Any] = []
    for start in range(0, len(locked), _DELETED_AT_ONCE):
        mine = ComputationRow.id.in_(locked[start : start + _DELETED_AT_ONCE])
        gone = session.execute(
            delete(ComputationRow)
            .where(mine, orphaned)
            .returning(ComputationRow.id, place_of_pieces(), ComputationRow.result_location, ComputationRow.upload),
            execution_options={"synchronize_session": False},
        )
        rows += gone
    ids, pieces, results, uploads = ({row[column] for row in rows} - {None} for column in range(4))
    uploads -= set(session.scalars(select(ComputationRow.upload).where(ComputationRow.upload.in_(uploads)).distinct()))
    # Whoever is killed before all files are gone has said which they are.
    for place, names in ((Place.RESULTS, ids), (Place.SCRATCH, pieces), (Place.UPLOADS, uploads)):
        dispose(session, place, names, now)
    return Leftovers(jobs, tuple(sorted(results)), tuple(sorted(uploads)))
