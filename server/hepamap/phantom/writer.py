"""Writes a synthetic slide and its truth to disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.canvas import Canvas
from hepamap.phantom.spec import PhantomSpec
from hepamap.phantom.tiff import TILE_PX, PyramidWriter, level_sizes, tiles_of
from hepamap.phantom.truth import write_truth

_FACTOR = 4
_QUALITY = 85

Pixels = NDArray[np.uint8]
Report = Callable[[int, int], None]
"""Told (tiles done, tiles in all), both of level 0."""


def write_phantom(spec: PhantomSpec, slide_path: Path, truth_path: Path | None = None, *, progress: Report | None = None) -> None:
    """Paint a synthetic slide.

    Args:
        spec: which slide.
        slide_path: the pyramidal TIFF to write; appears only when it is complete.
        truth_path: the GeoJSON of its truth; none where None.
        progress: is told how many tiles of level 0 are done.
    """
    unfinished = slide_path.with_name(slide_path.name + ".part")
    try:
        _write_slide(spec, unfinished, progress)
        if truth_path is not None:
            write_truth(spec, truth_path)
        unfinished.replace(slide_path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_slide(spec: PhantomSpec, path: Path, progress: Report | None) -> None:
    """Write all levels at once."""
    sizes = level_sizes(spec.size_l0, _FACTOR)
    description = f"hepamap synthetic slide, {spec.kind}, seed {spec.seed}. Not tissue of any patient."
    canvas = Canvas(spec)
    with PyramidWriter(path, sizes, spec.pixel_size, description, _QUALITY) as file:
        _Pyramid(canvas, file, progress).write()


class _Pyramid:
    """Paints tiles depth first: a tile of one level is finished before the next is begun, so memory stays flat."""

    def __init__(self, canvas: Canvas, file: PyramidWriter, progress: Report | None) -> None:
        self._canvas = canvas
        self._file = file
        self._progress = progress
        self._sizes = level_sizes(canvas.spec.size_l0, _FACTOR)
        self._blank: Pixels = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
        self._blank[:] = canvas.glass
        self._done = 0

    def write(self) -> None:
        """Write the single tile of the coarsest level, and so all below it."""
        self._tile(len(self._sizes) - 1, 0, 0)

    def _tile(self, level: int, column: int, row: int) -> Pixels | None:
        """Write a tile and all below it; its pixels, or None where it is blank or outside."""
        columns, rows = tiles_of(self._sizes[level])
        if column >= columns or row >= rows:
            return None
        pixels = self._painted(column, row) if level == 0 else self._reduced(level, column, row)
        self._file.put(level, column, row, self._blank if pixels is None else pixels)
        return pixels

    def _painted(self, column: int, row: int) -> Pixels | None:
        """A tile of level 0."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, math.prod(tiles_of(self._sizes[0])))
        return self._canvas.window(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX)

    def _reduced(self, level: int, column: int, row: int) -> Pixels | None:
        """A tile of a coarser level, averaged from those below it."""
        part = TILE_PX // _FACTOR
        pixels: Pixels | None = None
        for index in range(_FACTOR * _FACTOR):
            down, right = divmod(index, _FACTOR)
            below = self._tile(level - 1, column * _FACTOR + right, row * _FACTOR + down)
            if below is None:
                continue
            if pixels is None:
                pixels = self._blank.copy()
            pixels[down * part : (down + 1) * part, right * part : (right + 1) * part] = cv2.resize(
                below, (part, part), interpolation=cv2.INTER_AREA
            )
        return pixels
