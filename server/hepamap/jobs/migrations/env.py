"""Alembic's entry: runs the migrations on the connection that `database.migrate` opened."""

from __future__ import annotations

from alembic import context

from hepamap.jobs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
