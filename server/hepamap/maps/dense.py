"""Dense mode: lanes of a slide through the convolutions once, an answer for every 16 model px on the way.

Patches of a stride that is a multiple of 16 are among those answers. A stride of 8 takes four passes, each shifted by 8.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import StrideInvalidError
from hepamap.geometry import Grid, Lattice, Region
from hepamap.lanes import Lane, plan_lanes
from hepamap.maps.run import DenseNetwork, Run
from hepamap.networks.dense import UNIT_M
from hepamap.networks.strips import PHASE_M, REACH_M, REACH_UNITS, lane_width_m, latency_units
from hepamap.plausibility import StainTally
from hepamap.slide import Slide
from hepamap.tiles import read_ahead
from hepamap.tissue import background_counts, tissue_from_counts

_CHUNK_PIXELS = 1_400_000  # what is read at once, however wide the lane: so memory is the same on all slides
_CHUNK_ROWS_M = 512  # of narrow lanes, at most
_FIRST_ROWS_M = 128  # of the first lane: the network waits for them
_FINEST_STRIDE_M = 8


@dataclass(frozen=True, slots=True)
class _Pass:
    """The cells of a lattice whose patches begin at units of 16 px, shifted by a phase."""

    phase_x_m: int
    phase_y_m: int
    columns: NDArray[np.intp]
    """Columns of the lattice that belong to it."""
    rows: NDArray[np.intp]
    units_x: NDArray[np.intp]
    """The unit that each column's patch begins at, from the slide's origin."""
    units_y: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Walk:
    """A lane on the slide, and the cells that it answers."""

    name: str
    unit_x: int
    unit_y: int
    lane: Lane
    part: _Pass
    columns: slice
    """Of the pass's columns."""
    rows: slice

    @property
    def cells(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the lattice, as an index for a block of them."""
        return self.part.rows[self.rows][:, None], self.part.columns[self.columns][None, :]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its cells."""
        return len(self.part.rows[self.rows]), len(self.part.columns[self.columns])

    def fed_rows_m(self, patch_m: int) -> int:
        """Rows of pixels until the last answer is out."""
        return UNIT_M * (self.lane.rows + REACH_UNITS + latency_units(patch_m))

    def region_m(self, patch_m: int, first: int, rows_m: int) -> Region:
        """Rows of what is fed, model px of the slide."""
        x = self.part.phase_x_m + UNIT_M * self.unit_x - REACH_M
        y = self.part.phase_y_m + UNIT_M * (self.unit_y - REACH_UNITS) - PHASE_M + first
        return Region(float(x), float(y), float(lane_width_m(self.lane.width, patch_m)), float(rows_m))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some rows of a walk: what is read at once."""

    walk: _Walk
    first: int
    rows_m: int


def fill_dense(slide: Slide, network: DenseNetwork, lattice: Lattice, wanted: NDArray[np.bool_], run: Run) -> NDArray[np.float32]:
    """Compute the values of a map.

    Args:
        slide: the open slide.
        network: answers for lanes.
        lattice: the cells; its stride must be 8 or a multiple of 16.
        wanted: (rows, columns), True for cells that are asked for and may have tissue.
        run: progress, cancel, checkpoints.

    Returns:
        (rows, columns); NaN where there is background or nothing was asked.

    Raises:
        StrideInvalidError: the stride is none that dense mode can do.
        NetworkInvalidError: the network has no dense mode.
        CancelledError: the run was cancelled.
        SlideError: the slide cannot be read.
    """
    require_dense_stride(lattice.grid.stride_m)
    values = np.full(wanted.shape, np.nan, np.float32)
    walks = [walk for part in _passes(lattice) for walk in _walks(part, network, lattice.grid.patch_m, wanted)]
    run.begin(sum(walk.shape[0] * walk.shape[1] for walk in walks))
    missing = []
    for walk in walks:
        stored = run.stored(walk.name, walk.shape)
        if stored is None:
            missing.append(walk)
        else:
            values[walk.cells] = stored
            run.advance(stored.size)
    with closing(_answered(slide, network, lattice.grid, missing, run)) as walked:
        for walk, answers, seen in walked:
            values[walk.cells] = np.where(wanted[walk.cells], answers, np.float32(np.nan))
            run.store(walk.name, values[walk.cells], seen)
    run.advance(run.total)
    return values


def require_dense_stride(stride_m: int) -> None:
    """Check a stride.

    Raises:
        StrideInvalidError: it is none that dense mode can do.
    """
    if stride_m % UNIT_M and stride_m != _FINEST_STRIDE_M:
        raise StrideInvalidError(
            f"Dense mode cannot step by {stride_m} px.", cure="Use 8 or a multiple of 16 px, or the mode “patch”."
        )


def _passes(lattice: Lattice) -> Iterator[_Pass]:
    stride_m = lattice.grid.stride_m
    phases = (0,) if stride_m % UNIT_M == 0 else (0, _FINEST_STRIDE_M)
    corners_x = (lattice.column0 + np.arange(lattice.columns)) * stride_m
    corners_y = (lattice.row0 + np.arange(lattice.rows)) * stride_m
    for phase_y in phases:
        for phase_x in phases:
            columns, rows = (np.flatnonzero((c - p) % UNIT_M == 0) for c, p in ((corners_x, phase_x), (corners_y, phase_y)))
            units_x, units_y = (corners_x[columns] - phase_x) // UNIT_M, (corners_y[rows] - phase_y) // UNIT_M
            if len(columns) and len(rows):
                yield _Pass(phase_x, phase_y, columns, rows, units_x, units_y)


def _walks(part: _Pass, network: DenseNetwork, patch_m: int, wanted: NDArray[np.bool_]) -> Iterator[_Walk]:
    first_x, first_y = int(part.units_x[0]), int(part.units_y[0])
    asked = np.zeros((int(part.units_y[-1]) - first_y + 1, int(part.units_x[-1]) - first_x + 1), np.bool_)
    asked[np.ix_(part.units_y - first_y, part.units_x - first_x)] = wanted[np.ix_(part.rows, part.columns)]
    spare_columns = lane_width_m(1, patch_m) / UNIT_M - 1
    lanes = plan_lanes(
        asked, network.lane_positions, spare_columns=spare_columns, spare_rows=REACH_UNITS + latency_units(patch_m)
    )
    for lane in lanes:
        unit_x, unit_y = first_x + lane.column, first_y + lane.row
        columns, rows = (
            slice(*np.searchsorted(units, (first, first + count)).tolist())
            for units, first, count in ((part.units_x, unit_x, lane.width), (part.units_y, unit_y, lane.rows))
        )
        name = f"dense-{part.phase_x_m}-{part.phase_y_m}-{unit_x}-{unit_y}-{lane.width}-{lane.rows}"
        yield _Walk(name, unit_x, unit_y, lane, part, columns, rows)


def _answered(
    slide: Slide, network: DenseNetwork, grid: Grid, walks: list[_Walk], run: Run
) -> Generator[tuple[_Walk, NDArray[np.float32], StainTally]]:
    """Walk lane after lane; yields the values of each lane's cells, NaN on background, and the colours seen for them."""

    def read(chunk: _Chunk) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        region_m = chunk.walk.region_m(grid.patch_m, chunk.first, chunk.rows_m)
        pixels = slide.read_region(grid.l0_from_m(region_m), grid.mpp)
        return pixels, background_counts(pixels[:, REACH_M : pixels.shape[1] - REACH_M], UNIT_M)

    with closing(read_ahead(_chunks(walks, grid.patch_m), read)) as chunks:
        for walk in walks:
            seen = StainTally()
            answers, background = _walk(walk, network, chunks, grid.patch_m, run, seen)
            yield walk, _values(walk, answers, background, grid.patch_m), seen


def _walk(
    walk: _Walk,
    network: DenseNetwork,
    chunks: Iterator[tuple[_Chunk, tuple[NDArray[np.uint8], NDArray[np.uint8]]]],
    patch_m: int,
    run: Run,
    seen: StainTally,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """All answers of one lane, as they come out, and the background counts of all that was fed, whose colours are counted."""
    with run.clock.measure("network"):
        lane = network.open_lane(walk.lane.width)
    rows_m = walk.fed_rows_m(patch_m)
    cells_per_row = walk.shape[0] * walk.shape[1] / rows_m
    answers, background = [], []
    fed = 0
    while fed < rows_m:
        with run.clock.measure("waiting"):
            _, (pixels, counts) = next(chunks)
        seen.add(pixels)
        background.append(counts)
        # No more than a strip at once, so that a cancel need not wait for a whole chunk.
        step = lane.rows_m
        for start in range(0, len(pixels), step):
            strip = pixels[start : start + step]
            with run.clock.measure("network"):
                answers.append(lane.feed(strip))
            run.advance(len(strip) * cells_per_row)
        fed += len(pixels)
    with run.clock.measure("network"):
        answers.append(lane.finish())
    return np.concatenate([rows for rows in answers if len(rows)]), np.concatenate(background)


def _chunks(walks: list[_Walk], patch_m: int) -> Iterator[_Chunk]:
    at_once_m = _FIRST_ROWS_M
    for walk in walks:
        first, rows_m = 0, walk.fed_rows_m(patch_m)
        most = _CHUNK_PIXELS // lane_width_m(walk.lane.width, patch_m)
        while first < rows_m:
            chunk = _Chunk(walk, first, min(at_once_m, most, rows_m - first))
            yield chunk
            first, at_once_m = first + chunk.rows_m, _CHUNK_ROWS_M


def _values(walk: _Walk, answers: NDArray[np.float32], background: NDArray[np.uint8], patch_m: int) -> NDArray[np.float32]:
    """The lane's cells out of all that came: the first rows belong to nothing, and other strides skip some."""
    lane = walk.lane
    late = REACH_UNITS + latency_units(patch_m)
    first = REACH_UNITS * UNIT_M + PHASE_M
    seen = background[first : first + UNIT_M * (lane.rows + patch_m // UNIT_M - 1)]
    values = np.where(tissue_from_counts(seen, UNIT_M, patch_m), answers[late : late + lane.rows], np.float32(np.nan))
    rows = walk.part.units_y[walk.rows] - walk.unit_y
    columns = walk.part.units_x[walk.columns] - walk.unit_x
    return np.asarray(values[np.ix_(rows, columns)], np.float32)
