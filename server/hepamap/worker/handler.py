"""Does computations of kind `analysis`: the bridge between the job store, which knows no slides, and `detection`."""

from __future__ import annotations

from pathlib import Path

import structlog

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.errors import CancelledError, HepamapError
from hepamap.jobs.job import Computation, JobProgress, JobResult
from hepamap.jobs.runner import JobContext
from hepamap.model_pack import find_pack
from hepamap.pipeline import Progress
from hepamap.worker.checkpoint import FolderCheckpoint

_log = structlog.stdlib.get_logger(__name__)


class DetectionHandler:
    """Runs detections one after the other; the model that it used last stays in memory."""

    def __init__(self, detector: Detector, results_dir: Path, scratch_dir: Path) -> None:
        self._detector = detector
        self._results_dir = results_dir
        self._scratch_dir = scratch_dir
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """What keeps the model from working that was loaded before anybody asked; None: nothing, or nothing any more."""
        return next(iter(self._troubles.values()), None)

    def warm_up(self, model: str) -> None:
        """Load a model before anybody waits for it; where that fails, `trouble` says so, and the job that asks for it."""
        try:
            predictor = self._detector.predictor(find_pack(self._detector.models_dir, model))
        except HepamapError as error:
            self._troubles[model] = f"the model {model} could not be loaded ({error.code})"
            _log.warning("model_not_loaded", model=model, code=error.code, reason=error.message)
        else:
            warnings = [code for code, _ in predictor.warnings]
            _log.info("model_loaded", model=model, device=predictor.device, precision=predictor.policy, warnings=warnings)

    def __call__(self, work: Computation, context: JobContext) -> JobResult:
        """Run one detection into a folder of this start's own: a worker that was given up but is not dead has another one."""

        def report(progress: Progress) -> None:
            context.report(JobProgress(progress.done, progress.total, progress.stage))
            # Here too: before a model is loaded and before a result is written, nobody else asks.
            if context.cancelled():
                raise CancelledError

        folder = self._results_dir / f"{work.id}.{work.attempts}"
        request = DetectionRequest.from_json(work.payload["detection"])
        summary = detect(
            request,
            folder,
            self._detector,
            # A start before this one that was handed back has the same number.
            overwrite=True,
            progress=report,
            cancelled=context.cancelled,
            checkpoint=FolderCheckpoint(self._scratch_dir, work.pieces, context.kept),
        )
        self._forget_trouble(request.model)
        return JobResult(outcome=summary.outcome, warnings=tuple(summary.warnings), location=folder.name)

    def _forget_trouble(self, model: str) -> None:
        """What a model worked for proves that it can be loaded, by whichever name: jobs name the version, settings seldom do."""
        for name in tuple(self._troubles):
            if name == model or self._pack_of(name) == self._pack_of(model):
                del self._troubles[name]

    def _pack_of(self, model: str) -> str:
        try:
            return find_pack(self._detector.models_dir, model).name
        except (HepamapError, OSError):
            return model

    def clean_up(self, work: Computation) -> None:
        """Remove what only an unfinished detection needs."""
        FolderCheckpoint(self._scratch_dir, work.pieces).discard()
