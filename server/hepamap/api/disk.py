"""What to say where the data folder cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from hepamap.errors import OutputNotWritableError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_full() -> OutputNotWritableError:
    """The disk has no room."""
    return OutputNotWritableError(
        "The server has no room for this slide.", cure="Ask the operator to free space in the server's data folder."
    )


def is_full(error: OSError) -> bool:
    """Whether this says that the disk, or what this user may have of it, is full."""
    if isinstance(error, shutil.Error):
        # What copying a tree collects: (source, target, what was said) for each file; the numbers are lost.
        return any(os.strerror(number) in str(error) for number in _FULL)
    return error.errno in _FULL


def disk_failure(error: OSError) -> OutputNotWritableError:
    """What to tell a client where writing failed."""
    if is_full(error):
        return disk_full()
    return OutputNotWritableError(
        "The server cannot write to its data folder.", cure="Ask the operator to look at the server's data folder."
    )


@contextmanager
def writing() -> Iterator[None]:
    """Tell what the system refuses as what a client is told.

    Raises:
        OutputNotWritableError: the disk is full, or cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise disk_failure(error) from error
