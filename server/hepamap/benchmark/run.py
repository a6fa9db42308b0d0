"""One slide, one process, the same weights: the authors' loop, patch mode and dense mode."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from shapely.geometry.base import BaseGeometry

from hepamap.benchmark import rates
from hepamap.benchmark.counting import CountingNetwork, PeakMemory
from hepamap.benchmark.report import BenchmarkReport, ModeReport
from hepamap.geometry import Grid
from hepamap.model_pack import ModelPack
from hepamap.pipeline import Analysis, AnalysisParameters, Progress, analyse, ignore_progress
from hepamap.predictor import Predictor
from hepamap.slide import Slide

LOOP, PATCH, DENSE = "authors' loop", "patch", "dense"


def run_benchmark(
    slide: Slide,
    pack: ModelPack,
    *,
    region_l0: BaseGeometry | None = None,
    stride_m: int | None = None,
    precision: str = "auto",
    loop_patches: int = 100,
    progress: Callable[[Progress], None] = ignore_progress,
) -> BenchmarkReport:
    """Compute the map of a slide in every way and compare.

    Args:
        slide: the open slide.
        pack: the model; its network must have a dense mode.
        region_l0: only this part, level-0 px.
        stride_m: step between patches, model px; None: as the model says.
        precision: of the network.
        loop_patches: how many patches of the authors' loop are timed; the rest of it is reckoned.
        progress: told how far the current way is.

    Raises:
        NetworkInvalidError: the network has no dense mode.
        SlideError: the slide cannot be read.
    """
    predictor = Predictor.load(pack, precision)
    machine = rates.machine_gflops(predictor.policy)
    spec, stride_m = pack.manifest, stride_m or pack.manifest.default_stride
    per_pixel = rates.operations_per_pixel(predictor.model)
    rate = machine["convolution"] * 1e9
    modes, analyses, counts = {}, {}, {}
    # Dense first: the memory that it needs cannot hide under what another way took before it.
    for mode in (DENSE, PATCH):
        parameters = AnalysisParameters(spec.input.mpp, spec.input.patch, stride_m, 0.5, 1e4, 1e4, region_l0, mode)
        _warm_up(predictor, mode)
        counts[mode] = network = CountingNetwork(predictor)
        modes[mode], analyses[mode] = _timed(slide, network, parameters, per_pixel / rate, progress)
    analysis = analyses[PATCH]
    loop = _authors_loop(slide, predictor, analysis, loop_patches, per_pixel / rate)
    alone = _alone(predictor, analysis, stride_m)
    in_run = counts[DENSE].pixels / counts[DENSE].seconds
    return BenchmarkReport(
        machine={"device": predictor.device, "precision": predictor.policy, "cpus": os.cpu_count(), **machine},
        model=pack.name,
        slide={"name": slide.path.name, "tissue_mm2": analysis.map.tissue_area_um2 / 1e6, "stride": stride_m},
        modes=(loop, modes[PATCH], modes[DENSE]),
        network_alone={PATCH: alone[PATCH], DENSE: alone[DENSE]},
        ratios={
            "dense over patch mode, whole run": modes[PATCH].seconds / modes[DENSE].seconds,
            "dense over patch mode, network alone": alone[DENSE] / alone[PATCH],
            "dense over the authors' loop, whole run": loop.seconds / modes[DENSE].seconds,
            "network's share of a dense run": modes[DENSE].network_share,
            "convolution rate in the dense run over the network alone": in_run / alone["pixels"],
        },
    )


def _warm_up(predictor: Predictor, mode: str) -> None:
    """Graphs are built before the clock runs, as they are in a service."""
    if mode == DENSE:
        for positions in predictor.lane_positions:
            lane = predictor.open_lane(positions)
            lane.feed(np.zeros((lane.rows_m, lane.width_m, 3), np.uint8))


def _timed(
    slide: Slide,
    network: CountingNetwork,
    parameters: AnalysisParameters,
    seconds_per_pixel: float,
    progress: Callable[[Progress], None],
) -> tuple[ModeReport, Analysis]:
    before = slide.clock.seconds
    started = time.perf_counter()
    with PeakMemory() as memory:
        analysis = analyse(slide, network, parameters, {}, progress=progress)
    seconds = time.perf_counter() - started
    by_stage = {stage: value - before.get(stage, 0.0) for stage, value in analysis.seconds.items()}
    report = ModeReport(
        name=parameters.mode,
        patches=analysis.map.tissue_cells,
        seconds=seconds,
        seconds_by_stage=by_stage,
        network_share=network.seconds / seconds,
        share_of_machine=network.pixels * seconds_per_pixel / network.seconds,
        peak_memory_mb=memory.peak_mb,
    )
    return report, analysis


def _authors_loop(slide: Slide, predictor: Predictor, analysis: Analysis, sample: int, seconds_per_pixel: float) -> ModeReport:
    """One read and one `predict` for each patch, as the authors' script did it; a sample of patches, spread over the tissue."""
    lattice, grid = analysis.map.lattice, analysis.map.lattice.grid
    cells = np.argwhere(np.isfinite(analysis.map.values))
    chosen = cells[np.linspace(0, len(cells) - 1, min(sample, len(cells))).astype(int)]
    predictor.model.predict(np.zeros((1, grid.patch_m, grid.patch_m, 3), np.float32), verbose=0)
    reading = computing = 0.0
    with PeakMemory() as memory:
        for row, column in chosen:
            started = time.perf_counter()
            pixels = slide.read_region(grid.l0_from_m(lattice.patch_region_m(int(column), int(row))), grid.mpp)
            read = time.perf_counter()
            predictor.model.predict(pixels[None] / np.float32(255), verbose=0)
            computing += time.perf_counter() - read
            reading += read - started
    scale = len(cells) / len(chosen)
    return ModeReport(
        name=f"{LOOP} ({len(chosen)} patches, scaled)",
        patches=len(cells),
        seconds=(reading + computing) * scale,
        seconds_by_stage={"waiting": reading * scale, "network": computing * scale},
        network_share=computing / (reading + computing),
        share_of_machine=len(chosen) * grid.patch_m**2 * seconds_per_pixel / computing,
        peak_memory_mb=memory.peak_mb,
    )


def _alone(predictor: Predictor, analysis: Analysis, stride_m: int) -> dict[str, float]:
    """The widest lane that the map needs, and batches of patches."""
    grid: Grid = analysis.map.lattice.grid
    columns = analysis.map.lattice.columns * grid.stride_m / 16
    fitting = [positions for positions in predictor.lane_positions if positions <= columns]
    dense, pixels = rates.lane_alone(predictor, max(fitting, default=predictor.lane_positions[0]), stride_m)
    return {PATCH: rates.patches_per_second_alone(predictor), DENSE: dense, "pixels": pixels}
