"""The flow from a slide to tumour regions; the only module that knows the order of the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.contours import TumourRegion, trace_regions
from hepamap.errors import CancelledError, StrideInvalidError
from hepamap.geometry import Grid, Lattice, Region
from hepamap.plausibility import StainTally, Warning_, judge
from hepamap.probability_map import ProbabilityMap
from hepamap.regions import bounding_region, cells_meeting
from hepamap.slide import Slide
from hepamap.tiles import Block, TileBatch, blocks_of, read_blocks
from hepamap.tissue import tissue_patches


class PatchClassifier(Protocol):
    """What the pipeline needs of a network."""

    @property
    def batch_size(self) -> int:
        """Patches that are best asked for at once."""

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From RGB patches (N, P, P, 3) to tumour probabilities (N,)."""


@dataclass(frozen=True, slots=True)
class AnalysisParameters:
    """What is computed, and how the map becomes regions."""

    mpp: float
    """Model resolution, µm/px."""
    patch_m: int
    """Patch side, model px."""
    stride_m: int
    """Step between patches, model px."""
    threshold: float
    """Tumour probability from which a cell counts as tumour."""
    min_area_um2: float
    """Smaller tumour regions are left out, µm²."""
    min_hole_area_um2: float
    """Smaller holes are filled, µm²."""
    region_l0: BaseGeometry | None = None
    """Only cells that meet it are computed; None for the whole slide."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: cells done of all that are looked at, and what is being done."""

    done: int
    total: int
    stage: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a run gives: the map, the regions at its threshold, and whether to trust them."""

    map: ProbabilityMap
    regions: list[TumourRegion]
    outcome: str
    """`ok`, `ok_with_warnings` or `not_evaluable`."""
    warnings: list[Warning_]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time by stage, s."""


def ignore_progress(_: Progress) -> None:
    """Tell nobody."""


def never_cancelled() -> bool:
    """Go on to the end."""
    return False


def require_stride(stride_m: int, allowed: tuple[int, ...]) -> None:
    """Check a stride against what a model allows.

    Raises:
        StrideInvalidError: it is none of them.
    """
    if stride_m not in allowed:
        raise StrideInvalidError(
            f"The stride {stride_m} px is none that this model allows.",
            cure=f"Use one of: {', '.join(str(stride) for stride in allowed)} px.",
        )


def analyse(
    slide: Slide,
    classifier: PatchClassifier,
    parameters: AnalysisParameters,
    provenance: Mapping[str, Any],
    *,
    progress: Callable[[Progress], None] = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> Analysis:
    """Run the whole flow on one slide.

    Args:
        slide: the open slide.
        classifier: the network.
        parameters: what to compute.
        provenance: what is to be stored with the map.
        progress: told after each block of patches.
        cancelled: asked between batches.

    Raises:
        CancelledError: `cancelled` answered True.
        SlideError: the slide cannot be read at the model's resolution.
    """
    started = time.perf_counter()
    slide.require_resolution(parameters.mpp)
    lattice, wanted = _lattice_of(slide, parameters)
    stain = StainTally()
    values = _classify(slide, classifier, lattice, wanted, stain, progress=progress, cancelled=cancelled)
    classified = time.perf_counter()
    probability_map = ProbabilityMap(values, lattice, provenance)
    regions = regions_of(probability_map, parameters.threshold, parameters.min_area_um2, parameters.min_hole_area_um2)
    outcome, warnings = judge(probability_map.values, regions, probability_map.tissue_area_um2, stain)
    seconds = {"map": classified - started, "contours": time.perf_counter() - classified}
    return Analysis(probability_map, regions, outcome, warnings, seconds)


def regions_of(
    probability_map: ProbabilityMap, threshold: float, min_area_um2: float, min_hole_area_um2: float
) -> list[TumourRegion]:
    """The tumour regions of a stored map; needs no network."""
    return trace_regions(
        probability_map.values,
        probability_map.lattice,
        threshold,
        min_area_um2=min_area_um2,
        min_hole_area_um2=min_hole_area_um2,
    )


def _lattice_of(slide: Slide, parameters: AnalysisParameters) -> tuple[Lattice, NDArray[np.bool_] | None]:
    grid = Grid(parameters.mpp, parameters.patch_m, parameters.stride_m, slide.pixel_size)
    if parameters.region_l0 is None:
        # What lies outside the bounds was never scanned: there is nothing to look at.
        return grid.covering(slide.bounds_l0), None
    lattice = grid.covering(bounding_region(parameters.region_l0))
    return lattice, cells_meeting(parameters.region_l0, lattice)


def _classify(
    slide: Slide,
    classifier: PatchClassifier,
    lattice: Lattice,
    wanted: NDArray[np.bool_] | None,
    stain: StainTally,
    *,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
) -> NDArray[np.float32]:
    """The map's values: NaN where there is background or nothing was asked."""
    values = np.full((lattice.rows, lattice.columns), np.nan, np.float32)
    blocks = blocks_of(lattice, wanted)
    total, done = sum(block.columns * block.rows for block in blocks), 0

    def read(region_m: Region) -> NDArray[np.uint8]:
        return slide.read_region(lattice.grid.l0_from_m(region_m), lattice.grid.mpp)

    progress(Progress(0, total, "reading"))
    for batch in read_blocks(lattice, blocks, read):
        chosen = tissue_patches(batch.field, lattice.grid.patch_m, lattice.grid.stride_m)
        if wanted is not None:
            chosen &= wanted[batch.block.slices]
        stain.add(batch.field)
        for answered in _predict_block(classifier, batch, chosen, lattice.grid, values):
            if cancelled():
                raise CancelledError
            progress(Progress(done + answered, total, "classifying"))
        done += batch.block.columns * batch.block.rows
        progress(Progress(done, total, "classifying"))
    if cancelled():
        raise CancelledError
    return values


def _predict_block(
    classifier: PatchClassifier, batch: TileBatch, chosen: NDArray[np.bool_], grid: Grid, values: NDArray[np.float32]
) -> Iterator[int]:
    """Fill in the chosen cells of a block, a few at a time; yields how many cells are done."""
    rows, columns = np.nonzero(chosen)
    block: Block = batch.block
    share = block.columns * block.rows / max(1, len(rows))
    for start in range(0, len(rows), classifier.batch_size):
        part = slice(start, start + classifier.batch_size)
        some = np.zeros_like(chosen)
        some[rows[part], columns[part]] = True
        answer = classifier.predict(batch.patches(some, grid.patch_m, grid.stride_m))
        values[block.row + rows[part], block.column + columns[part]] = answer
        yield int(min(len(rows), part.stop) * share)
    if not len(rows):
        yield 0
