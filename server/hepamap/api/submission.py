"""From a request to a queued job: everything that can be refused is refused here, before anybody waits."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import ValidationError
from structlog.contextvars import get_contextvars

from hepamap.api.errors import RequestInvalidError, parse_invalid
from hepamap.api.idempotency import mark
from hepamap.api.schemas import AnalysisRequest
from hepamap.api.services import Services
from hepamap.api.uploads import Received
from hepamap.detection import ANALYSIS, ClientView, DetectionRequest, check_request
from hepamap.errors import HepamapError
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import Idempotency, Job, JobResult, Question, Submission
from hepamap.results import SUMMARY_NAME, frame_json

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # in JSON it cannot stand but like this
REGION_PRIORITY = 10
"""Priority of a region where the request names none."""


def submit(received: Received, services: Services, *, idempotency_key: str | None = None, caller: str = "local") -> Submission:
    """Check a request and make a job of it; an upload is removed where the request is refused, or already answered.

    It stays where nobody knows whether the job was stored: in its analysis, or until it is a stray.

    Args:
        received: what came in.
        services: what the server has.
        idempotency_key: the client's mark on a request that it may send again.
        caller: whose mark it is; others may have the same one.

    Raises:
        HepamapError: whatever is wrong with it.
    """
    try:
        submission = _submit(received, services, idempotency_key, caller)
    except JobStoreError as error:
        if not error.perhaps_stored:
            received.discard()
        raise
    except HepamapError as error:
        if received.folder is not None:
            error.message = without_folder(error.message, received.folder)
        received.discard()
        raise
    except BaseException:
        received.discard()
        raise
    if submission.shared:
        # The computation has the very same slide from somebody else.
        received.discard()
    return submission


def without_folder(text: str, folder: Path) -> str:
    """A sentence without the server's own place of an upload: the client knows only its file name."""
    return text.replace(f"{folder}/", "")


def _submit(received: Received, services: Services, idempotency_key: str | None, caller: str) -> Submission:
    try:
        request = AnalysisRequest.model_validate_json(received.json)
    except ValidationError as error:
        raise parse_invalid(error) from error
    idempotency = None if idempotency_key is None else _idempotency(idempotency_key, caller, request, received)
    # Before the slide is looked at: it may have gone since, and the answer is the same all the same.
    repeated = None if idempotency is None else services.store.find_repeated(idempotency)
    brings_slide = received.folder is not None or request.slide.upload is not None
    if repeated is not None and not (brings_slide and _lacks_slide(repeated, services)):
        return Submission(repeated, repeated=True, shared=True)
    if request.callback is not None:
        # Refused now, and not when the analysis has finished and nobody looks.
        services.callback_targets.target_of(request.callback.url)
        services.callback_secrets.get(request.callback.secret_id)
    path = _slide_path(request, received, services)
    if _NUL.search(received.json):
        raise RequestInvalidError("The request has a NUL in a text.", cure="Send texts without it; databases do not store it.")
    detection = _detection_request(request, path, services.settings.default_model)
    checked = services.readers.run(check_request, detection, services.settings.models_dir)
    question = Question(
        kind=ANALYSIS,
        key=checked.key,
        # With the request's id in the worker's log, both logs can be read as one.
        work={"detection": checked.pinned(detection).to_json(), "request_id": get_contextvars().get("request_id")},
        payload={
            "request": request.model_dump(mode="json", exclude={"identity"}, exclude_unset=True),
            "identity": None if request.identity is None else request.identity.model_dump(exclude_unset=True),
            "frame": frame_json(checked.frame),
            "fingerprint": checked.slide["fingerprint"],
        },
        priority=_priority(request),
        upload=None if received.folder is None else received.folder.name,
        anew=bool(request.recompute),
    )
    return services.store.submit(
        question,
        idempotency=idempotency,
        usable=lambda result: not request.recompute and _is_stored(result, services),
        is_there=lambda upload: _is_kept(upload, services),
    )


def _lacks_slide(job: Job, services: Services) -> bool:
    """Whether a job cannot be done any more unless it gets the slide that comes with its request now."""
    return not job.finished and job.upload is not None and not _is_kept(job.upload, services)


def _is_kept(upload: str, services: Services) -> bool:
    return (services.settings.uploads_dir / upload).is_dir()


def _is_stored(result: JobResult, services: Services) -> bool:
    return (services.settings.results_dir / result.location / SUMMARY_NAME).is_file()


def _priority(request: AnalysisRequest) -> int:
    """A region has somebody who waits for it in front of a screen; whole slides come in batches."""
    if request.priority is not None:
        return request.priority
    return 0 if request.region is None else REGION_PRIORITY


def _idempotency(key: str, caller: str, request: AnalysisRequest, received: Received) -> Idempotency:
    content = hashlib.sha256(request.model_dump_json(exclude_unset=True).encode())
    content.update(received.digest())
    return mark(key, caller, content.hexdigest())


def _slide_path(request: AnalysisRequest, received: Received, services: Services) -> Path:
    given = [one for one in (request.slide.path, request.slide.upload, received.slide) if one is not None]
    if len(given) != 1:
        wrong = "names no slide" if not given else "names more than one slide"
        raise RequestInvalidError(f"The request {wrong}.", cure="Send one of `slide.path`, `slide.upload` and a file.")
    if request.slide.path is not None:
        return services.readers.run(services.slide_folders.find, request.slide.path)
    if request.slide.upload is not None:
        received.folder, received.slide = services.uploads.adopt(request.slide.upload)
    assert received.slide is not None
    return received.slide


def _detection_request(request: AnalysisRequest, path: Path, default_model: str) -> DetectionRequest:
    return DetectionRequest(
        slide_path=path,
        model=request.model or default_model,
        stride_m=request.stride,
        mode=request.mode,
        threshold=request.threshold,
        min_area_um2=request.min_area_um2,
        region=request.region,
        mpp_override_um=request.mpp_um,
        client_view=None if request.client_view is None else ClientView(**request.client_view.model_dump()),
    )
