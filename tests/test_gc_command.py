"""`hepamap gc`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEPAMAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["gc", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_says_what_goes_and_with_dry_run_what_would(data_dir: Path) -> None:
    assert run() == "0 analyses, 0 folders, 0.0 MB removed.\n"
    stray = data_dir / "uploads" / "stray"
    stray.mkdir()
    (stray / "slide.tif").write_bytes(b"x" * 2_000_000)
    os.utime(stray, (0, 0))
    assert run("--dry-run") == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB would be removed.\n"
    assert stray.exists()
    assert run() == f"folder {stray}\n0 analyses, 1 folders, 2.0 MB removed.\n"
    assert not stray.exists()
