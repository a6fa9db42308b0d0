"""A network that counts what passes through it, and the memory that a process holds meanwhile."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import psutil
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.model_pack import ModelPack
from hepamap.networks.dense import UNIT_M
from hepamap.predictor import LaneFeed, Predictor

_SAMPLE_EVERY_S = 0.02


class Count:
    """What passed through networks: pixels, and the seconds that they took."""

    def __init__(self) -> None:
        self.pixels = 0
        self.seconds = 0.0

    def add(self, pixels: int, seconds: float) -> None:
        """Count."""
        self.pixels += pixels
        self.seconds += seconds


class CountingNetwork:
    """Passes everything on to a predictor and adds up pixels and seconds; what a pipeline takes for a network."""

    def __init__(self, predictor: Predictor, count: Count) -> None:
        self._predictor = predictor
        self._count = count

    def __getattr__(self, name: str) -> Any:
        """Whatever is not counted is the predictor's."""
        return getattr(self._predictor, name)

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the predictor's."""
        started = time.perf_counter()
        answer = self._predictor.predict(patches)
        self._count.add(patches.shape[0] * patches.shape[1] * patches.shape[2], time.perf_counter() - started)
        return answer

    def open_lane(self, positions: int) -> CountingLane:
        """As the predictor's."""
        return CountingLane(self._predictor.open_lane(positions), self._count)


class CountingLane:
    """A lane that counts."""

    def __init__(self, lane: LaneFeed, count: Count) -> None:
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
        # What is computed, not what is given: where a graph takes one height only, the last strip is filled up with white.
        self._count.add(UNIT_M * len(answer) * self._lane.width_m, time.perf_counter() - started)
        return answer


class CountingDetector(Detector):
    """As any detector; what its networks do in `detect` is counted."""

    def __init__(self, models_dir: Path, precision: str = "auto") -> None:
        super().__init__(models_dir, precision)
        self.count = Count()
        self.used: Predictor | None = None
        """The network that was handed out last, which nothing counts."""

    def predictor(self, pack: ModelPack) -> Predictor:
        """As the detector's."""
        self.used = None  # memory may not suffice for two
        return self._counting(super().predictor(pack))

    def exact_predictor(self, pack: ModelPack) -> Predictor:
        """As the detector's."""
        self.used = None
        return self._counting(super().exact_predictor(pack))

    def loaded(self, pack: ModelPack) -> Predictor:
        """The network of a pack, which nothing counts."""
        return super().predictor(pack)

    def _counting(self, predictor: Predictor) -> Predictor:
        self.used = predictor
        return cast(Predictor, CountingNetwork(predictor, self.count))


class PeakMemory:
    """Watches the memory of this process (resident set) while a `with` block runs.

    What nobody holds any more is given back to the system when the block begins, so that it does not count: the peak is that of
    the block's own work on top of what is held throughout, the interpreter, the libraries and the loaded network. It is looked
    at 50 times a second; what a GPU holds by itself is not in it, nor is it known what a library keeps for later use.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        give_back_memory()
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


def give_back_memory() -> None:
    """Drop what nobody holds any more, and hand freed blocks back to the system where the C library can (glibc)."""
    gc.collect()  # keras' networks hold each other
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
