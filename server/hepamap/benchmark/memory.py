"""Whether memory depends on the size of a slide: `hepamap detect` on a small and on a very large one, each in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.errors import HepamapError
from hepamap.geometry import PixelSize, Size
from hepamap.phantom.canvas import Canvas
from hepamap.phantom.spec import PhantomSpec
from hepamap.phantom.tiff import TILE_PX, PyramidWriter, level_sizes

SMALL, LARGE = Size(20_000, 14_000), Size(100_000, 70_000)
_FACTOR = 4
_PIXEL_UM = 0.25


class BenchmarkFailedError(HepamapError):
    """A run that was to be measured failed."""

    code = "benchmark_failed"


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """One run of `hepamap detect`."""

    size: Size
    peak_mb: float
    """Most memory that the process held (maximum resident set)."""
    seconds: float
    """Start of the process, loading and writing counted."""


def measure_memory(
    model: str, models_dir: Path, *, mode: str = "dense", sizes: Sequence[Size] = (SMALL, LARGE), tell: Callable[[str], None]
) -> list[MemoryReport]:
    """Run `hepamap detect` on slides that are tissue from edge to edge, and note the peak of its memory.

    Args:
        model: id or id@version.
        models_dir: folder of the model packs.
        mode: `patch` or `dense`.
        sizes: of level 0 at 0.25 µm/px.
        tell: told what is being done.
    """
    reports = []
    with TemporaryDirectory() as folder:
        for size in sizes:
            slide = Path(folder) / f"{size.width}x{size.height}.tif"
            tell(f"{size.width} × {size.height} px")
            write_tissue_slide(slide, size)
            reports.append(_run(slide, size, model, models_dir, mode))
            slide.unlink()
    return reports


def write_tissue_slide(path: Path, size: Size) -> None:
    """A slide of one painted tile, repeated from edge to edge; written at once, because the repetition is in the directory."""
    spec = PhantomSpec(width_um=4000, height_um=4000, mpp_x=_PIXEL_UM, seed=1, artefacts=False)
    middle = round(spec.size_l0.width / 2)
    painted = Canvas(spec).window(middle, middle, TILE_PX, TILE_PX)
    assert painted is not None, "the middle of this synthetic slide is tissue"
    tile: NDArray[np.uint8] = painted
    sizes = level_sizes(size, _FACTOR)
    with PyramidWriter(path, sizes, PixelSize(_PIXEL_UM, _PIXEL_UM), blank=tile) as file:
        for level in range(len(sizes)):
            file.fill(level, tile)
            small = cv2.resize(tile, (TILE_PX // _FACTOR, TILE_PX // _FACTOR), interpolation=cv2.INTER_AREA)
            tile = np.tile(np.asarray(small, np.uint8), (_FACTOR, _FACTOR, 1))


def _run(slide: Path, size: Size, model: str, models_dir: Path, mode: str) -> MemoryReport:
    out = slide.with_suffix(".result")
    command = [sys.executable, "-m", "hepamap", "detect", str(slide), "--model", model, "--mode", mode, "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--models-dir", str(models_dir)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkFailedError(
            f"`hepamap detect` ended with status {process.returncode} on {size.width} × {size.height} px.",
            cure="Its own message stands above.",
        )
    return MemoryReport(size, usage.ru_maxrss / 1024, time.perf_counter() - started)
