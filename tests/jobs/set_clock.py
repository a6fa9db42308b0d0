"""A PostgreSQL whose clock tests set: a function of the same name is found before the system's own."""

from __future__ import annotations

import psycopg
from sqlalchemy import make_url


class DatabaseClock:
    """The clock of a database; to be made before anything connects to it."""

    def __init__(self, url: str) -> None:
        self._url = url
        name = make_url(url).database
        self._execute(
            "CREATE SCHEMA clock",
            "CREATE TABLE clock.ahead (by interval)",
            "INSERT INTO clock.ahead VALUES ('0')",
            "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE "
            "AS 'SELECT pg_catalog.clock_timestamp() + by FROM clock.ahead'",
            # Tables go into the first schema, and the system's own is before all unless it is named.
            f'ALTER DATABASE "{name}" SET search_path = public, clock, pg_catalog',
        )

    def advance(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._execute(f"UPDATE clock.ahead SET by = by + interval '{seconds} seconds'")

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
