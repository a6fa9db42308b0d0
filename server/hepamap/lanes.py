"""Which lanes a network walks in dense mode, so that it sees all tissue and little else (pure arrays).

All numbers here are units of 16 model px: a position is the patch that begins at a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lane:
    """A column of positions, walked from above.

    Attributes:
        column: first position, counted from the array's first column.
        row: first row of positions.
        width: positions beside each other; may reach beyond the array.
        rows: rows of positions.
    """

    column: int
    row: int
    width: int
    rows: int


def plan_lanes(wanted: NDArray[np.bool_], widths: Sequence[int], *, spare_columns: float, spare_rows: int) -> list[Lane]:
    """Cover the wanted positions with lanes, at the least area.

    Where nothing is wanted for longer than a new lane would cost, there is a gap. Each group of columns between gaps takes the
    width that costs least: wide lanes read less beside themselves, narrow ones follow the tissue.

    Args:
        wanted: (rows, columns) positions to be answered.
        widths: what a lane's width may be.
        spare_columns: columns that a lane computes beside its width.
        spare_rows: rows that a lane computes beside its rows.

    Returns:
        Lanes from left to right and from above; together they cover every wanted position. As widths are fixed, the last lane of
        a group may reach over the gap and into the next group, whose positions there are answered by both.
    """
    lanes: list[Lane] = []
    for start, stop in _stretches(np.asarray(np.any(wanted, axis=0)), spare_columns):
        choices = [list(_lanes_of_width(wanted, start, stop, width, spare_rows)) for width in widths]
        areas = [_area(choice, spare_columns, spare_rows) for choice in choices]
        lanes += choices[int(np.argmin(areas))]
    return lanes


def _lanes_of_width(wanted: NDArray[np.bool_], start: int, stop: int, width: int, spare_rows: int) -> Iterator[Lane]:
    for column in range(start, stop, width):
        part = np.asarray(np.any(wanted[:, column : min(column + width, stop)], axis=1))
        for first, end in _stretches(part, spare_rows):
            yield Lane(column, first, width, end - first)


def _area(lanes: Sequence[Lane], spare_columns: float, spare_rows: int) -> float:
    return sum((lane.width + spare_columns) * (lane.rows + spare_rows) for lane in lanes)


def _stretches(flags: NDArray[np.bool_], longest_gap: float) -> list[tuple[int, int]]:
    """Stretches (first, one past last) of set flags; gaps up to a length are bridged."""
    found: list[tuple[int, int]] = []
    for index in np.flatnonzero(flags).tolist():
        if found and index - found[-1][1] <= longest_gap:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found
