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
    canvas = Canvas(spec)
    blank: Pixels = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
    blank[:] = canvas.glass
    description = f"hepamap synthetic slide, {spec.kind}, seed {spec.seed}. Not tissue of any patient."
    with PyramidWriter(path, sizes, spec.pixel_size, blank=blank, description=description) as file:
        _Pyramid(canvas, file, blank, progress).write()


class _Pyramid:
    """Paints tiles depth first: a tile of one level is finished before the next is begun, so memory stays flat."""

    def __init__(self, canvas: Canvas, file: PyramidWriter, blank: Pixels, progress: Report | None) -> None:
        self._canvas = canvas
        self._file = file
        self._blank = blank
        self._progress = progress
        self._sizes = level_sizes(canvas.spec.size_l0, _FACTOR)
        self._done = 0

    def write(self) -> None:
        """Write the single tile of the coarsest level, and so all below it."""
        self._tile(len(self._sizes) - 1, 0, 0)

    def _tile(self, level: int, column: int, row: int) -> Pixels | None:
        """Write a tile and all below it; its pixels, or None where all of it is blank."""
        side_l0 = TILE_PX * _FACTOR**level
        if self._canvas.is_glass(column * side_l0, row * side_l0, side_l0, side_l0):
            self._report(self._tiles_below(level, column, row))
            return None
        if level == 0:
            pixels = self._canvas.window(column * TILE_PX, row * TILE_PX, TILE_PX, TILE_PX)
            self._report(1)
        else:
            pixels = self._reduced(level, column, row)
        if pixels is not None:
            self._file.put(level, column, row, pixels)
        return pixels

    def _reduced(self, level: int, column: int, row: int) -> Pixels | None:
        """A tile of a coarser level, averaged from those below it."""
        part = TILE_PX // _FACTOR
        columns, rows = tiles_of(self._sizes[level - 1])
        pixels = self._blank.copy()
        for down in range(min(_FACTOR, rows - row * _FACTOR)):
            for right in range(min(_FACTOR, columns - column * _FACTOR)):
                below = self._tile(level - 1, column * _FACTOR + right, row * _FACTOR + down)
                if below is not None:
                    pixels[down * part : (down + 1) * part, right * part : (right + 1) * part] = cv2.resize(
                        below, (part, part), interpolation=cv2.INTER_AREA
                    )
        return pixels

    def _tiles_below(self, level: int, column: int, row: int) -> int:
        """Tiles of level 0 that a tile of any level covers."""
        columns, rows = tiles_of(self._sizes[0])
        span = int(_FACTOR**level)
        return min(span, columns - column * span) * min(span, rows - row * span)

    def _report(self, tiles: int) -> None:
        """Count tiles of level 0 as done."""
        self._done += tiles
        if self._progress is not None:
            self._progress(self._done, math.prod(tiles_of(self._sizes[0])))
