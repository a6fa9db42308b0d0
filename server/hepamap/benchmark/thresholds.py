"""How long a threshold takes on the map of a resection, over REST: what lies between letting go of a slider and the contours."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from hepamap.api.app import create_app
from hepamap.api.serve import spare_the_loaded
from hepamap.api.services import Services
from hepamap.geometry import Grid, Lattice, PixelSize, Point, Region, Size
from hepamap.jobs.job import JobResult, Question
from hepamap.pipeline import Analysis, regions_of
from hepamap.probability_map import ProbabilityMap
from hepamap.results import Frame, summary_of, write_result
from hepamap.settings import Settings

RESECTION = Size(850, 1700)
"""Columns and rows of the map of 25 × 50 mm at steps of 29.44 µm."""
_THRESHOLDS = tuple(round(0.05 + 0.03 * step, 2) for step in range(31))
_GRID = Grid(1.84, 64, 16, PixelSize(0.23, 0.23))
_AREA_UM2 = 10_000.0
_START_S = 30


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """Times over all thresholds, ms."""

    regions: tuple[int, int]
    """Fewest and most tumour regions of a threshold."""
    over_rest: tuple[float, float]
    """Median and longest: request, contours, GeoJSON, answer, as a client sees it."""
    contours: tuple[float, float]
    """Of that, tracing the regions."""
    opencv: tuple[float, float]
    """`cv2.findContours` on the same cells: outlines of pixels without areas, statistics, smoothing or text."""


def measure_thresholds(size: Size = RESECTION, thresholds: Sequence[float] = _THRESHOLDS) -> ThresholdReport:
    """Put a map into a server of this process and ask it for contours at many thresholds.

    Args:
        size: columns and rows of the map.
        thresholds: what is asked for, each once, so that no answer is one that was given before.
    """
    probability_map = ragged_map(size)
    counts: list[int] = []
    tracing: list[float] = []
    plain: list[float] = []
    asking: list[float] = []
    with TemporaryDirectory() as folder, _serving(Path(folder), probability_map) as url, httpx.Client() as client:
        for threshold in thresholds:
            found = _timed(tracing, lambda t=threshold: regions_of(probability_map, t, _AREA_UM2, _AREA_UM2))  # type: ignore[misc]
            counts.append(len(found))
            cells = (probability_map.values >= threshold).astype(np.uint8)
            _timed(plain, lambda c=cells: cv2.findContours(c, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE))  # type: ignore[misc]
            answer = _timed(asking, lambda t=threshold: client.get(url, params={"threshold": t}))  # type: ignore[misc]
            assert len(answer.raise_for_status().json()["features"]) == len(found)
    return ThresholdReport((min(counts), max(counts)), _summary(asking), _summary(tracing), _summary(plain))


def markdown(report: ThresholdReport, size: Size = RESECTION) -> str:
    """The report as a Markdown table."""
    rows = (
        ("contours over REST", report.over_rest),
        ("tracing alone", report.contours),
        ("cv2.findContours alone", report.opencv),
    )
    return "\n".join(
        [
            f"A map of {size.width} × {size.height} cells, {report.regions[0]} to {report.regions[1]} regions a threshold.",
            "",
            "| | median (ms) | longest (ms) | over cv2.findContours |",
            "|---|---|---|---|",
            *(f"| {name} | {ms[0]:.0f} | {ms[1]:.0f} | {ms[0] / report.opencv[0]:.1f} |" for name, ms in rows),
            "",
        ]
    )


def ragged_map(size: Size, seed: int = 0) -> ProbabilityMap:
    """A map with large and small regions, holes, ragged edges, and glass around and within."""
    rng = np.random.default_rng(seed)

    def field(cells: int) -> NDArray[np.float64]:
        coarse = rng.normal(size=(size.height // cells + 2, size.width // cells + 2))
        return np.asarray(cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC))

    large, middle, fine = field(80), field(12), field(3)
    values = (1 / (1 + np.exp(-(4 * large + 1.5 * middle + 0.5 * fine)))).astype(np.float32)
    values[field(120) < -1] = np.nan
    margin = max(1, min(size.width, size.height) // 20)
    values[:margin], values[-margin:], values[:, :margin], values[:, -margin:] = (np.nan,) * 4
    return ProbabilityMap(values, Lattice(_GRID, 0, 0, size.width, size.height), _PROVENANCE)


_PROVENANCE: Mapping[str, Any] = {
    "software": {"version": "benchmark", "commit": "none"},
    "model": {"id": "benchmark", "version": "1.0.0", "weights_sha256": "none"},
    "slide": {"fingerprint": "none", "bounds_l0": [0, 0, 1, 1]},
    "mode": "patch",
    "stride_m": 16,
}


@contextmanager
def _serving(folder: Path, probability_map: ProbabilityMap) -> Iterator[str]:
    """A server that has the map as the result of an analysis; gives the address of its contours."""
    settings = Settings(data_dir=folder, embedded_worker=False, port=0, min_free_bytes=0)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        identifier = _plant(app.state.services, probability_map)
        spare_the_loaded()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/api/v1/analyses/{identifier}/contours"
    finally:
        server.should_exit = True
        thread.join()
        gc.unfreeze()


def _plant(services: Services, probability_map: ProbabilityMap) -> str:
    """Store the map as a worker would."""
    regions = regions_of(probability_map, 0.5, _AREA_UM2, _AREA_UM2)
    analysis = Analysis(probability_map, regions, "ok", [])
    parameters = {"threshold": 0.5, "min_area_um2": _AREA_UM2, "min_hole_area_um2": _AREA_UM2}
    frame = Frame("level0", Point(0.0, 0.0))
    store = services.store
    job = store.submit(Question("benchmark", "benchmark", {}, {})).job
    claimed = store.claim()
    assert claimed is not None
    write_result(
        services.settings.results_dir / claimed.id,
        analysis,
        summary_of(analysis, frame, parameters),
        frame,
        np.full((8, 8, 3), 255, np.uint8),
        Region(0.0, 0.0, 8.0, 8.0),
    )
    store.succeed(claimed, JobResult("ok", (), claimed.id))
    return job.id


def _timed(times: list[float], work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    answer = work()
    times.append(1000 * (time.perf_counter() - started))
    return answer


def _summary(times: Sequence[float]) -> tuple[float, float]:
    return statistics.median(times), max(times)
