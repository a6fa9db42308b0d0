"""What a long-running process needs: its log, its lock, and a way to notice that its parent is gone."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

import psycopg
import structlog
from sqlalchemy.exc import StatementError
from structlog.typing import ExcInfo, Processor

from hepamap.errors import reason_of

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# How long a process may go on after its parent is gone, seconds; enough to put a job back.
_ORPHAN_GRACE_S = 10.0
# What says what went well; all other libraries say only what is wrong. httpx has whole addresses in its lines, and that of a
# callback may name a patient or hold a token; alembic and procrastinate tell again and again that there was nothing to do.
_HEARD = ("hepamap", "uvicorn")


def configure_logging(level: int = logging.INFO) -> None:
    """Log to stderr: lines for a person on a terminal, JSON otherwise; other libraries' warnings and errors the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    endings: list[Processor] = (
        # Without the values of variables, which rich would show: they may name a patient.
        [structlog.dev.ConsoleRenderer(exception_formatter=_show_traceback)]
        if sys.stderr.isatty()
        else [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *endings]
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for name in _HEARD:
        logging.getLogger(name).setLevel(level)


def traceback_of(error: BaseException) -> str:
    """A traceback for the log, without what may name a patient.

    Errors of the system name no file in it, which may be a slide's or an upload's; those of a database say only their first line,
    as the further ones quote what was to be stored.
    """
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    shorter = {str(part): _without_names(part) for part in _all_of(error)}
    # The longest first: one error's text may be a part of another's.
    for whole in sorted(shorter, key=len, reverse=True):
        if shorter[whole] != whole:
            # In a group of errors each line is indented.
            indented = r"\n[ |]*".join(map(re.escape, whole.split("\n")))
            text = shorter[whole].join(re.split(indented, text))
    return text


def _without_names(error: BaseException) -> str:
    # What copying a tree collects has no file of its own, and all of them in its text.
    if isinstance(error, OSError) and (error.filename is not None or isinstance(error, shutil.Error)):
        return reason_of(error)
    if isinstance(error, StatementError | psycopg.Error):
        return str(error).partition("\n")[0]
    return str(error)


def _all_of(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that a traceback shows with it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [part.__cause__, part.__context__, *(part.exceptions if isinstance(part, BaseExceptionGroup) else ())]


def _traceback(exc_info: ExcInfo) -> str:
    return traceback_of(exc_info[1])


def _show_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    stream.write("\n" + _traceback(exc_info))


def call_when_closed(stream: IO[bytes], action: Callable[[], None]) -> None:
    """Act when the other end of a pipe goes, that is when the parent that holds it stops or is killed.

    The process is ended by force where the action has not ended it soon after.
    """
    # Read past Python's buffer: a thread that waits inside it would hold its lock when the interpreter ends.
    descriptor = stream.fileno()

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        action()
        time.sleep(_ORPHAN_GRACE_S)
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


@contextmanager
def exclusive_lock(path: Path, *, give_up: Callable[[], bool]) -> Iterator[bool]:
    """Hold a lock that the system frees when this process ends, however it ends; waits while another process has it.

    Args:
        path: the lock file; it is created and never removed, since a removed file could be locked twice.
        give_up: asked while waiting; True ends the wait.

    Yields:
        Whether the lock is held.
    """
    with path.open("ab") as file:
        held = _try_lock(file)
        while not held and not give_up():
            time.sleep(0.1)
            held = _try_lock(file)
        yield held


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
