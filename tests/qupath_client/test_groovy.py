"""What a server gives out is compiled by a real Groovy, against the stand-in of QuPath and a real JavaFX."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from hepamap.api.app import create_app
from hepamap.settings import Settings
from tests.qupath.quasi_qupath import STAND_IN, groovy_jars, javafx_jars
from tests.required import missing

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Using `httpx` with")
    from fastapi.testclient import TestClient


@pytest.fixture(autouse=True)
def java() -> None:
    if shutil.which("java") is None or not groovy_jars():
        missing("groovy", "java or groovy is not installed (apt-get install groovy)")
    if not javafx_jars():
        missing("javafx", "JavaFX is not installed (apt-get install openjfx)")


def class_path() -> str:
    return os.pathsep.join(str(place) for place in (*groovy_jars(), *javafx_jars(), STAND_IN))


def compiled(script: str, folder: Path) -> tuple[int, str, set[str]]:
    """Status and words of the compiler, and the classes that it made."""
    folder.mkdir()
    source, out = folder / "hepamap.groovy", folder / "classes"
    source.write_text(script, encoding="utf-8")
    path = class_path()
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", path, "org.codehaus.groovy.tools.FileSystemCompiler"]
    command += ["--encoding", "UTF-8", "-cp", path, "-d", str(out), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr, {file.stem for file in out.rglob("*.class")}


def test_another_groovy_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("groovy-4.0.26.jar", "groovy-json-4.0.26.jar"):
        (tmp_path / name).touch()
    monkeypatch.setenv("HEPAMAP_TEST_GROOVY", str(tmp_path))
    named = class_path().split(os.pathsep)
    assert [Path(place).name for place in named if "groovy" in Path(place).name] == [
        "groovy-4.0.26.jar",
        "groovy-json-4.0.26.jar",
    ]


def test_the_script_of_a_server_compiles(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path,
        embedded_worker=False,
        allowed_hosts=("lab.hospital.org",),
        min_free_bytes=0,
    )
    with TestClient(create_app(settings), base_url="http://lab.hospital.org:8000") as client:
        response = client.get("/qupath/hepamap.groovy")
    assert response.status_code == 200
    script = response.text
    assert "SERVER_URL = 'http://lab.hospital.org:8000'" in script
    status, words, classes = compiled(script, tmp_path / "whole")
    assert (status, words) == (0, "")
    assert "hepamap" in classes
    # The same with its last bracket lost: a compiler that takes everything would prove nothing.
    end = script.rindex("}")
    status, words, classes = compiled(script[:end] + script[end + 1 :], tmp_path / "broken")
    assert status != 0
    assert "hepamap.groovy" in words
    assert "hepamap" not in classes
