"""The headers of tus 1.0 (https://tus.io/protocols/resumable-upload): the core, creation, expiration, termination, checksum."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from hepamap.api.checksums import ALGORITHMS
from hepamap.api.errors import UnsupportedMediaTypeError, answer_foreseen
from hepamap.api.upload_errors import TusVersionError, UploadRequestError
from hepamap.api.upload_records import Upload
from hepamap.errors import HepamapError

VERSION = "1.0.0"
BODY_TYPE = "application/offset+octet-stream"
EXTENSIONS = "creation,expiration,termination,checksum"
_METADATA_MAX_CHARS = 4096
_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII but space and comma
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class TusRoute(APIRoute):
    """A route that asks for the version of the protocol and names it in every answer, also in a problem document."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler of a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                if request.method not in ("OPTIONS", "GET"):
                    _require_version(request.headers)
                response: Response = await handler(request)
            except HepamapError as error:
                response = answer_foreseen(request, error)
            response.headers["Tus-Resumable"] = response.headers["Tus-Version"] = VERSION
            return response

        return handle


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a client says of its upload."""

    text: str
    """As it was sent; given back unchanged."""
    name: str
    sha256: str | None


def parse_metadata(text: str) -> Metadata:
    """Read `Upload-Metadata`: `filename` and, where the client knows it, `sha256` of the whole, in hex; the rest is kept unread.

    Raises:
        UploadRequestError: it is not made as tus says.
    """
    values: dict[str, str] = {}
    if len(text) > _METADATA_MAX_CHARS:
        raise _unusable("Upload-Metadata", f"at most {_METADATA_MAX_CHARS} characters")
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            decoded = base64.b64decode(value.strip(), validate=True).decode()
        except ValueError as error:
            raise _unusable("Upload-Metadata", "pairs of a key and a value in base64") from error
        if key in values or not _KEY.fullmatch(key):
            raise _unusable("Upload-Metadata", "each key once")
        values[key] = decoded
    sha256 = values.get("sha256")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise _unusable("Upload-Metadata", "in `sha256` 64 hexadecimal digits")
    return Metadata(text, values.get("filename", values.get("name", "")), sha256.lower() if sha256 else None)


def number_in(headers: Mapping[str, str], name: str) -> int:
    """A header that counts bytes.

    Raises:
        UploadRequestError: it is missing, or no such number.
    """
    text = headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise _unusable(name, "a number of bytes")
    return int(text)


def require_body_type(headers: Mapping[str, str]) -> None:
    """Check that a body is a piece of an upload.

    Raises:
        UnsupportedMediaTypeError: it says that it is something else.
    """
    if headers.get("content-type", "") != BODY_TYPE:
        raise UnsupportedMediaTypeError("The body is not a piece of an upload.", cure=f"Send Content-Type: {BODY_TYPE}.")


def upload_headers(upload: Upload) -> dict[str, str]:
    """Where an upload stands."""
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": format_datetime(upload.expires_at, usegmt=True)}


def server_headers(max_size: int) -> dict[str, str]:
    """What the server can do."""
    return {
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(max_size),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }


def _require_version(headers: Mapping[str, str]) -> None:
    if headers.get("tus-resumable") != VERSION:
        raise TusVersionError(
            "The request does not say that it speaks tus 1.0.0.",
            cure="Send the header Tus-Resumable: 1.0.0, or use a tus client.",
        )


def _unusable(header: str, wanted: str) -> UploadRequestError:
    return UploadRequestError(f"The header {header} is missing or cannot be read.", cure=f"It must have {wanted}.")
