"""From a request to a queued job: everything that can be refused is refused here, before anybody waits."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hepamap.api.errors import RequestInvalidError, parse_invalid
from hepamap.api.schemas import AnalysisRequest
from hepamap.api.services import Services
from hepamap.api.uploads import Received
from hepamap.detection import ClientView, DetectionRequest, check_request
from hepamap.errors import HepamapError
from hepamap.jobs.job import Job
from hepamap.results import frame_json

ANALYSIS = "analysis"
"""The kind of job that the worker's handler does."""


def submit(received: Received, services: Services) -> Job:
    """Check a request and queue it; an upload is removed where the request is refused.

    Raises:
        HepamapError: whatever is wrong with it.
    """
    try:
        return _submit(received, services)
    except HepamapError as error:
        if received.folder is not None:
            error.message = without_folder(error.message, received.folder)
        received.discard()
        raise
    except BaseException:
        received.discard()
        raise


def without_folder(text: str, folder: Path) -> str:
    """A sentence without the server's own place of an upload: the client knows only its file name."""
    return text.replace(f"{folder}/", "")


def _submit(received: Received, services: Services) -> Job:
    try:
        request = AnalysisRequest.model_validate_json(received.json)
    except ValidationError as error:
        raise parse_invalid(error) from error
    path = _slide_path(request, received, services)
    detection = _detection_request(request, path, services.settings.default_model)
    checked = check_request(detection, services.settings.models_dir)
    # An upload's folder has the name of its job, so that each is found from the other.
    upload = None if received.folder is None else received.folder.name
    payload = {
        "detection": checked.pinned(detection).to_json(),
        "request": request.model_dump(mode="json", exclude={"identity"}, exclude_unset=True),
        "identity": None if request.identity is None else request.identity.model_dump(exclude_unset=True),
        "frame": frame_json(checked.frame),
        "upload": upload,
    }
    return services.store.add(kind=ANALYSIS, payload=payload, key=checked.key, priority=request.priority, job_id=upload)


def _slide_path(request: AnalysisRequest, received: Received, services: Services) -> Path:
    given = [one for one in (request.slide.path, request.slide.upload, received.slide) if one is not None]
    if len(given) != 1:
        wrong = "names no slide" if not given else "names more than one slide"
        raise RequestInvalidError(f"The request {wrong}.", cure="Send one of `slide.path`, `slide.upload` and a file.")
    if request.slide.path is not None:
        return services.slide_folders.find(request.slide.path)
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
