"""A worker that makes real maps with a slow, simple network in place of a trained one; each answer leaves a line in a file.

While there is a file `hold` in the data folder, no analysis gets beyond opening its slide.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hepamap.detection import ANALYSIS, Detector
from hepamap.jobs.processes import configure_logging
from hepamap.model_pack import ModelPack
from hepamap.predictor import Predictor
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from hepamap.worker.main import Handlers, run_worker


class Brightness:
    """Answers how dark a patch is."""

    batch_size = 8
    device = "cpu"
    policy = "float32"
    warnings: tuple[tuple[str, str], ...] = ()

    def __init__(self, pause_s: float, log: Path | None = None) -> None:
        self._pause_s = pause_s
        self._log = log

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self._pause_s)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{os.getpid()} {len(patches)}\n")
        answers: NDArray[np.float32] = (1 - patches.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
        return answers


class BrightnessDetector(Detector):
    def __init__(self, models_dir: Path, pause_s: float, log: Path | None = None, hold: Path | None = None) -> None:
        super().__init__(models_dir)
        self._network = Brightness(pause_s, log)
        self._hold = hold

    def predictor(self, pack: ModelPack) -> Predictor:
        while self._hold is not None and self._hold.exists():
            time.sleep(0.02)
        return cast(Predictor, self._network)


def handlers_of(settings: Settings) -> Handlers:
    detector = BrightnessDetector(settings.models_dir, 0.02, settings.data_dir / "answers.log", settings.data_dir / "hold")
    handler = DetectionHandler(detector, settings.results_dir, settings.scratch_dir)
    return Handlers({ANALYSIS: handler}, clean_up=handler.clean_up)


if __name__ == "__main__":
    configure_logging()
    run_worker(Settings(), owner=sys.stdin.buffer, handlers_of=handlers_of)
