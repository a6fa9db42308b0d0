"""From failures to problem documents (RFC 9457): the one table of class → HTTP status, and the handlers that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from hepamap import errors
from hepamap.access import errors as access_errors
from hepamap.api.disk import disk_full, is_full
from hepamap.api.upload_errors import CHECKSUM_MISMATCH, UPLOAD_STATUS
from hepamap.delivery.errors import CallbackError
from hepamap.jobs.errors import IdempotencyKeyReusedError, JobStoreError
from hepamap.qupath_client import errors as client_errors
from hepamap.verdicts import errors as verdict_errors

_log = structlog.stdlib.get_logger(__name__)

PROBLEM_TYPE = "application/problem+json"


class ApiError(errors.HepamapError):
    """What only a request over HTTP can get wrong."""

    code = "api_error"


class RequestInvalidError(ApiError):
    """The request is not what the OpenAPI document describes."""

    code = "request_invalid"

    def __init__(self, message: str, *, cure: str, fields: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message, cure=cure)
        self.fields = tuple(fields)

    @classmethod
    def of(cls, problems: Sequence[Any]) -> RequestInvalidError:
        """From pydantic's list of what is wrong; what was sent is not repeated, since it may name a patient."""
        fields = [
            {"field": ".".join(str(part) for part in problem["loc"]) or "request", "message": str(problem["msg"])}
            for problem in problems
        ]
        said = "; ".join(f"{field['field']}: {field['message']}" for field in fields[:5])
        return cls(f"The request is not valid. {said}.", cure="Mend what is named, by /openapi.json.", fields=fields)


class UnsupportedMediaTypeError(ApiError):
    """The body is neither JSON nor multipart."""

    code = "unsupported_media_type"


class RequestTooLargeError(ApiError):
    """The JSON of the request, or the uploaded slide, is larger than the server takes."""

    code = "request_too_large"


class UploadTooLargeError(RequestTooLargeError):
    """The uploaded slide is larger than the server takes."""

    code = "upload_too_large"


class SlideNotAllowedError(ApiError):
    """The path does not lie in a folder that slides may be analysed from."""

    code = "slide_not_allowed"

    def __init__(self, message: str, *, cure: str, reason: str = "outside_roots") -> None:
        super().__init__(message, cure=cure)
        self.reason = reason
        """`outside_roots`, or `path_not_mapped` where a prefix of the client's means no folder here."""


class HostNotAllowedError(ApiError):
    """The request calls the server by a name that is none of its own."""

    code = "host_not_allowed"


class OriginNotAllowedError(ApiError):
    """A web page of another site asks."""

    code = "origin_not_allowed"


class ServerBusyError(ApiError):
    """All that could look at it is busy."""

    code = "server_busy"


class AnalysisNotFoundError(ApiError):
    """There is no analysis of that id."""

    code = "analysis_not_found"


class AnalysisNotFinishedError(ApiError):
    """The analysis has no result yet, or will never have one."""

    code = "analysis_not_finished"


STATUS: Mapping[type[errors.HepamapError], int] = MappingProxyType(
    {
        errors.HepamapError: HTTPStatus.INTERNAL_SERVER_ERROR,
        errors.SlideError: HTTPStatus.UNPROCESSABLE_ENTITY,
        errors.SlideNotFoundError: HTTPStatus.NOT_FOUND,
        errors.SlideNotReadableError: HTTPStatus.FORBIDDEN,
        errors.SlideMismatchError: HTTPStatus.CONFLICT,
        errors.RegionError: HTTPStatus.UNPROCESSABLE_ENTITY,
        errors.ParameterError: HTTPStatus.UNPROCESSABLE_ENTITY,
        errors.ModelError: HTTPStatus.INTERNAL_SERVER_ERROR,
        errors.ModelNotFoundError: HTTPStatus.NOT_FOUND,
        errors.ModelChangedError: HTTPStatus.CONFLICT,
        errors.OutputError: HTTPStatus.INTERNAL_SERVER_ERROR,
        errors.OutputExistsError: HTTPStatus.CONFLICT,
        errors.OutputNotWritableError: HTTPStatus.INSUFFICIENT_STORAGE,
        errors.SettingsInvalidError: HTTPStatus.INTERNAL_SERVER_ERROR,
        errors.PasswordUnreadableError: HTTPStatus.SERVICE_UNAVAILABLE,
        errors.CancelledError: HTTPStatus.CONFLICT,
        JobStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
        IdempotencyKeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
        access_errors.AccessError: HTTPStatus.FORBIDDEN,
        access_errors.CredentialsError: HTTPStatus.UNAUTHORIZED,
        access_errors.RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
        access_errors.IdentityProviderError: HTTPStatus.SERVICE_UNAVAILABLE,
        access_errors.UnprotectedError: HTTPStatus.INTERNAL_SERVER_ERROR,
        access_errors.KeyNotFoundError: HTTPStatus.NOT_FOUND,
        access_errors.KeyInvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
        access_errors.AuditBrokenError: HTTPStatus.INTERNAL_SERVER_ERROR,
        client_errors.ClientScriptError: HTTPStatus.INTERNAL_SERVER_ERROR,
        client_errors.ClientSourcesMissingError: HTTPStatus.NOT_FOUND,
        client_errors.ServerAddressInvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
        verdict_errors.VerdictError: HTTPStatus.UNPROCESSABLE_ENTITY,
        verdict_errors.VerdictNotFoundError: HTTPStatus.NOT_FOUND,
        verdict_errors.NothingToAcceptError: HTTPStatus.CONFLICT,
        ApiError: HTTPStatus.BAD_REQUEST,
        RequestInvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
        UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        RequestTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        **UPLOAD_STATUS,
        CallbackError: HTTPStatus.UNPROCESSABLE_ENTITY,
        SlideNotAllowedError: HTTPStatus.FORBIDDEN,
        HostNotAllowedError: HTTPStatus.MISDIRECTED_REQUEST,
        OriginNotAllowedError: HTTPStatus.FORBIDDEN,
        ServerBusyError: HTTPStatus.SERVICE_UNAVAILABLE,
        AnalysisNotFoundError: HTTPStatus.NOT_FOUND,
        AnalysisNotFinishedError: HTTPStatus.CONFLICT,
    }
)

_HTTP_PROBLEMS = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address.", "See /openapi.json for what there is."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "This address does not take that method.",
        "See the Allow header for the methods that it takes.",
    ),
    HTTPStatus.REQUEST_TIMEOUT: (
        "request_stalled",
        "The request stopped coming before it was whole.",
        "Send it again; large slides over bad lines by /api/v1/uploads, which goes on where it was cut.",
    ),
}


def status_of(kind: type[errors.HepamapError]) -> int:
    """The status of a class: its own, or that of the nearest class above it."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def problem(
    status: int,
    *,
    code: str,
    detail: str,
    cure: str,
    instance: str,
    extra: Mapping[str, Any] = MappingProxyType({}),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document.

    Args:
        status: HTTP status.
        code: stable name of the problem, for programs.
        detail: what is wrong this time, for a person.
        cure: what the person can do.
        instance: path of the request.
        extra: further members.
        headers: further headers.
    """
    body = {
        "type": f"urn:hepamap:problem:{code}",
        "title": "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "cure": cure,
        "instance": instance,
        **extra,
    }
    return JSONResponse(body, status, media_type=PROBLEM_TYPE, headers=dict(headers or {}))


def internal_error(instance: str, request_id: str) -> JSONResponse:
    """The answer to what nobody foresaw: nothing of the inside, but the id under which the log has it."""
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        code="internal_error",
        detail="Something went wrong inside the server that nobody foresaw.",
        cure=f"Try again. If it happens again, give the operator this request id: {request_id}.",
        instance=instance,
        extra={"request_id": request_id},
    )


def install_handlers(app: FastAPI) -> None:
    """Have every failure of an endpoint answered by a problem document."""
    app.add_exception_handler(errors.HepamapError, answer_foreseen)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(OSError, _answer_disk)


def parse_invalid(error: ValidationError) -> RequestInvalidError:
    """From pydantic's error on a body that an endpoint read by itself."""
    return RequestInvalidError.of(error.errors(include_url=False, include_context=False, include_input=False))


def answer_foreseen(request: Request, error: Exception) -> JSONResponse:
    """The problem document of a failure."""
    assert isinstance(error, errors.HepamapError)
    status = status_of(type(error))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request_failed", code=error.code, reason=error.message, exc_info=error)
    fields = error.fields if isinstance(error, RequestInvalidError) else ()
    return problem(
        status,
        code=error.code,
        detail=error.message,
        cure=error.cure,
        instance=request.scope["path"],
        extra={"errors": fields} if fields else {},
    )


def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer_foreseen(request, RequestInvalidError.of(error.errors()))


def _answer_disk(request: Request, error: Exception) -> JSONResponse:
    """A full disk can show at any write; all else that the system says here is for the last resort."""
    assert isinstance(error, OSError)
    if not is_full(error):
        raise error
    return answer_foreseen(request, disk_full())


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code, detail, cure = _HTTP_PROBLEMS.get(
        status, (f"http_{status.value}", str(error.detail), "See /openapi.json for what this server takes.")
    )
    return problem(status, code=code, detail=detail, cure=cure, instance=request.scope["path"], headers=error.headers)
