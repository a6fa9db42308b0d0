"""What the keeping of jobs can fail at."""

from __future__ import annotations

from hepamap.errors import HepamapError


class JobStoreError(HepamapError):
    """The database of the jobs cannot be opened, read or written."""

    code = "job_store_unavailable"

    def __init__(self, message: str, *, cure: str, because: str = "") -> None:
        super().__init__(message, cure=cure)
        self.because = because or message
        """What the database says, in a line; for the log."""


class JobStoreMissingError(JobStoreError):
    """There is no database of the jobs where the settings say that it is."""

    code = "job_store_missing"


class IdempotencyKeyReusedError(HepamapError):
    """A client's idempotency key came again, with another request."""

    code = "idempotency_key_reused"
