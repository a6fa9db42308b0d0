"""What tests of uploads share."""

from __future__ import annotations


def ignored(_name: str) -> None:
    """Register an upload nowhere: for stores without a database."""
