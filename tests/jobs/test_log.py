"""Tracebacks in the log say what the system refused, and not of which file: names of slides and uploads may be patients'."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from hepamap.errors import OutputNotWritableError
from hepamap.jobs.database import open_database
from hepamap.jobs.errors import unanswered
from hepamap.jobs.processes import traceback_of
from tests.postgres import Postgres

STORED = '{"name": "DOE-JANE", "area": Infinity}'

LOGGING = """
import logging, sys
import structlog
from hepamap.jobs.processes import configure_logging
sys.stderr.isatty = lambda: sys.argv[1] == "terminal"
configure_logging()
try:
    open(sys.argv[2])
except OSError:
    structlog.stdlib.get_logger("own").exception("request_crashed")
    logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
"""


def missing(folder: Path) -> None:
    (folder / "DOE-JANE.svs").stat()


def renamed(folder: Path) -> None:
    (folder / "a").rename(folder / "DOE-JANE.svs")


def copied(folder: Path) -> None:
    (folder / "upload").mkdir()
    (folder / "upload" / "DOE-JANE.svs").write_bytes(b"")

    def refuse(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", target)

    shutil.copytree(folder / "upload", folder / "copy", copy_function=refuse)


def wrapped(folder: Path) -> None:
    try:
        missing(folder)
    except OSError as error:
        raise OutputNotWritableError("The server cannot write to its data folder.", cure="Look at it.") from error


def grouped(folder: Path) -> None:
    try:
        wrapped(folder)
    except OutputNotWritableError as error:
        raise ExceptionGroup("tasks", [ValueError("first"), error]) from None


@pytest.mark.parametrize("fails", [missing, renamed, copied, wrapped, grouped])
def test_a_traceback_names_no_file_of_the_system(tmp_path: Path, fails: Callable[[Path], None]) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        fails(tmp_path)
    said = [line for line in traceback_of(caught.value).splitlines() if "Error: " in line]
    assert said
    assert "DOE" not in str(said)
    assert str(tmp_path) not in str(said)
    if fails is not copied:
        assert "FileNotFoundError: No such file or directory" in str(said)


def refused_through_sqlalchemy(url: str) -> None:
    engine = open_database(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT CAST(:it AS json)"), {"it": STORED})
    finally:
        engine.dispose()


def refused_by_the_driver(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT %s::json", [STORED])


def refused_in_a_group(url: str) -> None:
    try:
        refused_through_sqlalchemy(url)
    except DBAPIError as error:
        raise ExceptionGroup("tasks", [ValueError("first"), unanswered(error)]) from error


@pytest.mark.parametrize("fails", [refused_through_sqlalchemy, refused_by_the_driver, refused_in_a_group])
def test_a_traceback_quotes_nothing_that_a_database_was_to_store(postgres: Postgres, fails: Callable[[str], None]) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        fails(postgres.new_database())
    text = traceback_of(caught.value)
    assert "invalid input syntax for type json" in text
    assert "DOE" not in text
    assert "CONTEXT" not in text


def test_what_else_an_error_says_stays() -> None:
    assert traceback_of(TimeoutError("no answer within 5 s")) == "TimeoutError: no answer within 5 s"
    assert traceback_of(ConnectionRefusedError(111, "Connection refused")).endswith("[Errno 111] Connection refused")


@pytest.mark.parametrize("output", ["terminal", "file"])
def test_a_process_logs_in_this_way(tmp_path: Path, output: str) -> None:
    command = [sys.executable, "-c", LOGGING, output, str(tmp_path / "DOE-JANE.svs")]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert log.count("FileNotFoundError: No such file or directory") == 2
    assert "Exception in ASGI application" in log
    assert "DOE" not in log
