"""What may go from the disk is written down; the name that told which database a data folder was of is no longer needed."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, empty: what older versions left without a job's word is not known."""
    op.create_table(
        "disposables",
        sa.Column("place", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("place", "name", name="pk_disposables"),
    )
    op.drop_table("installation")


def downgrade() -> None:
    """Back to a name, which is a new one."""
    op.drop_table("disposables")
    table = op.create_table(
        "installation",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    now = sa.func.now() if op.get_bind().dialect.name == "sqlite" else sa.func.timezone("utc", sa.func.now())
    op.execute(sa.insert(table).values(id=str(uuid.uuid4()), made_at=now))
