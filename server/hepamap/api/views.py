"""From a job to the answer that a client sees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from hepamap.api.schemas import (
    AnalysisAnswer,
    ChosenThresholdAnswer,
    FailureAnswer,
    FrameAnswer,
    LinksAnswer,
    ProgressAnswer,
    WarningAnswer,
)
from hepamap.api.services import Services
from hepamap.api.submission import without_folder
from hepamap.jobs.job import Job
from hepamap.jobs.states import JobState
from hepamap.verdicts.verdict import ChosenThreshold

API_PREFIX = "/api/v1"


def analysis_answer(
    job: Job, services: Services, *, in_list: bool = False, chosen: ChosenThreshold | None = None
) -> AnalysisAnswer:
    """A job as its clients see it.

    Args:
        job: the job.
        services: for the place of uploads, which clients never see.
        in_list: leave out the region, which can be megabytes.
        chosen: the threshold that a person chose for it.
    """
    own = analysis_path(job)
    result = job.result
    return AnalysisAnswer(
        id=job.id,
        state=job.state,
        outcome=None if result is None else result.outcome,
        progress=_progress(job),
        frame=FrameAnswer.model_validate(job.payload["frame"]),
        warnings=[WarningAnswer.model_validate(warning) for warning in (() if result is None else result.warnings)],
        error=failure_answer(job, services),
        cancel_requested=job.state is JobState.CANCELLED,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        chosen_threshold=None if chosen is None else ChosenThresholdAnswer.model_validate(chosen, from_attributes=True),
        identity=job.payload["identity"],
        request=_shown(job.payload["request"], with_region=not in_list),
        links=LinksAnswer.model_validate(
            {"self": own, "contours": f"{own}/contours", "probability_map": f"{own}/probability-map"}
        ),
    )


def chosen_of(job: Job, services: Services) -> ChosenThreshold | None:
    """The threshold that a person chose for an analysis; asks the database, where there can be one."""
    return None if job.result is None else services.thresholds.of([job.id]).get(job.id)


def analysis_path(job: Job) -> str:
    """Where an analysis is found on this server."""
    return f"{API_PREFIX}/analyses/{job.id}"


def failure_answer(job: Job, services: Services) -> FailureAnswer | None:
    """Why a job failed, without the place of its upload."""
    failure = job.failure
    if failure is None:
        return None
    message = failure.message
    if job.upload is not None:
        message = without_folder(message, services.settings.uploads_dir / job.upload)
    return FailureAnswer(code=failure.code, message=message, cure=failure.cure)


def _progress(job: Job) -> ProgressAnswer:
    progress = job.progress
    if job.state is JobState.SUCCEEDED:
        total = progress.total or progress.done
        return ProgressAnswer(done=total, total=total, stage="finished", fraction=1.0, eta_s=0.0)
    fraction = min(1.0, progress.done / progress.total) if progress.total else 0.0
    eta_s = None
    if job.state is JobState.RUNNING and job.stage_started_at is not None and fraction > 0.0:
        elapsed_s = (datetime.now(UTC) - job.stage_started_at).total_seconds()
        eta_s = round(max(0.0, elapsed_s * (1.0 - fraction) / fraction), 1)
    stage = job.state.value if job.finished else progress.stage
    return ProgressAnswer(done=progress.done, total=progress.total, stage=stage, fraction=fraction, eta_s=eta_s)


def _shown(request: Mapping[str, Any], *, with_region: bool) -> dict[str, Any]:
    shown = {name: value for name, value in request.items() if with_region or name != "region"}
    callback = shown.get("callback")
    if callback is not None:
        # The rest of an address may be a secret between its sender and the receiver, and others may read this.
        host = urlsplit(callback["url"]).hostname
        shown["callback"] = {"host": host, **{name: value for name, value in callback.items() if name != "url"}}
    return shown
