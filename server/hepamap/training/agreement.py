"""How well predicted areas agree with the truth: overlap and displacement (pure geometry)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Lattice
from hepamap.training.masks import rasterise

_FINEST = 8  # mask pixels per cell when looking for a displacement
_MOST_PIXELS = 16_000_000  # of a mask; on a large slide its pixels are coarser, or the transforms would take gigabytes
_REACH_CELLS = 3  # a larger displacement would show as a low overlap


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much the prediction would have to move to lie best on the truth, in cells of the map."""

    x_cell: float
    y_cell: float


def intersection_over_union(predicted: BaseGeometry, truth: BaseGeometry) -> float:
    """Shared area over united area (Jaccard); 1 where both are empty."""
    union = shapely.union(predicted, truth).area
    return float(shapely.intersection(predicted, truth).area / union) if union else 1.0


def best_shift(predicted_l0: BaseGeometry, truth_l0: BaseGeometry, lattice: Lattice) -> Shift | None:
    """Find the displacement at which two areas overlap most.

    Both are drawn at an eighth of a cell (coarser on very large maps); the overlap at every displacement is their
    cross-correlation, computed by Fourier transform; the maximum is refined by a parabola.

    Args:
        predicted_l0: predicted tumour, level-0 px.
        truth_l0: true tumour, level-0 px.
        lattice: the map's lattice: gives the cell.

    Returns:
        The displacement, or None where either area is empty.
    """
    if predicted_l0.is_empty or truth_l0.is_empty:
        return None
    fine = max(1, min(_FINEST, int((_MOST_PIXELS / (lattice.columns * lattice.rows)) ** 0.5)))
    predicted, truth = _mask(predicted_l0, lattice, fine), _mask(truth_l0, lattice, fine)
    spectrum = np.fft.rfft2(truth) * np.conj(np.fft.rfft2(predicted))
    overlap = np.fft.irfft2(spectrum, s=predicted.shape)
    reach = fine * _REACH_CELLS
    near = np.roll(overlap, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = (int(index) for index in np.unravel_index(int(np.argmax(near)), near.shape))
    x = column - reach + _vertex(near[row], column)
    y = row - reach + _vertex(near[:, column], row)
    return Shift(x / fine, y / fine)


def _mask(area_l0: BaseGeometry, lattice: Lattice, fine: int) -> NDArray[np.float64]:
    """The area at a fraction of a cell, with a margin so that a displacement does not wrap round."""
    origin, cell, margin = lattice.origin_l0, lattice.cell_size_l0, _REACH_CELLS + 1

    def to_pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(((points - np.array([origin.x, origin.y])) / np.array([cell.x, cell.y]) + margin) * fine)

    width, height = ((side + 2 * margin) * fine for side in (lattice.columns, lattice.rows))
    return rasterise(shapely.transform(area_l0, to_pixels), width, height).astype(np.float64)


def _vertex(values: NDArray[np.float64], index: int) -> float:
    """Where between samples the parabola through a maximum and its neighbours has its vertex, -0.5 to 0.5."""
    if index in (0, len(values) - 1):
        return 0.0
    before, at, after = values[index - 1 : index + 2]
    curvature = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature else 0.0
