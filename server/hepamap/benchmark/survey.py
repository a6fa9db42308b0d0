"""A run of `detect` without a network: where there is tissue, and which lanes the network will be asked for.

It also leaves the slide in the system's cache and every library loaded, so that the first way that is timed is not the one to
pay for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.errors import RegionEmptyError
from hepamap.model_pack import ModelPack
from hepamap.networks.dense import UNIT_M
from hepamap.pipeline import Progress
from hepamap.predictor import Predictor
from hepamap.probability_map import ProbabilityMap
from hepamap.results import open_result

_ROWS_M = 64  # of the strips that a lane asks for, model px


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known before any network runs."""

    map: ProbabilityMap
    """NaN where there is no tissue; the other values mean nothing."""
    lane_positions: tuple[int, ...]
    """Widths of the lanes that dense mode takes here, each once, narrowest first; in patches 16 px apart."""


def survey(request: DetectionRequest, models_dir: Path, out: Path, progress: Callable[[Progress], None]) -> Survey:
    """Look at a slide in dense mode.

    Args:
        request: what will be asked of the network, its mode `dense`.
        models_dir: the folder of its model.
        out: folder for the result, which is good for nothing else.
        progress: told how far it is.

    Raises:
        RegionEmptyError: there is no tissue.
        HepamapError: as `detect`.
    """
    detector = _Surveyor(models_dir)
    detect(request, out, detector, progress=progress)
    found = open_result(out).map
    if not found.tissue_cells:
        raise RegionEmptyError("There is no tissue to measure on.", cure="Take another slide or region.")
    return Survey(found, tuple(sorted(detector.network.opened)))


class _Surveyor(Detector):
    """Has a network that costs nothing."""

    def __init__(self, models_dir: Path) -> None:
        super().__init__(models_dir)
        self.network = _Surveying()

    def predictor(self, pack: ModelPack) -> Predictor:
        return cast(Predictor, self.network)


class _Surveying:
    """Stands in for a network; notes the widths of lanes and answers zero."""

    device, policy = "cpu", "float32"
    warnings: Sequence[tuple[str, str]] = ()

    def __init__(self) -> None:
        self.lane_positions = Predictor.lane_positions
        self.opened: set[int] = set()

    def open_lane(self, positions: int) -> _Lane:
        self.opened.add(positions)
        return _Lane(positions)


class _Lane:
    """Answers when a lane of a network would, at the latest."""

    rows_m = _ROWS_M

    def __init__(self, positions: int) -> None:
        self._positions = positions
        self._fed_m = 0

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        before, self._fed_m = self._fed_m // UNIT_M, self._fed_m + len(pixels)
        return np.zeros((self._fed_m // UNIT_M - before, self._positions), np.float32)

    def finish(self) -> NDArray[np.float32]:
        return np.zeros((0, self._positions), np.float32)
