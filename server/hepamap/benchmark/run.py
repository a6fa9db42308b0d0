"""One slide, one process, the same weights: the authors' loop, patch mode and dense mode."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np

from hepamap.benchmark import rates
from hepamap.benchmark.counting import CountingDetector, PeakMemory, give_back_memory
from hepamap.benchmark.report import BenchmarkReport, ModeReport
from hepamap.benchmark.survey import Survey, survey
from hepamap.detection import DetectionRequest, check_request, detect
from hepamap.model_pack import ModelPack, load_pack, rewrite_manifest
from hepamap.networks import NetworkInvalidError
from hepamap.networks.dense import can_be_dense
from hepamap.pipeline import Progress, ignore_progress
from hepamap.predictor import Predictor
from hepamap.probability_map import ProbabilityMap
from hepamap.results import open_result
from hepamap.slide import Slide

LOOP, PATCH, DENSE = "authors' loop", "patch", "dense"


@dataclass(frozen=True, slots=True)
class _Bench:
    """What all ways have in common."""

    request: DetectionRequest
    pack: ModelPack
    precision: str
    folder: Path
    """For results, which nobody wants."""
    progress: Callable[[Progress], None]
    warnings: dict[str, str] = field(default_factory=dict)
    """Messages by code: what the networks of all ways had to say."""

    @property
    def models_dir(self) -> Path:
        return self.pack.folder.parents[1]

    def note(self, predictor: Predictor) -> None:
        """Keep a network's warnings; it may have given way while it ran."""
        self.warnings.update(predictor.warnings)


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the machine can do at best."""

    rates: Mapping[str, float]
    """10⁹ operations a second, by kind."""
    seconds_per_pixel: float
    """That the network's operations for a pixel take at the rate of the convolution."""


def run_benchmark(
    slide: Path,
    pack: ModelPack,
    *,
    region: Any = None,
    stride_m: int | None = None,
    precision: str = "auto",
    loop_patches: int = 100,
    progress: Callable[[Progress], None] = ignore_progress,
) -> BenchmarkReport:
    """Compute the map of a slide in every way and compare.

    Patch and dense mode are timed as `detect` runs them with the model in memory, from opening the slide to the written result,
    which goes into a temporary folder. The authors' loop is reading and network alone: it wrote no such files.

    Args:
        slide: path of the slide.
        pack: the model; its network must have a dense mode, whether it was validated in it or not.
        region: GeoJSON, level-0 px: only this part.
        stride_m: step between patches, model px; None: as the model says.
        precision: of the network.
        loop_patches: how many patches of the authors' loop are timed; the rest of it is reckoned.
        progress: told how far the current way is.

    Raises:
        NetworkInvalidError: the network has no dense mode.
        ParameterError: the stride is none that the model allows, or none that dense mode can do.
        RegionEmptyError: there is no tissue.
        SlideError, RegionError: see each. All of these before anything is measured.
    """
    _require_dense_head(pack)
    with TemporaryDirectory(prefix="hepamap-bench-") as folder:
        allowing = _allowing_both(pack, Path(folder) / "models")
        request = DetectionRequest(slide, allowing.name, stride_m=stride_m, mode=DENSE, region=region, frame="level0")
        bench = _Bench(request, allowing, precision, Path(folder) / "results", progress)
        check_request(request, bench.models_dir)
        return _measure(bench, survey(request, bench.models_dir, bench.folder / "survey", progress), loop_patches)


def _measure(bench: _Bench, found: Survey, loop_patches: int) -> BenchmarkReport:
    """All that is measured, the ways one after the other, each with a network that is loaded for it alone.

    Patch mode takes long enough to meet the machine's good and bad minutes. Dense mode may meet one of them, so it runs before
    patch mode, after it, and after the authors' loop; the middle one of the three counts.
    """
    machine = _machine(bench)
    runs = [_timed(bench, DENSE, found, machine)]
    patch = _timed(bench, PATCH, found, machine).report
    runs.append(_timed(bench, DENSE, found, machine))
    loop = _authors_loop(bench, found.map, loop_patches, machine)
    runs.append(_timed(bench, DENSE, found, machine))
    middle = sorted(runs, key=lambda run: run.report.seconds)[len(runs) // 2]
    dense, ran_on = middle.report, middle.provenance
    stride_m = found.map.lattice.grid.stride_m
    alone = _alone(bench, found, stride_m)
    return BenchmarkReport(
        machine={"device": ran_on["device"], "precision": ran_on["precision"], "cpus": os.cpu_count(), **machine.rates},
        model=bench.pack.name,
        slide={"name": bench.request.slide_path.name, "tissue_mm2": found.map.tissue_area_um2 / 1e6, "stride": stride_m},
        modes=(loop, patch, dense),
        network_alone={PATCH: alone.patch, DENSE: alone.dense},
        dense_seconds=tuple(run.report.seconds for run in runs),
        ratios={
            "dense over patch mode, whole run": patch.seconds / dense.seconds,
            "dense over patch mode, network alone": alone.dense_over_patch,
            "dense over the authors' loop, whole run": loop.seconds / dense.seconds,
            "network's share of a dense run": dense.network_share,
            "convolution rate in the dense run over the network alone": middle.fed_per_s / alone.fed_per_s,
        },
        warnings=tuple({"code": code, "message": message} for code, message in bench.warnings.items()),
    )


def _require_dense_head(pack: ModelPack) -> None:
    head = pack.manifest.network.head
    if not can_be_dense(head):
        raise NetworkInvalidError(
            f"The model {pack.name} has the head {head}, which has no dense mode to compare with.",
            cure="Name a model with the head GAP.",
        )


def _allowing_both(pack: ModelPack, models_dir: Path) -> ModelPack:
    """The pack, or a copy that allows both modes: how fast dense mode is does not depend on whether it was validated."""
    if {PATCH, DENSE} <= set(pack.manifest.modes):
        return pack
    copy = models_dir / pack.manifest.id / pack.manifest.version
    shutil.copytree(pack.folder, copy)
    return rewrite_manifest(load_pack(copy), modes=(PATCH, DENSE))


def _machine(bench: _Bench) -> _Machine:
    predictor = Predictor.load(bench.pack, bench.precision)
    found = rates.machine_gflops(predictor.policy)
    return _Machine(found, rates.operations_per_pixel(predictor.model) / (found["convolution"] * 1e9))


@dataclass(frozen=True, slots=True)
class _Timed:
    """One whole run."""

    report: ModeReport
    provenance: Mapping[str, Any]
    """Of its map."""
    fed_per_s: float
    """Pixels that the network took a second."""


def _timed(bench: _Bench, mode: str, found: Survey, machine: _Machine) -> _Timed:
    """Run `detect` once."""
    give_back_memory()
    detector = CountingDetector(bench.models_dir, bench.precision)
    _warm_up(detector.loaded(bench.pack), mode, found)
    out = Path(mkdtemp(dir=bench.folder)) / mode
    with PeakMemory() as memory:
        started = time.perf_counter()
        summary = detect(replace(bench.request, mode=mode), out, detector, progress=bench.progress)
        seconds = time.perf_counter() - started
    assert detector.used is not None
    bench.note(detector.used)
    told, count = summary.result["seconds"], detector.count
    report = ModeReport(
        name=mode,
        patches=open_result(out).map.tissue_cells,
        seconds=seconds,
        seconds_by_stage=_stages(told, seconds),
        seconds_of_readers={stage: told.get(stage, 0.0) for stage in ("decode", "resample")},
        network_share=count.seconds / seconds,
        share_of_machine=count.pixels * machine.seconds_per_pixel / count.seconds,
        peak_memory_mb=memory.peak_mb,
    )
    return _Timed(report, summary.result["provenance"], count.pixels / count.seconds)


def _warm_up(predictor: Predictor, mode: str, found: Survey) -> None:
    """Build the graphs of the lanes that the map needs, and no others, before the clock runs.

    A process builds the graph of each width once, when the first slide needs it; on all slides after that it is there. The one
    for patches was built when the network was loaded.
    """
    for positions in found.lane_positions if mode == DENSE else ():
        lane = predictor.open_lane(positions)
        lane.feed(np.zeros((lane.rows_m, lane.width_m, 3), np.uint8))


def _stages(told: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What a run's own clock told, as stages of which one follows the other.

    Args:
        told: `seconds` of result.json; there `total` ends where writing begins.
        seconds: the whole run.
    """
    waiting, network = told.get("waiting", 0.0), told.get("network", 0.0)
    return {
        "opening": told["loading"],
        "waiting": waiting,
        "network": network,
        "map": told["map"] - waiting - network,
        "contours": told["contours"],
        "picture": told["total"] - told["loading"] - told["map"] - told["contours"],
        "writing": seconds - told["total"],
    }


def _authors_loop(bench: _Bench, tissue: ProbabilityMap, sample: int, machine: _Machine) -> ModeReport:
    """One read and one `predict` for each patch, as the authors' script did it; a sample of patches, spread over the tissue."""
    give_back_memory()
    lattice, grid = tissue.lattice, tissue.lattice.grid
    cells = np.argwhere(np.isfinite(tissue.values))
    chosen = cells[np.linspace(0, len(cells) - 1, min(sample, len(cells))).astype(int)]
    predictor = Predictor.load(bench.pack, bench.precision)
    predictor.model.predict(np.zeros((1, grid.patch_m, grid.patch_m, 3), np.float32), verbose=0)
    reading = computing = 0.0
    with Slide.open(bench.request.slide_path) as slide, PeakMemory() as memory:
        for row, column in chosen:
            started = time.perf_counter()
            pixels = slide.read_region(grid.l0_from_m(lattice.patch_region_m(int(column), int(row))), grid.mpp)
            read = time.perf_counter()
            predictor.model.predict(pixels[None] / np.float32(255), verbose=0)
            computing += time.perf_counter() - read
            reading += read - started
        readers = slide.clock.seconds
    bench.note(predictor)
    scale = len(cells) / len(chosen)
    return ModeReport(
        name=f"{LOOP} ({len(chosen)} patches, scaled)",
        patches=len(cells),
        seconds=(reading + computing) * scale,
        seconds_by_stage={"waiting": reading * scale, "network": computing * scale},
        seconds_of_readers={stage: value * scale for stage, value in readers.items()},
        network_share=computing / (reading + computing),
        share_of_machine=len(chosen) * grid.patch_m**2 * machine.seconds_per_pixel / computing,
        peak_memory_mb=memory.peak_mb,
    )


def _alone(bench: _Bench, found: Survey, stride_m: int) -> rates.Alone:
    """Batches of patches, and the widest lane that the map needs."""
    give_back_memory()
    predictor = Predictor.load(bench.pack, bench.precision)
    alone = rates.network_alone(predictor, max(found.lane_positions), stride_m)
    bench.note(predictor)
    return alone
