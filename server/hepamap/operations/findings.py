"""What a check of the installation finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should look at it."""
    BROKEN = "broken"
    """Analyses fail, or the server does not start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Stable name of the check, for programs."""
    level: Level
    detail: str
    """What was found, in a sentence."""
    cure: str | None = None
    """What to do; None where all is well."""


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, detail)


def warning(check: str, detail: str, *, cure: str) -> Finding:
    """Somebody should look at it."""
    return Finding(check, Level.WARNING, detail, cure)


def broken(check: str, detail: str, *, cure: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.BROKEN, detail, cure)
