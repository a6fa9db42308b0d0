"""Checksums of the requests of an upload, as tus defines them."""

from __future__ import annotations

import base64
import hashlib

from hepamap.api.upload_errors import UploadChecksumError, UploadRequestError

ALGORITHMS = ("sha256", "sha1", "md5")


class Checksum:
    """What the bytes of a request must come to."""

    def __init__(self, algorithm: str, wanted: bytes) -> None:
        # Against accidents on the way, not against attackers, so that the old ones are good enough.
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._wanted = wanted

    @classmethod
    def parse(cls, header: str) -> Checksum:
        """From `Upload-Checksum`: an algorithm and a digest in base64.

        Raises:
            UploadRequestError: it is neither.
        """
        algorithm, _, digest = header.strip().partition(" ")
        if algorithm not in ALGORITHMS:
            raise UploadRequestError(
                f"The checksum algorithm {algorithm!r} is not known.", cure=f"Use one of: {', '.join(ALGORITHMS)}."
            )
        try:
            wanted = base64.b64decode(digest.strip(), validate=True)
        except ValueError:
            wanted = b""
        if len(wanted) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
            raise UploadRequestError(
                "The header Upload-Checksum holds no digest of its algorithm.",
                cure="Send the algorithm and the digest in base64.",
            )
        return cls(algorithm, wanted)

    def update(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(piece)

    def require_match(self) -> None:
        """Check the end.

        Raises:
            UploadChecksumError: other bytes arrived than were sent.
        """
        if self._hash.digest() != self._wanted:
            raise UploadChecksumError(
                "What arrived is not what was sent: the checksum differs.", cure="Send it again from the same offset."
            )
