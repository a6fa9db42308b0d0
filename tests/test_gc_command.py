"""`hepamap gc`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.jobs.database import open_database
from hepamap.jobs.errors import JobStoreMissingError
from hepamap.operations.folders import make_folders
from hepamap.settings import Settings
from tests.postgres import Postgres


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEPAMAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["gc", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def made_by_the_server() -> None:
    make_folders(Settings())
    open_database(Settings().database).dispose()


def put_stray(data_dir: Path) -> Path:
    stray = data_dir / "uploads" / "stray"
    stray.mkdir()
    (stray / "slide.tif").write_bytes(b"x" * 2_000_000)
    os.utime(stray, (0, 0))
    return stray


def test_it_says_what_goes_and_with_dry_run_what_would(data_dir: Path) -> None:
    made_by_the_server()
    assert run() == "0 analyses, 0 folders, 0.0 MB removed.\n"
    stray = put_stray(data_dir)
    assert run("--dry-run") == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB would be removed.\n"
    assert stray.exists()
    assert run() == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB removed.\n"
    assert not stray.exists()


def test_where_there_is_no_database_it_makes_none_and_removes_nothing(data_dir: Path) -> None:
    (data_dir / "uploads").mkdir(parents=True)
    stray = put_stray(data_dir)
    missing = CliRunner().invoke(app, ["gc"])
    assert missing.exit_code == 1
    assert isinstance(missing.exception, JobStoreMissingError)
    assert stray.exists()
    assert [path.name for path in data_dir.iterdir()] == ["uploads"]


def test_in_a_folder_of_another_database_it_removes_nothing_until_it_is_told_that_it_may(
    data_dir: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by_the_server()
    assert run() == "0 analyses, 0 folders, 0.0 MB removed.\n"
    stray = put_stray(data_dir)
    monkeypatch.setenv("HEPAMAP_DATABASE_URL", postgres.new_database())
    open_database(Settings().database).dispose()
    kept = CliRunner().invoke(app, ["gc"])
    assert (kept.exit_code, stray.exists()) == (0, True)
    assert "hepamap gc --bind" in kept.stderr
    assert run("--bind", "--dry-run") == "0 analyses, 0 folders, 0.0 MB would be removed.\n"
    assert run("--bind") == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB removed.\n"
    assert run() == "0 analyses, 0 folders, 0.0 MB removed.\n"
