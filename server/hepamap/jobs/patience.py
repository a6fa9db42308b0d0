"""A connection to PostgreSQL that does not wait for ever.

A host that vanishes says nothing any more, and a system waits for it for a quarter of an hour or more. Keepalives and
`tcp_user_timeout` end that where the other system is gone; but one whose PostgreSQL has frozen, or a proxy between that is cut
off itself, goes on taking and confirming bytes. Only who waits can tell then that it has waited for too long.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection

SILENCE_S = 30.0
"""How long PostgreSQL may say nothing in answer to a statement, seconds; each takes milliseconds, or waits for one that does."""
_TCP: Mapping[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
}


def missing_from(url: URL) -> dict[str, int]:
    """What libpq is to be told of how long to wait, as far as the operator's URL does not say it itself."""
    return {name: value for name, value in _TCP.items() if name not in url.query}


class PatientConnection(psycopg.Connection[Any]):
    """Closed, with an OperationalError, where PostgreSQL has said nothing for `silence_s`."""

    silence_s: float | None = SILENCE_S
    """None: it may take as long as it wants."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """Go on with what is exchanged until it is over."""
        return super().wait(self._listened_to(gen), *args, **options)

    def _listened_to(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same, which psycopg resumes some times a second with what the socket is ready for: nothing, in silence."""
        heard_at = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard_at = time.monotonic()
                elif self.silence_s is not None and time.monotonic() - heard_at >= self.silence_s:
                    # What was under way cannot be ended in good order, and the answer must not be taken for the next one's.
                    self.close()
                    raise psycopg.OperationalError(f"PostgreSQL has said nothing for {self.silence_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as over:
            return over.value


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """Let statements take as long as they want, for changes of the schema and for waiting for those of another process."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, PatientConnection)
    driver.silence_s = None
    try:
        yield
    finally:
        driver.silence_s = PatientConnection.silence_s
