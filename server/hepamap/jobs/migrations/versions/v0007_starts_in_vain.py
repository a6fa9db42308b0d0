"""How often in a row a computation was started in vain: a start that stored something does not count against it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; until now every start counted."""
    op.add_column("computations", sa.Column("starts_in_vain", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE computations SET starts_in_vain = attempts")


def downgrade() -> None:
    """Take it away."""
    op.drop_column("computations", "starts_in_vain")
