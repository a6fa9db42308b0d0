"""`hepamap gc`."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.errors import OutputNotWritableError
from hepamap.jobs import strays
from hepamap.jobs.database import open_database
from hepamap.jobs.disposal import register_upload
from hepamap.jobs.errors import JobStoreMissingError
from hepamap.jobs.store import JobStore
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
    """An upload that no analysis ever took."""
    stray = put_unknown(data_dir)
    with closing(JobStore.open(Settings().database)) as store:
        register_upload(store, stray.name)
    return stray


def put_unknown(data_dir: Path) -> Path:
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
    stray = put_unknown(data_dir)
    missing = CliRunner().invoke(app, ["gc"])
    assert missing.exit_code == 1
    assert isinstance(missing.exception, JobStoreMissingError)
    assert stray.exists()
    assert [path.name for path in data_dir.iterdir()] == ["uploads"]


def test_in_a_folder_of_another_database_it_removes_nothing_until_it_is_told_that_it_may(
    data_dir: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_by_the_server()
    stray = put_stray(data_dir)
    monkeypatch.setenv("HEPAMAP_DATABASE_URL", postgres.new_database())
    open_database(Settings().database).dispose()
    kept = CliRunner().invoke(app, ["gc"])
    assert (kept.exit_code, stray.exists()) == (0, True)
    assert kept.stderr.startswith("1 files or folders stay that the database does not know.\n")
    assert run("--unknown", "--dry-run") == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB would be removed.\n"
    assert stray.exists()
    assert run("--unknown") == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB removed.\n"
    assert run() == "0 analyses, 0 folders, 0.0 MB removed.\n"


def test_a_folder_that_cannot_be_read_is_said(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> list[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    made_by_the_server()
    monkeypatch.setattr(strays, "_entries", refuse)
    broken = CliRunner().invoke(app, ["gc"])
    assert broken.exit_code == 1
    assert isinstance(broken.exception, OutputNotWritableError)
    assert "(Permission denied)" in broken.exception.message
