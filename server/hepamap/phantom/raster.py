"""Points and discs on the array of one block."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import Field, Mask

_SHIFT = 4

Value = TypeVar("Value", bound=np.generic)


def at(field: NDArray[Value], x_px: NDArray[np.float32], y_px: NDArray[np.float32]) -> NDArray[Value]:
    """A field at points; points outside read the nearest edge."""
    rows = np.clip(y_px.astype(np.int64), 0, field.shape[0] - 1)
    columns = np.clip(x_px.astype(np.int64), 0, field.shape[1] - 1)
    found: NDArray[Value] = field[rows, columns]
    return found


def discs(canvas: Mask, x_px: NDArray[np.floating], y_px: NDArray[np.floating], radius_px: NDArray[np.floating]) -> None:
    """Draw filled discs in place, with smooth edges; positions are real-valued px (0.5 is a pixel's centre)."""
    scale = 1 << _SHIFT
    for x, y, radius in zip(
        ((x_px - 0.5) * scale).astype(int).tolist(),
        ((y_px - 0.5) * scale).astype(int).tolist(),
        (radius_px * scale).astype(int).tolist(),
        strict=True,
    ):
        cv2.circle(canvas, (x, y), radius, 255, -1, cv2.LINE_AA, _SHIFT)


def unit(mask: Mask) -> Field:
    """A mask as 0 to 1."""
    return mask.astype(np.float32) * np.float32(1 / 255)
