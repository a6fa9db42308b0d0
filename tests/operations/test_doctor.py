from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from hepamap.jobs.database import open_database
from hepamap.model_pack import write_pack
from hepamap.operations.doctor import CHECKS, examine
from hepamap.operations.findings import Finding, Level
from hepamap.settings import Settings
from tests.packs import manifest_body


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_pack(tmp_path / "models/tiny-5x/1.0.0", manifest_body("tiny-5x"), {"layer/kernel": np.zeros(1)}, "# For tests\n")
    (tmp_path / "slides").mkdir()
    (tmp_path / "data").mkdir(mode=0o750)
    open_database(tmp_path / "data" / "jobs.sqlite3").dispose()
    return Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        default_model="tiny-5x",
        slide_roots=(tmp_path / "slides",),
        path_mappings={"S:\\slides": tmp_path / "slides"},
        min_free_bytes=0,
        max_upload_bytes=1,
    )


def changed(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def bad(settings: Settings) -> dict[str, Finding]:
    """The findings that are not ok, one of each check; each must have a cure."""
    found = {finding.check: finding for finding in examine(settings) if finding.level is not Level.OK}
    assert all(len(finding.cure or "") > 10 for finding in found.values())
    found.pop("gpu", None)  # of the machine that the test runs on
    return found


def broken(settings: Settings) -> set[str]:
    return {name for name, finding in bad(settings).items() if finding.level is Level.BROKEN}


def test_a_good_installation(settings: Settings) -> None:
    assert bad(settings) == {}
    assert {finding.check for finding in examine(settings)} == set(CHECKS)


def test_looking_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    new = changed(settings, data_dir=tmp_path / "new" / "data")
    assert bad(new) == {}
    assert not (tmp_path / "new").exists()


def test_a_data_folder_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    # A file in its place: permissions do not stop the administrator, as whom the tests may run.
    (tmp_path / "data" / "uploads").write_text("no folder")
    assert "uploads" in bad(settings)["data_folder"].detail
    assert broken(settings) == {"data_folder"}


def test_a_data_folder_that_everybody_can_read(settings: Settings) -> None:
    settings.data_dir.chmod(0o755)
    finding = bad(settings)["data_folder"]
    assert (finding.level, "chmod" in (finding.cure or "")) == (Level.WARNING, True)


Mount = namedtuple("Mount", "mountpoint fstype")


def test_a_data_folder_on_a_share(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [Mount("/", "ext4"), Mount(str(settings.data_dir.parent), "nfs4")]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: mounts)
    assert "nfs4" in bad(settings)["data_folder"].detail
    mounts.append(Mount(str(settings.data_dir), "xfs"))
    assert bad(settings) == {}


@pytest.mark.parametrize(("needed", "upload", "level"), [(2**60, 1, Level.BROKEN), (0, 2**60, Level.WARNING)])
def test_a_full_disk(settings: Settings, needed: int, upload: int, level: Level) -> None:
    assert bad(changed(settings, min_free_bytes=needed, max_upload_bytes=upload))["disk"].level is level


def test_slide_folders_and_their_names(settings: Settings, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert broken(changed(settings, slide_roots=(tmp_path / "slides", gone))) == {"slide_roots"}
    assert broken(changed(settings, path_mappings={"S:\\": gone})) == {"path_mappings"}
    assert broken(changed(settings, path_mappings={"S:\\": tmp_path / "slides" / "2025"})) == {"path_mappings"}


def test_models(settings: Settings, tmp_path: Path) -> None:
    assert broken(changed(settings, default_model="other")) == {"models"}
    assert broken(changed(settings, models_dir=tmp_path / "gone")) == {"models"}
    (weights,) = (tmp_path / "models").rglob("weights.safetensors")
    weights.write_bytes(weights.read_bytes() + b"x")
    assert "sha256" in bad(settings)["models"].detail


def test_access(settings: Settings) -> None:
    assert broken(changed(settings, host="0.0.0.0")) == {"access"}
    keys = changed(settings, host="0.0.0.0", access="keys")
    assert "no valid API key" in bad(keys)["access"].detail
    engine = open_database(settings.database_path)
    made = KeyStore(engine).create("LIS", [Scope.READ], timedelta(days=100))
    assert bad(keys) == {}
    old = KeyStore(engine).create("viewer", [Scope.READ], timedelta(days=10))
    engine.dispose()
    assert old.key.id in bad(keys)["access"].detail
    assert made.key.id not in bad(keys)["access"].detail


def execute(settings: Settings, statement: str) -> None:
    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize(("version", "level"), [("0001", Level.WARNING), ("9999", Level.BROKEN)])
def test_a_database_of_another_version(settings: Settings, version: str, level: Level) -> None:
    execute(settings, f"UPDATE alembic_version SET version_num = '{version}'")
    finding = bad(settings)["database"]
    assert (finding.level, version in finding.detail) == (level, True)


def test_a_damaged_database(settings: Settings) -> None:
    path = settings.database_path
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 3] = b"\x55" * (4096 * 2)
    path.write_bytes(content)
    assert broken(settings) == {"database"}
    path.write_text("this is no database, but it is long enough to look like one " * 40)
    assert broken(settings) == {"database"}


def test_a_database_server_that_does_not_answer(settings: Settings) -> None:
    away = changed(settings, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    assert broken(away) == {"database"}
    # Nothing is lost: neither a backup nor an empty folder would help.
    assert bad(away)["database"].cure == (
        "Check that PostgreSQL runs and takes this user, and that no newer hepamap has used the database."
    )


def test_files_that_the_database_does_not_know(settings: Settings) -> None:
    foreign = settings.data_dir / "results" / "of-another"
    foreign.mkdir(parents=True)
    assert bad(settings) == {}
    os.utime(foreign, (0, 0))
    finding = bad(settings)["database"]
    assert (finding.level, "lie 1 files or folders" in finding.detail) == (Level.WARNING, True)
    assert "hepamap gc --unknown" in (finding.cure or "")


def test_a_clock_that_was_set_back(settings: Settings) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    columns = "(seq, at, actor, action, status, hash)"
    execute(settings, f"INSERT INTO audit_entries {columns} VALUES (1, '{later}', 'a', 'b', 200, 'c')")
    execute(settings, "UPDATE audit_head SET seq = 1")
    assert "set back" in bad(settings)["clock"].detail


def test_a_disk_with_another_clock(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: datetime(2001, 1, 1, tzinfo=UTC).timestamp())
    assert "apart" in bad(settings)["clock"].detail


def fake_command(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="systemd is Linux's")
@pytest.mark.parametrize(("answer", "complains"), [("no", True), ("yes", False), ("", False)])
def test_a_clock_that_nobody_sets(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, complains: bool
) -> None:
    fake_command(tmp_path / "bin", "timedatectl", f"echo {answer}")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert ("clock" in bad(settings)) is complains


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the driver is a shell script")
@pytest.mark.parametrize(
    ("program", "level"),
    [
        ("print('[\"/physical_device:GPU:0\"]')", Level.OK),
        ("print('[]')", Level.WARNING),
        ("raise ImportError", Level.BROKEN),
        ("", Level.BROKEN),
    ],
)
def test_a_gpu(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, level: Level) -> None:
    """With a stand-in for TensorFlow: whether the real one finds a GPU is the machine's affair."""
    fake_command(tmp_path / "bin", "nvidia-smi", "true")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("hepamap.operations.machine_checks._COUNT_GPUS", program)
    (finding,) = CHECKS["gpu"](settings)
    assert finding.level is level


def doctor(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hepamap", "doctor", *arguments],
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(settings: Settings, tmp_path: Path) -> None:
    assert doctor(settings).returncode == 0
    shutil.rmtree(tmp_path / "slides")
    done = doctor(settings)
    assert done.returncode == 1
    assert "BROKEN  slide_roots: " in done.stdout
    assert "HEPAMAP_SLIDE_ROOTS" in done.stdout
    found = json.loads(doctor(settings, "--json").stdout)
    assert {finding["check"] for finding in found if finding["level"] == "broken"} == {"slide_roots", "path_mappings"}
