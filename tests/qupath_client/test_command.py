from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.qupath_client.errors import ServerAddressInvalidError


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "10_settings.groovy").write_text("final String SERVER_URL = ''  // filled in by the server\nprintln 'é'\n", "utf-8")
    monkeypatch.setattr("hepamap.qupath_client.sources.sources_folder", lambda: folder)


def run(*arguments: object) -> None:
    CliRunner().invoke(app, ["qupath-script", *map(str, arguments)], catch_exceptions=False)


def test_the_command_writes_the_script(tmp_path: Path) -> None:
    out = tmp_path / "hepamap.groovy"
    run("--server", "http://lab:8000/", "--out", out)
    assert "SERVER_URL = 'http://lab:8000'" in out.read_text("utf-8")
    with pytest.raises(OutputExistsError):
        run("--out", out)
    run("--out", out, "--overwrite")
    assert "SERVER_URL = ''" in out.read_text("utf-8")


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(ServerAddressInvalidError):
        run("--server", "lab", "--out", tmp_path / "a.groovy")
    with pytest.raises(OutputNotWritableError):
        run("--out", tmp_path / "nothing" / "a.groovy")
    assert not (tmp_path / "a.groovy").exists()
