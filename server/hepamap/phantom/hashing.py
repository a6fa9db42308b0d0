"""Randomness that depends on where, not on when: the same world position draws the same numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Uniform = NDArray[np.float64]

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def generator(seed: int, *keys: int) -> np.random.Generator:
    """The generator of one thing on one slide; different keys never share numbers."""
    return np.random.default_rng([seed, *keys])


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit flips half of the output bits."""
    value = (value ^ (value >> np.uint64(30))) * _MULTIPLIERS[0]
    value = (value ^ (value >> np.uint64(27))) * _MULTIPLIERS[1]
    return value ^ (value >> np.uint64(31))


def lattice_uniform(seed: int, salt: int, columns: NDArray[np.int64], rows: NDArray[np.int64], count: int) -> list[Uniform]:
    """`count` uniform numbers in [0, 1) for each node (column, row) of an infinite lattice.

    Returns:
        `count` arrays, each as long as `columns`.
    """
    key = np.array([(seed * 0x1000003 + salt) % (1 << 64)], np.uint64)
    # Unsigned arithmetic wraps round: that is the point of it.
    with np.errstate(over="ignore"):
        state = _mix(_mix(key * _GOLDEN + columns.astype(np.uint64)) + rows.astype(np.uint64) * _GOLDEN)
        draws = [_mix(state + np.uint64(k + 1) * _GOLDEN) for k in range(count)]
    return [(draw >> np.uint64(11)).astype(np.float64) / (1 << 53) for draw in draws]


def jittered_lattice(
    box_um: tuple[float, float, float, float], spacing_um: float, jitter: float, seed: int, salt: int, count: int
) -> tuple[Uniform, Uniform, list[Uniform]]:
    """Scattered points of an infinite hexagonal lattice that can lie in a box.

    Args:
        box_um: (left, top, right, bottom), µm; points may lie outside it by one spacing.
        spacing_um: mean distance of neighbours, µm.
        jitter: largest shift of a point from its node, in spacings.
        seed: the slide's.
        salt: tells lattices of one slide apart.
        count: further uniform numbers per point.

    Returns:
        World x and y of the points, µm, and the further numbers.
    """
    left, top, right, bottom = box_um
    pitch_y_um = spacing_um * np.sqrt(0.75)
    first_column, last_column = int(np.floor(left / spacing_um)) - 1, int(np.ceil(right / spacing_um)) + 1
    first_row, last_row = int(np.floor(top / pitch_y_um)) - 1, int(np.ceil(bottom / pitch_y_um)) + 1
    grid = np.meshgrid(np.arange(first_column, last_column), np.arange(first_row, last_row))
    columns, rows = grid[0].ravel().astype(np.int64), grid[1].ravel().astype(np.int64)
    shift_x, shift_y, *further = lattice_uniform(seed, salt, columns, rows, count + 2)
    x_um = (columns + 0.5 * (rows % 2) + jitter * (2 * shift_x - 1)) * spacing_um
    y_um = rows * pitch_y_um + jitter * (2 * shift_y - 1) * spacing_um
    return x_um, y_um, further
