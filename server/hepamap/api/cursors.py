"""Ids and times that clients send, and cursors: where a page of a list ended, in a form that clients do not take apart."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

from hepamap.api.errors import RequestInvalidError
from hepamap.jobs.job import Job

_IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
        created_at = in_utc(datetime.fromisoformat(time))
    except (binascii.Error, UnicodeError, ValueError, RequestInvalidError) as error:
        raise _no_cursor() from error
    if not is_identifier(job_id):
        raise _no_cursor()
    return created_at, job_id


def in_utc(time: datetime) -> datetime:
    """A time that a client gave; without a zone it is UTC.

    Raises:
        RequestInvalidError: in UTC it lies before the year 1 or after 9999.
    """
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise RequestInvalidError("The time is none in UTC.", cure="Give a time such as 2026-01-31T08:00:00Z.") from error


def is_identifier(text: str) -> bool:
    """Whether a text has the form of the ids that this server gives out; what has another one is not even looked for."""
    return _IDENTIFIER.fullmatch(text) is not None


def _no_cursor() -> RequestInvalidError:
    return RequestInvalidError(
        "The cursor is not one that this server gave out.", cure="Use `next_cursor` of the page before, unchanged."
    )
