"""One lane of a slide on its way through a network in dense mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WHITE = 255

Step = Callable[[NDArray[np.float32], list[NDArray[Any]]], tuple[NDArray[np.float32], list[NDArray[Any]]]]
"""From a strip (1, H, W, 3), 0 to 1, and the carries to answers (H / 16, positions) and the next carries."""


class LaneFeed:
    """Takes rows of pixels from above and gives rows of answers; remembers what the next rows need."""

    def __init__(
        self,
        width_m: int,
        rows_m: Callable[[], int],
        step: Step,
        carries: list[NDArray[Any]],
        *,
        last_multiple_m: int | None = None,
    ) -> None:
        """Before the first row.

        Args:
            width_m: of the lane, model px.
            rows_m: height of the strips that are computed at once.
            step: computes one strip.
            carries: what it remembers at first.
            last_multiple_m: the last strip's height is a multiple of it; None: as high as the others.
        """
        self.width_m = width_m
        self._rows_m = rows_m
        self._last_multiple_m = last_multiple_m
        self._step = step
        self._carries = carries
        self._kept: list[NDArray[np.uint8]] = []

    @property
    def rows_m(self) -> int:
        """Height of the strips that are computed at once, model px; may fall when memory runs short."""
        return self._rows_m()

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Go on by some rows; what does not fill a strip waits for the next.

        Args:
            pixels: RGB (R, width_m, 3), any R.

        Returns:
            (rows, positions) tumour probabilities, a row for 16 px; may be none.

        Raises:
            PredictionInvalidError: the network answered something that is no probability.
            OutOfMemoryError: memory does not suffice for the smallest strip.
        """
        waiting = np.concatenate([*self._kept, pixels])
        answers = []
        while len(waiting) >= self.rows_m:
            strip, waiting = waiting[: self.rows_m], waiting[self.rows_m :]
            answers.append(self._advance(strip))
        self._kept = [waiting]
        return _joined(answers)

    def finish(self) -> NDArray[np.float32]:
        """The answers of the rows that still wait, with white below them as far as a strip needs it; as `feed`."""
        missing = -sum(map(len, self._kept)) % (self._last_multiple_m or self.rows_m)
        answers = [self.feed(np.full((missing, self.width_m, 3), _WHITE, np.uint8))]
        last, self._kept = np.concatenate(self._kept), []
        if len(last):
            answers.append(self._advance(last))
        return _joined([rows for rows in answers if len(rows)])

    def _advance(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer, self._carries = self._step(pixels[None].astype(np.float32) / np.float32(_WHITE), self._carries)
        return answer


def _joined(answers: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(answers) if answers else np.zeros((0, 0), np.float32)
