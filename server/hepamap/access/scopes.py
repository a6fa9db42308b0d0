"""What a caller may do, and who the caller is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """A kind of calls; none includes another, so that a key can be given exactly what its owner needs."""

    READ = "read"
    """See analyses, results and models."""
    ANALYSE = "analyse"
    """Ask for analyses, upload slides, cancel and delete; say what one thinks of results."""
    ADMIN = "admin"
    """See the audit trail and the metrics."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    id: str
    """`key:<id of the key>`, `oidc:<subject>`, `cli:<account>` or `local`; stands in the audit trail."""
    scopes: frozenset[Scope]


LOCAL = Caller("local", frozenset(Scope))
"""Whoever reaches a server that asks for no credentials: it listens on this machine only."""

ANONYMOUS = Caller("anonymous", frozenset())
"""A caller whose credentials are missing or wrong."""
