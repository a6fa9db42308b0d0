"""The problem documents that an endpoint declares in the OpenAPI document."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from hepamap.api.errors import PROBLEM_TYPE

Responses = dict[int | str, dict[str, Any]]

_SCHEMA = {"schema": {"$ref": "#/components/schemas/Problem"}}


def problems(**descriptions: str) -> Responses:
    """Declare problem answers: `problems(s404="There is no analysis of that id.")`; every endpoint can answer the rest."""
    described = {
        HTTPStatus.UNAUTHORIZED: "The credentials are missing, wrong or expired.",
        HTTPStatus.FORBIDDEN: "The caller may not do this.",
        HTTPStatus.REQUEST_TIMEOUT: "The request stopped coming before it was whole.",
        HTTPStatus.MISDIRECTED_REQUEST: "The server is not called by that name.",
        HTTPStatus.TOO_MANY_REQUESTS: "The caller asks too often; Retry-After says when to come back.",
        **{int(name[1:]): text for name, text in descriptions.items()},
        HTTPStatus.INTERNAL_SERVER_ERROR: "Nobody foresaw it, or something stored is damaged; the log says more.",
        HTTPStatus.SERVICE_UNAVAILABLE: "The job database does not answer; try again.",
    }
    return {int(status): {"description": text, "content": {PROBLEM_TYPE: _SCHEMA}} for status, text in described.items()}
