"""Patch mode: each patch alone, in batches, as in the paper; the reference."""

from __future__ import annotations

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from hepamap.geometry import Lattice, Region
from hepamap.maps.run import PatchNetwork, Run
from hepamap.plausibility import StainTally
from hepamap.slide import Slide
from hepamap.tiles import Block, TileBatch, blocks_of, read_ahead
from hepamap.tissue import tissue_patches


def fill_patchwise(
    slide: Slide, network: PatchNetwork, lattice: Lattice, wanted: NDArray[np.bool_], run: Run
) -> NDArray[np.float32]:
    """Compute the values of a map.

    Args:
        slide: the open slide.
        network: answers for batches of patches.
        lattice: the cells.
        wanted: (rows, columns), True for cells that are asked for and may have tissue.
        run: progress, cancel, checkpoints.

    Returns:
        (rows, columns); NaN where there is background or nothing was asked.

    Raises:
        CancelledError: the run was cancelled.
        SlideError: the slide cannot be read.
    """
    values = np.full((lattice.rows, lattice.columns), np.nan, np.float32)
    blocks = blocks_of(lattice, wanted)
    run.begin(sum(block.columns * block.rows for block in blocks))
    grid = lattice.grid

    def read(block: Block) -> NDArray[np.uint8]:
        region_m: Region = lattice.patch_region_m(block.column, block.row, block.columns, block.rows)
        return slide.read_region(grid.l0_from_m(region_m), grid.mpp)

    missing = []
    for block in blocks:
        stored = run.stored(_unit(block), (block.rows, block.columns))
        if stored is None:
            missing.append(block)
        else:
            values[block.slices] = stored
            run.advance(block.columns * block.rows)
    with closing(read_ahead(missing, read)) as fields:
        for _ in missing:
            with run.clock.measure("waiting"):
                block, field = next(fields)
            seen = StainTally()
            seen.add(field)
            chosen = tissue_patches(field, grid.patch_m, grid.stride_m) & wanted[block.slices]
            values[block.slices] = _answers(network, TileBatch(block, field), chosen, lattice, run)
            run.store(_unit(block), values[block.slices], seen)
    run.advance(run.total)
    return values


def _answers(
    network: PatchNetwork, batch: TileBatch, chosen: NDArray[np.bool_], lattice: Lattice, run: Run
) -> NDArray[np.float32]:
    """The values of a block, a batch at a time."""
    grid, block = lattice.grid, batch.block
    values = np.full((block.rows, block.columns), np.nan, np.float32)
    rows, columns = np.nonzero(chosen)
    if not len(rows):
        run.advance(block.columns * block.rows)
    share = block.columns * block.rows / max(1, len(rows))
    done = 0
    while done < len(rows):
        part = slice(done, done + network.batch_size)
        some = np.zeros_like(chosen)
        some[rows[part], columns[part]] = True
        patches = batch.patches(some, grid.patch_m, grid.stride_m)
        with run.clock.measure("network"):
            values[rows[part], columns[part]] = network.predict(patches)
        done += len(patches)
        run.advance(len(patches) * share)
    return values


def _unit(block: Block) -> str:
    return f"patch-{block.row}-{block.column}"
