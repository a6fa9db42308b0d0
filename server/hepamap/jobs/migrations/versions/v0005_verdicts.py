"""Verdicts: what people say about results, and the thresholds that they chose."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "verdicts",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("min_area_um2", sa.Double(), nullable=False),
        sa.Column("iou", sa.Double()),
        sa.Column("area_mm2", sa.Double()),
        sa.Column("geometry_l0", sa.JSON()),
        sa.Column("slide", sa.JSON(), nullable=False),
        sa.Column("slide_fingerprint", sa.String(128), nullable=False),
        sa.Column("model", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(512)),
        sa.Column("request_hash", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_verdicts"),
        sa.UniqueConstraint("idempotency_key", name="uq_verdicts_idempotency_key"),
        sa.CheckConstraint("decision IN ('accepted', 'edited', 'rejected')", name="ck_verdicts_decision"),
    )
    op.create_index("ix_verdicts_at_id", "verdicts", ["at", "id"])
    op.create_index("ix_verdicts_job_id", "verdicts", ["job_id"])
    op.create_index("ix_verdicts_slide_fingerprint", "verdicts", ["slide_fingerprint"])
    op.create_table(
        "chosen_thresholds",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_chosen_thresholds"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_chosen_thresholds_job_id_jobs", ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Drop both tables, and what people said."""
    op.drop_table("chosen_thresholds")
    op.drop_table("verdicts")
