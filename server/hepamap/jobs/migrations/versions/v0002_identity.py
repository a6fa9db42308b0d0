"""What a client asked for and what is computed for it become two tables, so that equal questions share one computation."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Split `jobs`; every job that is there keeps its id, and has its computation for itself."""
    old = _old_rows()
    # Indexes and constraints cannot keep names that the new table needs, so the old table goes first.
    op.drop_table("jobs")
    _create_computations()
    _create_jobs()
    # Which release of the queue's own schema this database has; empty on SQLite, which needs no queue.
    op.create_table("queue_schema", sa.Column("version", sa.String(128), primary_key=True))
    _fill(old)


def _old_rows() -> list[dict[str, Any]]:
    return [dict(row) for row in op.get_bind().execute(_old_table().select()).mappings()]


def _old_table() -> sa.TableClause:
    return sa.table("jobs", *(sa.column(name, kind) for name, kind, _ in (*_IDENTITY, *_WORK)))


def _create_computations() -> None:
    op.create_table(
        "computations",
        *(sa.Column(name, kind, nullable=nullable) for name, kind, nullable in (*_IDENTITY, *_WORK)),
        sa.Column("shared_key", sa.String(64)),
        sa.Column("upload", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_computations"),
        sa.UniqueConstraint("shared_key", name="uq_computations_shared_key"),
        sa.CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="ck_computations_state"),
    )
    op.create_index("ix_computations_queue", "computations", ["state", "priority", "created_at"])
    op.create_index("ix_computations_upload", "computations", ["upload"])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("computation_id", sa.String(36), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.String(512)),
        sa.Column("request_hash", sa.String(64)),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("cancelled_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("idempotency_key", name="uq_jobs_idempotency_key"),
        sa.ForeignKeyConstraint(["computation_id"], ["computations.id"], name="fk_jobs_computation_id_computations"),
    )
    op.create_index("ix_jobs_computation_id", "jobs", ["computation_id"])
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])


def _fill(old: list[dict[str, Any]]) -> None:
    columns = [sa.column(name, kind) for name, kind, _ in (*_IDENTITY, *_WORK)]
    computations = sa.table("computations", *columns, sa.column("upload", sa.String))
    jobs = sa.table(
        "jobs",
        *(sa.column(name, sa.String) for name in ("id", "computation_id")),
        sa.column("payload", sa.JSON),
        sa.column("priority", sa.Integer),
        *(sa.column(name, sa.DateTime) for name in ("created_at", "cancelled_at")),
    )
    for row in old:
        # No shared_key: several of them may have the same key, and none answers for another.
        op.execute(computations.insert().values(**row, upload=row["payload"].get("upload")))
        cancelled_at = row["finished_at"] if row["state"] == "cancelled" else None
        kept = {name: row[name] for name in ("id", "payload", "priority", "created_at")}
        op.execute(jobs.insert().values(**kept, computation_id=row["id"], cancelled_at=cancelled_at))


_IDENTITY: tuple[tuple[str, Any, bool], ...] = (
    ("id", sa.String(36), False),
    ("key", sa.String(64), False),
    ("kind", sa.String(32), False),
    ("payload", sa.JSON(), False),
)
_WORK: tuple[tuple[str, Any, bool], ...] = (
    ("state", sa.String(16), False),
    ("priority", sa.Integer(), False),
    ("outcome", sa.String(32), True),
    ("warnings", sa.JSON(), False),
    ("result_location", sa.Text(), True),
    ("progress_done", sa.Integer(), False),
    ("progress_total", sa.Integer(), True),
    ("progress_stage", sa.String(64), False),
    ("error_code", sa.String(64), True),
    ("error_message", sa.Text(), True),
    ("error_cure", sa.Text(), True),
    ("attempts", sa.Integer(), False),
    ("lease", sa.String(36), True),
    ("cancel_requested", sa.Boolean(), False),
    ("created_at", sa.DateTime(), False),
    ("started_at", sa.DateTime(), True),
    ("stage_started_at", sa.DateTime(), True),
    ("finished_at", sa.DateTime(), True),
    ("heartbeat_at", sa.DateTime(), True),
)
