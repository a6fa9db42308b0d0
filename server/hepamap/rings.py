"""Exact outlines of labelled cells (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The four cells around a corner of the lattice, as bits; which of them are labelled says what happens there.
_UPPER_LEFT, _UPPER_RIGHT, _LOWER_RIGHT, _LOWER_LEFT = 1, 2, 4, 8
_FALLING = _UPPER_LEFT | _LOWER_RIGHT  # two cells that touch at the corner only
_RISING = _UPPER_RIGHT | _LOWER_LEFT
# Whether an outline turns at a corner: where one cell or three are labelled, and twice where two touch there.
_TURNS = np.array([bits in (_FALLING, _RISING) or bits.bit_count() % 2 == 1 for bits in range(16)])


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed outlines, none of which meets itself; R rings with N corners in all, the corners of one after those of another.

    Attributes:
        labels: (R,) int32: the labelled cells that each bounds.
        corners_cell: (N, 2) int64 x, y of the corners, in cells; a ring's first corner is not repeated.
        sizes: (R,) int64: how many of the corners are each ring's.
        areas_cell: (R,) signed area; positive for an outer outline, negative for a hole.
    """

    labels: NDArray[np.int32]
    corners_cell: NDArray[np.int64]
    sizes: NDArray[np.int64]
    areas_cell: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: NDArray[np.int64]) -> Rings:
        """Some of the rings, in a new order."""
        sizes = self.sizes[which]
        first = (np.cumsum(self.sizes) - self.sizes)[which]
        # Each corner's place in its ring, moved to where the ring begins.
        places = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        return Rings(self.labels[which], self.corners_cell[places], sizes, self.areas_cell[which])


def neighbours(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each corner of rings that lie one after another: the places of the corner before it and of the one after it."""
    places = np.arange(sizes.sum())
    before, after = places - 1, places + 1
    end = np.cumsum(sizes)
    before[end - sizes] = end - 1
    after[end - 1] = end - sizes
    return before, after


def trace_rings(labels: NDArray[np.int32]) -> Rings:
    """Outline every label.

    A ring begins with the left end of its topmost, leftmost edge that has its cell below, and has its cells on the right
    hand (y points down).

    Args:
        labels: (rows, columns), 0 for none; the cells of a label share edges, and no two labels share one.

    Returns:
        Outer outlines and holes, in the order of those edges.
    """
    x, y, bits = _corners(labels)
    # Along a row of corners every second piece is an edge: 0-1, 2-3, and so on; a corner that is there twice ends one edge
    # and begins the next. The same holds along a column.
    across = np.arange(len(x)) ^ 1
    columns = np.argsort(x, kind="stable")
    _pair_touching(columns, x, y, bits, labels)
    along = np.empty_like(columns)
    along[columns] = columns[across]
    # Edge e runs between corners 2e and 2e + 1; to the right where the labelled cell is below.
    rightward = (bits[::2] & _LOWER_RIGHT) != 0
    tail = np.arange(0, len(x), 2) + ~rightward
    head = across[tail]
    walk, lengths = _walk(along[head] // 2, rightward)
    corners = np.stack([tail[walk], head[walk]], axis=1).ravel()
    first = tail[walk[np.cumsum(lengths) - lengths]]
    xy, sizes = np.stack([x[corners], y[corners]], axis=1), 2 * lengths
    return Rings(labels[y[first], x[first]], xy, sizes, _areas(xy, sizes))


def _corners(labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """The corners of all outlines, row by row: x, y, and which of the cells around each are labelled."""
    cells = np.pad(labels != 0, 1).view(np.uint8)
    bits = cells[:-1, :-1] * np.uint8(_UPPER_LEFT)
    for neighbour, bit in (
        (cells[:-1, 1:], _UPPER_RIGHT),
        (cells[1:, 1:], _LOWER_RIGHT),
        (cells[1:, :-1], _LOWER_LEFT),
    ):
        bits |= neighbour * np.uint8(bit)
    places = np.flatnonzero(_TURNS[bits])
    places = np.repeat(places, 1 + _touching(bits.ravel()[places]))
    y, x = np.divmod(places, bits.shape[1])
    return x, y, bits.ravel()[places]


def _touching(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """At which corners two cells touch that share no edge."""
    return np.asarray((bits == _FALLING) | (bits == _RISING))


def _pair_touching(
    columns: NDArray[np.int64],
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    bits: NDArray[np.uint8],
    labels: NDArray[np.int32],
) -> None:
    """Decide which edges go on as which where two cells touch at a corner; changes `columns`.

    The first of the two corners there ends the edge from the left; as they are, it also ends the edge from above. Where the
    cells belong to different labels, each outline must stay with its own; where they belong to one, the outlines must part,
    so that no ring meets itself.
    """
    upper = np.flatnonzero(_touching(bits[columns]))[::2]
    at = columns[upper]
    falling = bits[at] == _FALLING
    above = labels[y[at] - 1, x[at] - falling]
    below = labels[y[at], x[at] - ~falling]
    upper = upper[(above == below) == falling]
    columns[upper], columns[upper + 1] = columns[upper + 1], columns[upper]


def _walk(following: NDArray[np.int64], rightward: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow the edges round each ring: the edges in the order in which they are passed, and how many each ring has."""
    # One step for each edge, in plain Python: doubling strides over arrays passes each edge as often as the longest ring
    # has binary digits, and is no faster.
    steps = following.tolist()
    passed: list[int] = []
    lengths: list[int] = []
    for first in np.flatnonzero(rightward).tolist():
        if steps[first] < 0:
            continue
        edge, already = first, len(passed)
        while (onward := steps[edge]) >= 0:
            passed.append(edge)
            steps[edge] = -1
            edge = onward
        lengths.append(len(passed) - already)
    return np.array(passed, np.int64), np.array(lengths, np.int64)


def _areas(corners: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    if not len(sizes):
        return np.zeros(0)
    x, y = corners.T
    _, after = neighbours(sizes)
    doubled = np.add.reduceat(x * y[after] - x[after] * y, np.cumsum(sizes) - sizes)
    return np.asarray(doubled / 2, np.float64)
