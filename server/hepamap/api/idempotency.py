"""The header Idempotency-Key: a client's mark on a request that it may send again."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

from fastapi import Header

from hepamap.api.errors import RequestInvalidError
from hepamap.jobs.job import Idempotency

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="The client's own name for this request, such as a UUID. Sent again with the same request, it gets the same "
        "answer; with another request, it is refused.",
        examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
    ),
]

_USABLE_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


def mark(key: str, caller: str, request_hash: str) -> Idempotency:
    """The mark of a request.

    Args:
        key: as the client sent it.
        caller: whose it is; others may have the same one.
        request_hash: what tells this request from others.

    Raises:
        RequestInvalidError: the key is none.
    """
    if not _USABLE_KEY.fullmatch(key):
        raise RequestInvalidError(
            "The Idempotency-Key is empty, too long, or has other than printable ASCII characters.",
            cure="Use a new UUID for each new request.",
        )
    # Hashed, since a caller's name may hold any character: no other pair of caller and key may look the same.
    return Idempotency(hashlib.sha256(f"{len(caller)} {caller} {key}".encode()).hexdigest(), request_hash)
