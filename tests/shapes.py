"""Shapes that are hard on whoever reads them."""

from __future__ import annotations


def tangled(points: int = 200) -> list[list[int]]:
    """A ring that crosses itself thousands of times: each step goes about half around the slide."""
    ring = [[(index * 7919) % 1200, (index * 6007) % 900] for index in range(points)]
    return [*ring, ring[0]]
