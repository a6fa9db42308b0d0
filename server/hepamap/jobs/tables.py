"""The tables of the job database; `migrations` creates them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, DateTime, Dialect, ForeignKey, Index, MetaData, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hepamap.jobs.states import JobState


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone on this side, plain UTC on the database's: SQLite stores no zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Into the database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Out of the database."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables."""

    # Named constraints: a later migration can only change what has a name.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        }
    )


class ComputationRow(Base):
    """What a worker does; see `job.Computation`."""

    __tablename__ = "computations"
    __table_args__ = (
        CheckConstraint(f"state IN ({', '.join(repr(state.value) for state in JobState)})", name="state"),
        Index("ix_computations_queue", "state", "priority", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    shared_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    """The key as long as further jobs may join, else null: at most one computation of a key is open to others."""
    pieces: Mapped[str] = mapped_column(String(64), server_default="")
    """Empty where a server of an older version made the row, whose workers have them at the key; see `place_of_pieces`."""
    kind: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    upload: Mapped[str | None] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int]
    outcome: Mapped[str | None] = mapped_column(String(32))
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    result_location: Mapped[str | None] = mapped_column(Text)
    progress_done: Mapped[int]
    progress_total: Mapped[int | None]
    progress_stage: Mapped[str] = mapped_column(String(64))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_cure: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int]
    starts_in_vain: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many of the last starts, this one among them, have stored nothing that the next one need not do again."""
    lease: Mapped[str | None] = mapped_column(String(36))
    cancel_requested: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    stage_started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Marked:
    """What a client may mark with a key of its own, so that sending it again does nothing new; see `job.Idempotency`."""

    idempotency_key: Mapped[str | None] = mapped_column(String(512), unique=True)
    request_hash: Mapped[str | None] = mapped_column(String(64))


class JobRow(Marked, Base):
    """What a client asked for; see `job.Job`."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_created_at_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    computation_id: Mapped[str] = mapped_column(ForeignKey(ComputationRow.id), index=True)
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    priority: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class QueueSchemaRow(Base):
    """Which changes of the queue's own schema PostgreSQL has seen; see `queue`."""

    __tablename__ = "queue_schema"

    version: Mapped[str] = mapped_column(String(128), primary_key=True)


class DisposableRow(Base):
    """Something on the disk that this database made, and nobody needs any more, or yet; see `disposal`."""

    __tablename__ = "disposables"

    place: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class WorkerRow(Base):
    """A worker process; see `job.WorkerSeen`."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime)
    trouble: Mapped[str | None] = mapped_column(String(200))
