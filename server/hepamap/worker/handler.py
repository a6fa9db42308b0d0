"""Does jobs of kind `analysis`: the bridge between the job store, which knows no slides, and `detection`."""

from __future__ import annotations

from pathlib import Path

from hepamap.detection import DetectionRequest, Detector, detect
from hepamap.jobs.job import Job, JobProgress, JobResult
from hepamap.jobs.runner import JobContext
from hepamap.pipeline import Progress

ANALYSIS = "analysis"
"""The kind of job that this handler does."""


class DetectionHandler:
    """Runs detections one after the other; the models it has used stay in memory."""

    def __init__(self, detector: Detector, results_dir: Path) -> None:
        self._detector = detector
        self._results_dir = results_dir

    def __call__(self, job: Job, context: JobContext) -> JobResult:
        """Run one detection into `<results>/<job id>`."""

        def report(progress: Progress) -> None:
            context.report(JobProgress(progress.done, progress.total, progress.stage))

        folder = self._results_dir / job.id
        summary = detect(
            DetectionRequest.from_json(job.payload["detection"]),
            folder,
            self._detector,
            # A start before this one may have finished the folder and died before it could say so.
            overwrite=True,
            progress=report,
            cancelled=context.cancelled,
        )
        return JobResult(outcome=summary.outcome, warnings=tuple(summary.warnings), location=folder.name)
