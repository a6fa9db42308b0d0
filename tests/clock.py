"""A clock that tests set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Stands still, or goes on by a step at every look; further when told."""

    def __init__(self, step: timedelta = timedelta()) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._step = step

    def __call__(self) -> datetime:
        self.now += self._step
        return self.now

    def advance(self, seconds: float = 0.0, **how_long: float) -> None:
        """By so many seconds, or `days`, `microseconds`, … ."""
        self.now += timedelta(seconds=seconds, **how_long)
