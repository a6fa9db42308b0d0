"""Signatures of callbacks: HMAC-SHA256 over the time and the body, so that neither can be changed, nor sent again much later."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from hepamap.delivery.errors import CallbackSecretError

_SCHEME = "v1="
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MIN_BYTES = 32


def signature_of(secret: bytes, timestamp: int, body: bytes) -> str:
    """What `Hepamap-Signature` holds: `v1=` and the HMAC-SHA256 of `<timestamp>.<body>`, in hex.

    Args:
        secret: shared with the receiver.
        timestamp: as in `Hepamap-Timestamp`, seconds since 1970.
        body: of the request.
    """
    return _SCHEME + hmac.new(secret, str(timestamp).encode() + b"." + body, hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets in a folder: one file each, named as the secret; read when it is used, so that a new one counts at once."""

    folder: Path

    def get(self, name: str) -> bytes:
        """A secret: all bytes of its file, without the line break that editors and shells leave at its end.

        Raises:
            CallbackSecretError: there is none of that name, or it is too short to be one.
        """
        try:
            secret = (self.folder / name).read_bytes().rstrip(b"\r\n") if _NAME.fullmatch(name) else b""
        except OSError:
            secret = b""
        if len(secret) < _MIN_BYTES:
            raise CallbackSecretError(
                f"This server has no secret {name!r} to sign callbacks with, or it is too short.",
                cure=f"Ask the operator to put one of {_MIN_BYTES} bytes or more into the folder HEPAMAP_CALLBACK_SECRETS, "
                "as a file of that name: openssl rand -hex 32",
            )
        return secret
