"""Cursors of paged lists: where the last page ended, in a form that clients do not take apart."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from hepamap.api.errors import RequestInvalidError
from hepamap.jobs.job import Job


def cursor_after(job: Job) -> str:
    """The cursor of the page that follows a job."""
    return cursor_at(job.created_at, job.id)


def cursor_at(time: datetime, identifier: str) -> str:
    """The cursor of the page that follows what has this time and id."""
    return base64.urlsafe_b64encode(f"{time.isoformat()}|{identifier}".encode()).decode().rstrip("=")


def position_of(cursor: str) -> tuple[datetime, str]:
    """Time and id of what a page ended with.

    Raises:
        RequestInvalidError: the cursor is none that this server gave out.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        time, _, job_id = text.partition("|")
        created_at = datetime.fromisoformat(time)
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise RequestInvalidError(
            "The cursor is not one that this server gave out.", cure="Use `next_cursor` of the page before, unchanged."
        ) from error
    return created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC), job_id
