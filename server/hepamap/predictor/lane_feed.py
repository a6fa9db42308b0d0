"""One lane of a slide on its way through a network in dense mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.networks.dense import UNIT_M

_WHITE = 255

Step = Callable[[NDArray[np.float32], list[NDArray[Any]]], tuple[NDArray[np.float32], list[NDArray[Any]]]]
"""From a strip (1, H, W, 3), 0 to 1, and the carries to answers (H / 16, positions) and the next carries."""


class LaneFeed:
    """Takes rows of pixels from above and gives rows of answers; remembers what the next rows need."""

    def __init__(self, width_m: int, positions: int, rows_m: Callable[[], int], step: Step, carries: list[NDArray[Any]]) -> None:
        self.width_m = width_m
        self.positions = positions
        self._rows_m = rows_m
        self._step = step
        self._carries = carries

    @property
    def rows_m(self) -> int:
        """Height that is best fed at once, model px; may fall when memory runs short."""
        return self._rows_m()

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Go on by some rows.

        Args:
            pixels: RGB (R, width_m, 3); only the last feed of a lane may have an R that is no multiple of `rows_m`.

        Returns:
            (rows, positions) tumour probabilities, a row for 16 px, white rows added at the end of a lane included.

        Raises:
            PredictionInvalidError: the network answered something that is no probability.
            OutOfMemoryError: memory does not suffice for the smallest strip.
        """
        answers, done = [], 0
        while done < len(pixels):
            part = pixels[done : done + self._rows_m()]
            answers.append(self._advance(part))
            done += UNIT_M * len(answers[-1])
        return np.concatenate(answers)

    def _advance(self, part: NDArray[np.uint8]) -> NDArray[np.float32]:
        strip = np.full((1, self._rows_m(), self.width_m, 3), _WHITE, np.float32)
        strip[0, : len(part)] = part
        strip /= 255.0
        answer, self._carries = self._step(strip, self._carries)
        return answer
