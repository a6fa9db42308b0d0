"""From a lattice to what is read: blocks of cells, in order, read ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hepamap.geometry import Lattice

FIELD_SIDE_M = 1024
"""Longest side of the field that is read for one block, model px: bounds memory, whatever the slide's size."""

READ_AHEAD = 3
"""Blocks that wait, decoded, for the network at most."""

_READERS = 2

Item = TypeVar("Item")
Pixels = TypeVar("Pixels")


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of cells of a lattice."""

    column: int
    row: int
    columns: int
    rows: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the block lies in an array (rows, columns)."""
        return slice(self.row, self.row + self.rows), slice(self.column, self.column + self.columns)


@dataclass(frozen=True, slots=True)
class TileBatch:
    """The patches of a block, as the one field of pixels that they share.

    Attributes:
        block: the cells.
        field: RGB (H, W, 3); begins at the corner of the block's first patch, model px.
    """

    block: Block
    field: NDArray[np.uint8]

    def patches(self, chosen: NDArray[np.bool_], patch_m: int, stride_m: int) -> NDArray[np.uint8]:
        """The chosen patches, row by row.

        Args:
            chosen: (rows, columns) of the block, True where the patch is wanted.
            patch_m: patch side, px.
            stride_m: step between patches, px.

        Returns:
            (N, patch, patch, 3).
        """
        windows = np.lib.stride_tricks.sliding_window_view(self.field, (patch_m, patch_m), axis=(0, 1))
        picked = windows[::stride_m, ::stride_m][chosen]
        return np.ascontiguousarray(picked.transpose(0, 2, 3, 1))


def blocks_of(lattice: Lattice, wanted: NDArray[np.bool_] | None = None) -> list[Block]:
    """Cut a lattice into blocks, row by row; blocks without a wanted cell are left out.

    Args:
        lattice: the cells.
        wanted: (rows, columns), True for cells that are asked for; None for all.
    """
    grid = lattice.grid
    side = max(1, (FIELD_SIDE_M - grid.patch_m) // grid.stride_m + 1)
    blocks = [
        Block(column, row, min(side, lattice.columns - column), min(side, lattice.rows - row))
        for row in range(0, lattice.rows, side)
        for column in range(0, lattice.columns, side)
    ]
    return blocks if wanted is None else [block for block in blocks if wanted[block.slices].any()]


def read_ahead(items: Iterable[Item], read: Callable[[Item], Pixels]) -> Generator[tuple[Item, Pixels]]:
    """Read items, in order, while the caller works on earlier ones.

    Whoever stops early closes it (`contextlib.closing`) before what is read from: threads may be inside.

    Args:
        items: what to read; taken from the iterable no sooner than needed.
        read: called from threads.

    Raises:
        Exception: whatever `read` raises, at the item that it happened on.
    """
    waiting: deque[tuple[Item, Future[Pixels]]] = deque()
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="hepamap-read")
    try:
        for item in items:
            waiting.append((item, pool.submit(read, item)))
            if len(waiting) > READ_AHEAD:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        # The caller may stop early (an error, a cancel): what is not begun is dropped, what runs is waited for.
        pool.shutdown(wait=True, cancel_futures=True)


def _next(waiting: deque[tuple[Item, Future[Pixels]]]) -> tuple[Item, Pixels]:
    item, future = waiting.popleft()
    return item, future.result()
