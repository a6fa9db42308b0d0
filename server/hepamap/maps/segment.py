"""Segment mode: a network answers for every pixel, and a cell's value is the mean over the pixels of its square.

A window is a patch with half a patch of surroundings on each side, of which only the middle is kept. The surroundings are
real ones; at the edge of the slide they are its mirror image, so that no white frame is taken for background. Windows
stand on a grid that is anchored at the slide's origin and holds whole cells, so a cell's value depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import StrideInvalidError
from hepamap.geometry import Grid, Lattice, Region
from hepamap.maps.run import PatchNetwork, Run
from hepamap.networks.registry import window_side_m
from hepamap.plausibility import StainTally
from hepamap.slide import Slide
from hepamap.tiles import FIELD_SIDE_M, read_ahead
from hepamap.tissue import tissue_patches


@dataclass(frozen=True, slots=True)
class _Windows:
    """The grid of windows of a lattice; all lengths in model px."""

    grid: Grid

    @property
    def cells(self) -> int:
        """Cells along a window's kept middle."""
        return self.grid.patch_m // self.grid.stride_m

    @property
    def kept_m(self) -> int:
        return self.cells * self.grid.stride_m

    @property
    def side_m(self) -> int:
        return window_side_m(self.grid.patch_m)

    @property
    def margin_m(self) -> int:
        """Around the kept middle."""
        return (self.side_m - self.kept_m) // 2

    @property
    def per_block(self) -> int:
        """Windows along a block: what is read at once."""
        return max(1, (FIELD_SIDE_M - self.side_m) // self.kept_m + 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """A rectangle of windows; numbers count from the slide's origin."""

    column: int
    row: int
    columns: int
    rows: int

    def cells_of(self, lattice: Lattice, cells: int) -> tuple[slice, slice, slice, slice]:
        """Which cells of the lattice it holds (rows, columns), and which of its own cells they are (rows, columns)."""
        slices = []
        for first, count, first_cell, of_lattice in (
            (self.row, self.rows, lattice.row0, lattice.rows),
            (self.column, self.columns, lattice.column0, lattice.columns),
        ):
            start, stop = max(first * cells, first_cell), min((first + count) * cells, first_cell + of_lattice)
            slices.append((slice(start - first_cell, stop - first_cell), slice(start - first * cells, stop - first * cells)))
        return slices[0][0], slices[1][0], slices[0][1], slices[1][1]


def fill_segment(
    slide: Slide, network: PatchNetwork, lattice: Lattice, wanted: NDArray[np.bool_], run: Run
) -> NDArray[np.float32]:
    """Compute the values of a map.

    Args:
        slide: the open slide.
        network: from windows (N, 2P, 2P, 3) to tumour probabilities of their pixels (N, 2P, 2P).
        lattice: the cells.
        wanted: (rows, columns), True for cells that are asked for and may have tissue.
        run: progress, cancel, checkpoints.

    Returns:
        (rows, columns); NaN where the patch round a cell is background, or nothing was asked.

    Raises:
        StrideInvalidError: the stride is none that this mode can do.
        CancelledError: the run was cancelled.
        SlideError: the slide cannot be read.
    """
    require_segment_stride(lattice.grid.stride_m, lattice.grid.patch_m)
    windows = _Windows(lattice.grid)
    values = np.full((lattice.rows, lattice.columns), np.nan, np.float32)
    blocks = []
    for block in _blocks(lattice, windows):
        rows, columns, _, _ = block.cells_of(lattice, windows.cells)
        if wanted[rows, columns].any():
            blocks.append((block, (rows, columns)))
    run.begin(sum(wanted[place].size for _, place in blocks))
    missing = []
    for block, place in blocks:
        stored = run.stored(_unit(block), values[place].shape)
        if stored is None:
            missing.append((block, place))
        else:
            values[place] = stored
            run.advance(stored.size)

    def read(item: tuple[_Block, tuple[slice, slice]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return _field_and_mirrored(slide, lattice.grid, _region_m(item[0], windows))

    with closing(read_ahead(missing, read)) as fields:
        for _ in missing:
            with run.clock.measure("waiting"):
                (block, place), (field, mirrored) = next(fields)
            seen = StainTally()
            seen.add(field)
            _, _, own_rows, own_columns = block.cells_of(lattice, windows.cells)
            asked = np.zeros((block.rows * windows.cells, block.columns * windows.cells), np.bool_)
            asked[own_rows, own_columns] = wanted[place]
            chosen = asked & _tissue(field, windows)
            values[place] = _answers(network, mirrored, chosen, windows, run)[own_rows, own_columns]
            run.store(_unit(block), values[place], seen)
            run.advance(values[place].size)
    run.advance(run.total)
    return values


def require_segment_stride(stride_m: int, patch_m: int) -> None:
    """Check a stride.

    Raises:
        StrideInvalidError: a cell of it does not lie on whole pixels.
    """
    if (patch_m - stride_m) % 2 or not 0 < stride_m <= patch_m:
        raise StrideInvalidError(
            f"The mode “segment” cannot step by {stride_m} px.", cure="Use an even stride up to the patch side."
        )


def _blocks(lattice: Lattice, windows: _Windows) -> Iterator[_Block]:
    left, right = lattice.column0 // windows.cells, (lattice.column0 + lattice.columns - 1) // windows.cells + 1
    top, bottom = lattice.row0 // windows.cells, (lattice.row0 + lattice.rows - 1) // windows.cells + 1
    step = windows.per_block
    for row in range(top, bottom, step):
        for column in range(left, right, step):
            yield _Block(column, row, min(step, right - column), min(step, bottom - row))


def _region_m(block: _Block, windows: _Windows) -> Region:
    """What the windows of a block see."""
    begin = windows.grid.cell_offset_m - windows.margin_m
    kept = windows.kept_m
    size = (2 * windows.margin_m + kept * count for count in (block.columns, block.rows))
    return Region(begin + kept * block.column, begin + kept * block.row, *map(float, size))


def _tissue(field: NDArray[np.uint8], windows: _Windows) -> NDArray[np.bool_]:
    """Which cells of a block are not background, by the rule for the patch round each; (rows, columns)."""
    grid = windows.grid
    begin = windows.margin_m - (grid.patch_m - grid.stride_m) // 2
    return tissue_patches(field[begin : len(field) - begin, begin : field.shape[1] - begin], grid.patch_m, grid.stride_m)


def _field_and_mirrored(slide: Slide, grid: Grid, region_m: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A field with white beyond the slide, for the background rule, and with the slide's mirror image there, for the network."""
    x, y, width, height = (int(number) for number in (region_m.x, region_m.y, region_m.width, region_m.height))
    columns = _mirrored(x, width, int(slide.size_l0.width / grid.scale_x + 1e-6))
    rows = _mirrored(y, height, int(slide.size_l0.height / grid.scale_y + 1e-6))
    # What is mirrored may lie further inside the slide than the field reaches, and must not depend on how far that is.
    left, top = min(x, int(columns.min())), min(y, int(rows.min()))
    right, bottom = max(x + width, int(columns.max()) + 1), max(y + height, int(rows.max()) + 1)
    read_m = Region(*map(float, (left, top, right - left, bottom - top)))
    read = slide.read_region(grid.l0_from_m(read_m), grid.mpp)
    return read[y - top : y - top + height, x - left : x - left + width], read[np.ix_(rows - top, columns - left)]


def _mirrored(start: int, count: int, size: int) -> NDArray[np.intp]:
    """Where in 0 … size the pixels from `start` on are, those beyond it mirrored."""
    place = np.arange(start, start + count) % (2 * size)
    return np.where(place < size, place, 2 * size - 1 - place)


def _answers(
    network: PatchNetwork, field: NDArray[np.uint8], chosen: NDArray[np.bool_], windows: _Windows, run: Run
) -> NDArray[np.float32]:
    """The values of a block's cells, a batch of windows at a time; NaN where none was chosen."""
    n, stride, side = windows.cells, windows.grid.stride_m, windows.side_m
    values = np.full(chosen.shape, np.nan, np.float32)
    busy = np.argwhere(chosen.reshape(chosen.shape[0] // n, n, chosen.shape[1] // n, n).any(axis=(1, 3))).tolist()
    middle = slice(windows.margin_m, windows.margin_m + windows.kept_m)
    done = 0
    while done < len(busy):
        batch = busy[done : done + network.batch_size]  # asked each time: it falls when memory runs short
        corners = [(row * windows.kept_m, column * windows.kept_m) for row, column in batch]
        with run.clock.measure("network"):
            answers = network.predict(np.stack([field[y : y + side, x : x + side] for y, x in corners]))
        means = answers[:, middle, middle].reshape(-1, n, stride, n, stride).mean(axis=(2, 4))
        for (row, column), mean in zip(batch, means, strict=True):
            values[row * n : (row + 1) * n, column * n : (column + 1) * n] = mean
        done += len(batch)
        run.advance(0)
    values[~chosen] = np.nan
    return values


def _unit(block: _Block) -> str:
    return f"segment-{block.row}-{block.column}"
