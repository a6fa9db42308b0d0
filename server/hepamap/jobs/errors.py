"""What the keeping of jobs can fail at."""

from __future__ import annotations

from hepamap.errors import HepamapError


class JobStoreError(HepamapError):
    """The database of the jobs cannot be opened, read or written."""

    code = "job_store_unavailable"


class IdempotencyKeyReusedError(HepamapError):
    """A client's idempotency key came again, with another request."""

    code = "idempotency_key_reused"
