"""The history of the job database's schema; alembic runs it at start."""
