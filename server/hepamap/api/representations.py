"""How an answer is sent: not again where the client has it (ETag), and packed where the client unpacks it (gzip)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping

from starlette.responses import Response

_WORTH_PACKING_BYTES = 1024
_LEVEL = 1  # contours get a fifth larger than at 5, and are there sooner on any network that a hospital has


def etag_of(*parts: object) -> str:
    """A weak entity tag: equal for equal parts. Weak, since a packed and a plain answer share it."""
    return f'W/"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def has_it(headers: Mapping[str, str], etag: str) -> bool:
    """Whether `If-None-Match` says that the client has what would be sent."""
    tags = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]
    # Compared weakly, as RFC 9110 says for this header: a proxy may have marked the tag as weak, or not.
    return "*" in tags or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]


def not_modified(etag: str) -> Response:
    """The client has it."""
    return Response(status_code=304, headers=tag_headers(etag))


def tagged(headers: Mapping[str, str], body: bytes | str, media_type: str, etag: str) -> Response:
    """An answer with its tag, packed where the request's headers allow it. To be made in a thread: packing takes time."""
    data = body.encode() if isinstance(body, str) else body
    response = Response(media_type=media_type, headers=tag_headers(etag))
    if len(data) >= _WORTH_PACKING_BYTES and _takes_gzip(headers.get("accept-encoding", "")):
        data = gzip.compress(data, _LEVEL, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
    response.body = data
    response.headers["Content-Length"] = str(len(data))
    return response


def tag_headers(etag: str) -> dict[str, str]:
    """The headers of an answer that has a tag."""
    # The client may keep it, but asks each time: a deleted analysis must not live on in a cache.
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.split(","):
        name, _, parameters = one.strip().partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
