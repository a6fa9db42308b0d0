"""The flow from a slide to tumour regions; the only module that knows the order of the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.contours import TumourRegion, trace_regions
from hepamap.errors import StrideInvalidError
from hepamap.geometry import Grid, Lattice
from hepamap.maps import (
    Checkpoint,
    PatchNetwork,
    Piece,
    Progress,
    Run,
    fill_dense,
    fill_patchwise,
    fill_segment,
    ignore_progress,
    never_cancelled,
    possible_tissue,
)
from hepamap.plausibility import Warning_, judge
from hepamap.probability_map import ProbabilityMap
from hepamap.regions import bounding_region, cells_meeting
from hepamap.slide import Slide

__all__ = [
    "Analysis",
    "AnalysisParameters",
    "Checkpoint",
    "Piece",
    "Progress",
    "analyse",
    "ignore_progress",
    "never_cancelled",
    "regions_of",
    "require_stride",
]

_FILL: Mapping[str, Callable[..., NDArray[np.float32]]] = {"patch": fill_patchwise, "dense": fill_dense, "segment": fill_segment}


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
    mode: str = "patch"
    """`patch`: each patch alone; `dense`: the convolutions once over large fields; `segment`: every pixel
    answered, and the mean taken over each cell."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a run gives: the map, the regions at its threshold, and whether to trust them."""

    map: ProbabilityMap
    regions: list[TumourRegion]
    outcome: str
    """`ok`, `ok_with_warnings` or `not_evaluable`."""
    warnings: list[Warning_]
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage, s. `map` and `contours` make up the run; within `map`, the caller's thread is `waiting` for pixels or in
    the `network`, while others `decode` and `resample`, in parallel."""


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
    network: PatchNetwork,
    parameters: AnalysisParameters,
    provenance: Mapping[str, Any],
    *,
    progress: Callable[[Progress], None] = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    checkpoint: Checkpoint | None = None,
) -> Analysis:
    """Run the whole flow on one slide.

    Args:
        slide: the open slide.
        network: answers for patches; for the mode `dense` a `DenseNetwork`.
        parameters: what to compute.
        provenance: what is to be stored with the map.
        progress: told after each batch.
        cancelled: asked between batches.
        checkpoint: keeps finished pieces of the map for a run that has to begin again.

    Raises:
        CancelledError: `cancelled` answered True.
        SlideError: the slide cannot be read at the model's resolution.
    """
    started = time.perf_counter()
    slide.require_resolution(parameters.mpp)
    run = Run(progress, cancelled, checkpoint)
    lattice, asked = _lattice_of(slide, parameters)
    wanted = _with_tissue(slide, lattice, asked)
    values = _FILL[parameters.mode](slide, network, lattice, wanted, run)
    filled = time.perf_counter()
    probability_map = ProbabilityMap(values, lattice, provenance)
    regions = regions_of(probability_map, parameters.threshold, parameters.min_area_um2, parameters.min_hole_area_um2)
    outcome, warnings = judge(probability_map.values, regions, probability_map.tissue_area_um2, run.stain)
    seconds = {"map": filled - started, "contours": time.perf_counter() - filled, **run.clock.seconds, **slide.clock.seconds}
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


def _lattice_of(slide: Slide, parameters: AnalysisParameters) -> tuple[Lattice, NDArray[np.bool_]]:
    """The map's cells, and which of them are asked for."""
    grid = Grid(parameters.mpp, parameters.patch_m, parameters.stride_m, slide.pixel_size)
    if parameters.region_l0 is None:
        # What lies outside the bounds was never scanned: there is nothing to look at.
        lattice = grid.covering(slide.bounds_l0)
        return lattice, np.ones((lattice.rows, lattice.columns), np.bool_)
    lattice = grid.covering(bounding_region(parameters.region_l0))
    return lattice, cells_meeting(parameters.region_l0, lattice)


def _with_tissue(slide: Slide, lattice: Lattice, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    possible = possible_tissue(slide, lattice)
    return asked if possible is None else asked & possible
