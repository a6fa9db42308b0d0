"""Area-averaging to an exact resolution, independent of the window that is read (pure arrays)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SNAP = 1e-6  # output pixels; an index this near to a whole number is that number, spoiled by floating point
_ROWS_AT_ONCE = 64  # that sums are made of: few enough that they stay in the processor's cache, which made it three times as fast


@dataclass(frozen=True, slots=True)
class Taps:
    """Which level pixels make each output pixel along one axis, with which weight.

    Attributes:
        start: first level px needed.
        end: one past the last level px needed.
        index: (outputs, taps) level px, counted from `start`.
        weight: (outputs, taps) float32, each row sums to 1.
        whole_ratio: level px per output px where outputs begin and end on level px, else None.
    """

    start: int
    end: int
    index: NDArray[np.intp]
    weight: NDArray[np.float32]
    whole_ratio: int | None


@dataclass(frozen=True, slots=True)
class AxisSampling:
    """Output pixels along one axis: pixel k covers level-0 px (first + k) · step_l0 to (first + k + 1) · step_l0."""

    first: float
    count: int
    step_l0: float

    @classmethod
    def of(cls, start_l0: float, length_l0: float, step_l0: float) -> AxisSampling:
        """The pixels of a stretch of level-0 px; their number is rounded, one at least."""
        first = start_l0 / step_l0
        if abs(first - round(first)) < _SNAP:
            first = float(round(first))
        return cls(first, max(1, round(length_l0 / step_l0)), step_l0)

    def taps(self, downsample: float, outputs: range) -> Taps:
        """The weights of a range of output pixels on a level.

        The edge of pixel k is computed from its place alone, so that the same pixel has the same weights in every window.
        """
        ratio = self.step_l0 / downsample
        edges = (self.first + np.arange(outputs.start, outputs.stop + 1, dtype=np.float64)) * ratio
        nearest = np.round(edges)
        edges = np.where(np.abs(edges - nearest) < _SNAP * max(1.0, ratio), nearest, edges)
        low, high = edges[:-1], edges[1:]
        first_px = np.floor(low).astype(np.intp)
        start, end = int(first_px[0]), max(math.ceil(edges[-1]), int(first_px[-1]) + 1)
        taps = int(np.max(np.ceil(high) - first_px))
        px = first_px[:, None] + np.arange(max(1, taps))
        overlap = np.minimum(high[:, None], px + 1) - np.maximum(low[:, None], px)
        weight = np.clip(overlap, 0.0, None)
        weight /= weight.sum(axis=1, keepdims=True)
        whole = round(ratio) if np.array_equal(edges, nearest) and np.all(np.diff(edges) == round(ratio)) else None
        return Taps(start, end, np.minimum(px, end - 1) - start, weight.astype(np.float32), whole)


def area_average(window: NDArray[np.uint8], x: Taps, y: Taps) -> NDArray[np.uint8]:
    """Average the level pixels under each output pixel, weighted by the area that they share.

    Args:
        window: RGB (y.end - y.start, x.end - x.start, 3), the level pixels.
        x: weights along x.
        y: weights along y.

    Returns:
        RGB (outputs along y, outputs along x, 3).
    """
    if x.whole_ratio == 1 and y.whole_ratio == 1:
        return window
    if x.whole_ratio is not None and y.whole_ratio is not None:
        size = (len(x.index), len(y.index))
        return np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_AREA), np.uint8)
    height, width, channels = window.shape
    rows = _weighted_rows(window.reshape(height, width * channels), y)
    columns = rows.reshape(len(y.index), width, channels).transpose(1, 0, 2)
    mixed = _weighted_rows(np.ascontiguousarray(columns).reshape(width, -1), x)
    mixed = mixed.reshape(len(x.index), len(y.index), channels).transpose(1, 0, 2)
    return np.asarray(np.rint(mixed), np.uint8)


def _weighted_rows(values: NDArray[np.uint8] | NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    """Weighted sums of rows: (rows, n) to (outputs, n); always in the order of the taps."""
    total = np.zeros((len(taps.index), values.shape[1]), np.float32)
    for first in range(0, len(total), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        weighted = np.empty_like(total[part])
        for index, weight in zip(taps.index[part].T, taps.weight[part].T, strict=True):
            np.multiply(values[index], weight[:, None], out=weighted)
            total[part] += weighted
    return total
