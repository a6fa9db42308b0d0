"""Where the pieces of a computation lie: those of one key no longer share them unless one goes on from the other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; until now the key was the place, and what is unfinished goes on from there."""
    op.add_column("computations", sa.Column("pieces", sa.String(64), nullable=False, server_default=""))
    op.execute("UPDATE computations SET pieces = key")


def downgrade() -> None:
    """Take it away; what is unfinished begins anew."""
    op.drop_column("computations", "pieces")
