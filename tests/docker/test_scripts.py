"""The scripts of docker/, run for real; only the engine is a stand-in, and what it is asked to run, runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.stack import REPOSITORY

DOCKER = REPOSITORY / "docker"
STAND_IN = Path(__file__).parent / "engine_stand_in.py"
RECORD = 10240  # bytes that tar writes at a time


class Site:
    """A folder of docker/ with a data folder of two files, and what the engine says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hepamap" / "docker"
        self.backup = folder / "backup"
        self.data = folder / "data"
        self.log = folder / "log"
        self.data.mkdir()
        for name in ("a", "b"):
            (self.data / name).write_text(name * 3000)
        shutil.copytree(DOCKER, self.folder, ignore=shutil.ignore_patterns(".env", "secrets", "hepamap.env", "*.lock"))
        compose = folder / "compose"
        compose.write_text('#!/bin/sh\n[ "$1" != ps ] || for last in "$@"; do :; done\n[ "$1" != ps ] || echo "${last}"\n')
        compose.chmod(0o755)
        self.environment = {
            **os.environ,
            "ENGINE": str(STAND_IN),
            "COMPOSE": str(compose),
            "STAND_IN_DATA": str(self.data),
            "STAND_IN_RUNNING": "api db",
            "STAND_IN_LOG": str(self.log),
        }

    def run(self, script: str, *arguments: str, umask: int = 0o022, **environment: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", f'umask {umask:o}; exec ./{script} "$@"', "sh", *arguments]
        given = {**self.environment, **environment}
        return subprocess.run(command, cwd=self.folder, env=given, capture_output=True, text=True, check=False)

    def settings(self) -> dict[str, str]:
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def contents(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.data.iterdir()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def prepared(site: Site, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A checkout of one version around the folder, for init.sh."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    (tmp_path / "slides").mkdir()
    (site.folder.parent / "models/pack").mkdir(parents=True)
    (site.folder.parent / "models/pack/model.json").write_text("{}")

    def run(version: str | None, *arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
        if version is not None:
            (site.folder.parent / "pyproject.toml").write_text(f'[project]\nname = "hepamap"\nversion = "{version}"\n')
        done = site.run("init.sh", "--slides", str(tmp_path / "slides"), "--name", "test", *arguments, umask=umask)
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_a_backup_is_restored(site: Site) -> None:
    made = site.run("backup.sh", str(site.backup))
    assert made.returncode == 0, made.stderr
    before = site.contents()
    (site.data / "a").write_text("changed")
    (site.data / "c").write_text("new")
    put_back = site.run("restore.sh", str(site.backup))
    assert put_back.returncode == 0, put_back.stderr
    assert site.contents() == before


def test_files_that_change_meanwhile_are_no_failure(site: Site, tmp_path: Path) -> None:
    # GNU tar says 1 then, after all was written.
    wrapper = tmp_path / "bin" / "tar"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\n{shutil.which("tar")} "$@"\nstatus=$?\n[ "$3" = --exclude=./scratch ] && exit 1\nexit $status\n'
    )
    wrapper.chmod(0o755)
    made = site.run("backup.sh", str(site.backup), PATH=f"{wrapper.parent}:{os.environ['PATH']}")
    assert made.returncode == 0, made.stderr
    assert (site.backup / "data.tar").stat().st_size == RECORD


@pytest.mark.parametrize("running", ["db", "api"])
def test_nothing_is_backed_up_from_what_does_not_run(site: Site, running: str) -> None:
    made = site.run("backup.sh", str(site.backup), STAND_IN_RUNNING=running)
    assert made.returncode != 0
    assert f"The service {({'api', 'db'} - {running}).pop()} does not run" in made.stderr
    assert list(site.backup.iterdir()) == []


# Of an archive of two files of 3000 bytes: nothing, within a file, between two files, in the zeros at its end.
@pytest.mark.parametrize("cut_at", [0, 700, 512, 512 + 512 + 3072, 2 * (512 + 3072) + 512])
def test_a_cut_archive_is_no_backup(site: Site, cut_at: int) -> None:
    made = site.run("backup.sh", str(site.backup), STAND_IN_CUT_AT=str(cut_at))
    assert made.returncode != 0
    assert "is no backup" in made.stderr
    assert not (site.backup / "SHA256SUMS").exists()
    assert not (site.backup / "data.tar").exists()


@pytest.mark.parametrize("damaged", ["data.tar", "database.dump"])
def test_nothing_is_removed_for_a_backup_that_cannot_be_read(site: Site, damaged: str) -> None:
    assert site.run("backup.sh", str(site.backup)).returncode == 0
    before = site.contents()
    file = site.backup / damaged
    file.write_bytes(file.read_bytes()[: 4000 if damaged == "data.tar" else 2])
    # Cut before its sum was made.
    subprocess.run("sha256sum database.dump data.tar > SHA256SUMS", shell=True, cwd=site.backup, check=True)
    site.log.unlink()
    put_back = site.run("restore.sh", str(site.backup))
    assert put_back.returncode != 0
    assert site.contents() == before
    assert "dropdb" not in (site.log.read_text() if site.log.exists() else "")


def test_a_new_version_is_named_for_server_and_worker(site: Site, prepared: Callable[..., object]) -> None:
    prepared("1.2.3")
    assert (site.settings()["HEPAMAP_IMAGE"], site.settings()["WORKER_IMAGE"]) == ("hepamap:1.2.3", "hepamap:1.2.3")
    prepared("1.3.0")
    assert (site.settings()["HEPAMAP_IMAGE"], site.settings()["WORKER_IMAGE"]) == ("hepamap:1.3.0", "hepamap:1.3.0")
    prepared("1.3.0", "--gpu")
    prepared("1.4.0")  # the GPU is remembered
    assert (site.settings()["HEPAMAP_IMAGE"], site.settings()["WORKER_IMAGE"]) == ("hepamap:1.4.0", "hepamap:1.4.0-gpu")


def test_an_image_of_a_registry_stays(site: Site, prepared: Callable[..., object]) -> None:
    (site.folder / ".env").write_text("HEPAMAP_IMAGE=registry.hospital.org/hepamap:7\n")
    prepared("1.2.3")
    assert site.settings()["WORKER_IMAGE"] == site.settings()["HEPAMAP_IMAGE"] == "registry.hospital.org/hepamap:7"


def test_settings_of_the_bundle_before_do_not_bring_its_images(site: Site, prepared: Callable[..., object]) -> None:
    (site.folder / "models").mkdir()
    (site.folder / ".env").write_text("HEPAMAP_IMAGE=hepamap:1\nWORKER_IMAGE=hepamap:1\nHEPAMAP_GPU_IMAGE=hepamap:1-gpu\n")
    (site.folder / "images.env").write_text("HEPAMAP_IMAGE=hepamap:2\n")
    prepared(None)
    assert (site.settings()["WORKER_IMAGE"], site.settings()["HEPAMAP_GPU_IMAGE"]) == ("hepamap:2", "")
    done = site.run("init.sh", "--gpu")
    assert (done.returncode, done.stderr.strip()) == (1, "There is no image for GPUs in this bundle: write it with GPU=yes.")


def test_a_strict_umask_closes_nothing_to_the_containers(site: Site, prepared: Callable[..., object]) -> None:
    models = site.folder.parent / "models"
    for path, mode in ((models, 0o700), (models / "pack", 0o750), (models / "pack/model.json", 0o600)):
        path.chmod(mode)
    (site.folder / "nginx.conf").chmod(0o600)
    prepared("1.2.3", umask=0o077)
    for name in ("nginx.conf", "../models/pack/model.json", "secrets/tls.crt", "secrets/tls.key", "secrets/db_password"):
        assert stat.S_IMODE((site.folder / name).stat().st_mode) == 0o644, name
    for name in ("../models", "../models/pack", "secrets/callbacks"):
        assert stat.S_IMODE((site.folder / name).stat().st_mode) & 0o755 == 0o755, name
    assert stat.S_IMODE((site.folder / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((site.folder / ".env").stat().st_mode) == 0o600


def test_a_bundle_has_what_is_pinned(site: Site, prepared: Callable[..., object], tmp_path: Path) -> None:
    prepared("1.2.3", "--gpu")
    with (site.folder / ".env").open("a") as file:
        file.write("NGINX_IMAGE=docker.io/library/nginx:1.28.1@sha256:abc\n")
    (site.folder.parent / "docs").mkdir()
    shutil.copy(REPOSITORY / "docs/deployment.md", site.folder.parent / "docs")
    done = site.run("bundle.sh", str(tmp_path / "bundle"), "--gpu")
    assert done.returncode == 0, done.stderr
    images = (tmp_path / "bundle/images.env").read_text().splitlines()
    assert images[0] == "HEPAMAP_IMAGE=hepamap:1.2.3"
    assert images[1].startswith("POSTGRES_IMAGE=docker.io/library/postgres:")
    assert images[2:] == ["NGINX_IMAGE=docker.io/library/nginx:1.28.1", "HEPAMAP_GPU_IMAGE=hepamap:1.2.3-gpu"]
    calls = site.log.read_text().splitlines()
    assert "tag docker.io/library/nginx:1.28.1@sha256:abc docker.io/library/nginx:1.28.1" in calls
    assert [call.split()[-1] for call in calls if call.startswith("save")] == [line.partition("=")[2] for line in images]
    assert os.access(tmp_path / "bundle/check-archive.sh", os.X_OK)


def test_every_link_of_a_bundles_documents_leads_to_a_file_in_it(
    site: Site, prepared: Callable[..., object], tmp_path: Path
) -> None:
    prepared("1.2.3")
    shutil.copytree(REPOSITORY / "docs", site.folder.parent / "docs")
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(REPOSITORY / "models", site.folder.parent / "models", dirs_exist_ok=True, ignore=weights)
    bundle = tmp_path / "bundle"
    done = site.run("bundle.sh", str(bundle))
    assert done.returncode == 0, done.stderr
    links = [
        (document, link.partition("#")[0])
        for document in bundle.rglob("*.md")
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", link)
    ]
    assert {document.name for document, _ in links} >= {"README.md", "deployment.md", "qupath.md"}
    places = {document.parent / link for document, link in links}
    assert [place for place in places if not place.resolve().is_relative_to(bundle) or not place.is_file()] == []
    assert not (bundle / "docs/images/demo.jpg").exists()
