"""A network that counts what passes through it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from hepamap.networks.dense import UNIT_M
from hepamap.predictor import LaneFeed, Predictor

_SAMPLE_EVERY_S = 0.02


class CountingNetwork:
    """Passes everything on to a predictor and adds up pixels and seconds; what a pipeline takes for a network."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.pixels = 0
        self.seconds = 0.0

    @property
    def batch_size(self) -> int:
        """As the predictor's."""
        return self._predictor.batch_size

    @property
    def lane_positions(self) -> Sequence[int]:
        """As the predictor's."""
        return self._predictor.lane_positions

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the predictor's."""
        started = time.perf_counter()
        answer = self._predictor.predict(patches)
        self.add(patches.shape[0] * patches.shape[1] * patches.shape[2], time.perf_counter() - started)
        return answer

    def open_lane(self, positions: int) -> CountingLane:
        """As the predictor's."""
        return CountingLane(self._predictor.open_lane(positions), self)

    def add(self, pixels: int, seconds: float) -> None:
        """Count."""
        self.pixels += pixels
        self.seconds += seconds


class CountingLane:
    """A lane that counts."""

    def __init__(self, lane: LaneFeed, count: CountingNetwork) -> None:
        self._lane = lane
        self._count = count

    @property
    def rows_m(self) -> int:
        """As the lane's."""
        return self._lane.rows_m

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the lane's."""
        return self._counted(self._lane.feed, pixels)

    def finish(self) -> NDArray[np.float32]:
        """As the lane's."""
        return self._counted(self._lane.finish)

    def _counted(self, work: Callable[..., NDArray[np.float32]], *given: Any) -> NDArray[np.float32]:
        started = time.perf_counter()
        answer = work(*given)
        # What is computed, not what is given: the last strip of a lane is filled up with white.
        self._count.add(UNIT_M * len(answer) * self._lane.width_m, time.perf_counter() - started)
        return answer


class PeakMemory:
    """Watches the memory of this process (resident set) while a `with` block runs."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 2**20)
            if self._stop.wait(_SAMPLE_EVERY_S):
                return
