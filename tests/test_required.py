from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.required import VARIABLE, missing, required

ROOT = Path(__file__).resolve().parents[1]


def test_a_missing_program_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql")
    with pytest.raises(pytest.skip.Exception, match="no java"):
        missing("groovy", "no java")


def test_one_that_has_to_be_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql, groovy")
    with pytest.raises(pytest.fail.Exception, match="no java, and HEPAMAP_TEST_REQUIRE demands groovy"):
        missing("groovy", "no java")


def test_a_name_that_demands_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgres")
    with pytest.raises(pytest.UsageError, match=r"names postgres; known are groovy, javafx, postgresql\."):
        required()


def test_without_java_a_run_that_demands_it_is_red(tmp_path: Path) -> None:
    # As on a machine on which nothing could be installed: programs are found in PATH alone, and a folder without jars is named.
    environment = {**os.environ, "PATH": str(tmp_path), "HEPAMAP_TEST_GROOVY": str(tmp_path), VARIABLE: "groovy"}
    tests = [
        "tests/qupath/test_project.py::test_no_project",
        "tests/qupath_client/test_groovy.py::test_the_script_of_a_server_compiles",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "2 errors" in done.stdout.splitlines()[-1], done.stdout
