"""Programs that some tests need: where one is missing they skip, or fail where the run says that it has to be there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

VARIABLE = "HEPAMAP_TEST_REQUIRE"
PROGRAMS = ("groovy", "javafx", "postgresql")


def required() -> set[str]:
    """What has to be there in this run: names with commas between them.

    Raises:
        pytest.UsageError: a name that no test asks about, so that it would demand nothing.
    """
    names = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    if unknown := names - set(PROGRAMS):
        raise pytest.UsageError(f"{VARIABLE} names {', '.join(sorted(unknown))}; known are {', '.join(PROGRAMS)}.")
    return names


def missing(program: str, reason: str) -> NoReturn:
    """End a test for want of a program."""
    assert program in PROGRAMS, program
    if program in required():
        pytest.fail(f"{reason}, and {VARIABLE} demands {program}", pytrace=False)
    pytest.skip(reason)
