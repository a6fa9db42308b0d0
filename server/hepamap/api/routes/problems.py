"""The problem documents that an endpoint declares in the OpenAPI document."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from hepamap.api.errors import PROBLEM_TYPE

Responses = dict[int | str, dict[str, Any]]

_SCHEMA = {"schema": {"$ref": "#/components/schemas/Problem"}}


def problems(**descriptions: str) -> Responses:
    """Declare problem answers: `problems(s404="There is no analysis of that id.")`; every endpoint can answer 500, 503."""
    described = {
        **{int(name[1:]): text for name, text in descriptions.items()},
        HTTPStatus.INTERNAL_SERVER_ERROR: "Nobody foresaw it, or something stored is damaged; the log says more.",
        HTTPStatus.SERVICE_UNAVAILABLE: "The job database does not answer; try again.",
    }
    return {int(status): {"description": text, "content": {PROBLEM_TYPE: _SCHEMA}} for status, text in described.items()}
