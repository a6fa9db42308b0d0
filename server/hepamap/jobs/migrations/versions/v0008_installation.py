"""A name for the database: a data folder that has it too belongs to it."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table with its one row."""
    table = op.create_table(
        "installation",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    # The database's clock, in UTC, as the times of its jobs are.
    now = sa.func.now() if op.get_bind().dialect.name == "sqlite" else sa.func.timezone("utc", sa.func.now())
    op.execute(sa.insert(table).values(id=str(uuid.uuid4()), made_at=now))


def downgrade() -> None:
    """Drop it; a data folder that has the name belongs to nobody then."""
    op.drop_table("installation")
