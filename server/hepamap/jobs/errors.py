"""What the keeping of jobs can fail at."""

from __future__ import annotations

from hepamap.errors import HepamapError


class JobStoreError(HepamapError):
    """The database of the jobs cannot be opened, read or written."""

    code = "job_store_unavailable"

    def __init__(
        self, message: str, *, cure: str, because: str = "", overtaken: bool = False, perhaps_stored: bool = False
    ) -> None:
        super().__init__(message, cure=cure)
        self.because = because or message
        """What the database says, in a line; for the log."""
        self.overtaken = overtaken
        """Another transaction changed the same row in that moment; done again, it sees what that one left."""
        self.perhaps_stored = perhaps_stored
        """The end of a transaction was asked for, and no answer came: all of it may be stored, now or in a moment."""


def unanswered(error: BaseException, *, perhaps_stored: bool = False) -> JobStoreError:
    """The database did not do what it was asked.

    What it says has names of hosts and users in it, and further lines may quote a row: not for clients.
    """
    return JobStoreError(
        "The job database does not answer.",
        because=str(error).strip().partition("\n")[0] or type(error).__name__,
        cure="Try again in a moment. If it stays so, the operator should look at the database and its disk.",
        perhaps_stored=perhaps_stored,
    )


class JobStoreMissingError(JobStoreError):
    """There is no database of the jobs where the settings say that it is."""

    code = "job_store_missing"


class IdempotencyKeyReusedError(HepamapError):
    """A client's idempotency key came again, with another request."""

    code = "idempotency_key_reused"
