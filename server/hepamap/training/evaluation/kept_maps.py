"""Maps of an evaluation on the disk: each is computed once, also when the evaluation was killed in between."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hepamap.detection import DetectionRequest, Detector, check_request, detect
from hepamap.errors import ResultDamagedError
from hepamap.pipeline import Progress
from hepamap.results import StoredResult, open_result
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluation.plan import ModelRun

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


class KeptMaps:
    """A folder of result folders, each named by its slide and by a hash of slide, weights, parameters and precision."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        self._folder = folder
        self._detector = detector

    def result_of(self, row: CohortSlide, run: ModelRun, progress: Callable[[Progress], None]) -> StoredResult:
        """The result of a model on a slide, through the pipeline that serves; from the disk where it is there.

        Raises:
            HepamapError: as `hepamap.detection.detect`.
        """
        request = DetectionRequest(
            row.slide,
            run.pack.name,
            stride_m=run.stride_m,
            mode=run.mode,
            mpp_override_um=row.mpp_override_um,
            computes=run.pack.computes,  # a model that is replaced meanwhile ends the evaluation
        )
        key = check_request(request, self._detector.models_dir).key
        digest = hashlib.sha256(f"{key} {self._detector.precision}".encode()).hexdigest()
        folder = self._folder / f"{_ODD.sub('_', row.slide.stem)[:40]}-{digest[:16]}"
        with suppress(ResultDamagedError):
            return open_result(folder)
        detect(request, folder, self._detector, overwrite=True, progress=progress)
        return open_result(folder)
