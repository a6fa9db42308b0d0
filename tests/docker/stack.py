"""The stack as an operator has it: a folder with the files of docker/, prepared by init.sh and run by compose."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.docker.engine import Engine, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "0123456789ab"
PYTHON, POSTGRES, NGINX = "localhost/python:3.11-slim-bookworm", "localhost/postgres:15-bookworm", "localhost/nginx:1.22-bookworm"
HEPAMAP = "localhost/hepamap:test"
SERVICES = ("proxy", "api", "worker", "db")

_PORT = 18443
_SITE = """\
HEPAMAP_PATH_MAPPINGS={"S:/slides": "/slides"}
HEPAMAP_WORKER_STALE_S=15
HEPAMAP_REQUESTS_PER_MINUTE=300
"""


class Stack:
    """One installation in a folder."""

    def __init__(self, engine: Engine, folder: Path, slides: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.slides = slides
        self.project = "hepamap"

    def make_folder(self) -> None:
        """Lay out the folder as a bundle would, without the files of the images."""
        shutil.copytree(REPOSITORY / "docker", self.folder, ignore=shutil.ignore_patterns(".env", "secrets", "hepamap.env"))
        shutil.copytree(REPOSITORY / "models", self.folder / "models", copy_function=os.link)
        (self.folder / "images.env").write_text(f"HEPAMAP_IMAGE={HEPAMAP}\nPOSTGRES_IMAGE={POSTGRES}\nNGINX_IMAGE={NGINX}\n")

    def prepare(self) -> None:
        """Run init.sh as the guide says, and set what this test needs."""
        self.script("init.sh", "--slides", str(self.slides), "--name", "hepamap.test", "--bind", f"127.0.0.1:{_PORT}")
        (self.folder / "hepamap.env").write_text(_SITE)
        shutil.copy(REPOSITORY / "tests/docker/bases/compose.podman.yaml", self.folder)
        with (self.folder / ".env").open("a") as file:
            file.write("COMPOSE_FILE=compose.yaml:compose.podman.yaml\n")

    def compose(self, *arguments: str, timeout_s: float = 400) -> str:
        """Run docker-compose in the folder."""
        return self._in_folder(["docker-compose", *arguments], timeout_s)

    def script(self, name: str, *arguments: str, timeout_s: float = 400) -> str:
        """Run a script of the folder."""
        return self._in_folder([f"./{name}", *arguments], timeout_s)

    def _in_folder(self, command: Sequence[str], timeout_s: float) -> str:
        environment = {**self.engine.environment, "ENGINE": "podman", "COMPOSE": "docker-compose"}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def container(self, service: str) -> str:
        """Id of a service's container."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        found = self.engine.podman("ps", "-a", "-q", "--no-trunc", *filters).split()
        assert len(found) == 1, f"{service}: {found}"
        return found[0]

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command inside a service's container."""
        return self.engine.podman("exec", self.container(service), *command, check=check)

    def python(self, service: str, code: str) -> str:
        """Run Python inside a container of hepamap."""
        return self.execute(service, "python", "-c", code).strip()

    def make_key(self, name: str, *scopes: str) -> str:
        """The guide's command for a key; its secret."""
        arguments = [part for scope in scopes for part in ("--scope", scope)]
        return self.execute("api", "hepamap", "keys", "create", name, *arguments).strip()

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A client that comes through the proxy and trusts its certificate alone."""
        context = ssl.create_default_context(cafile=str(self.folder / "secrets/tls.crt"))
        sent = headers if key is None else {"Authorization": f"Bearer {key}", **headers}
        return httpx.Client(base_url=f"https://localhost:{_PORT}", verify=context, headers=sent, timeout=60, trust_env=False)

    def readiness(self) -> Any:
        """What /health/ready answers, through the proxy; None while nothing does."""
        try:
            with self.client() as client:
                response = client.get("/health/ready")
        except httpx.TransportError:
            return None
        return response.json() if response.headers.get("content-type") == "application/json" else None

    def wait_ready(self, seconds: float = 180) -> float:
        """Wait until an analysis would be done; how long it took, seconds."""

        def is_ready() -> bool:
            answer = self.readiness()
            return answer is not None and answer["status"] == "ready"

        return wait_until(is_ready, seconds, f"the stack is not ready: {self.readiness()}")

    def memory_peaks(self) -> dict[str, int]:
        """The most memory that each container had so far, bytes, page cache included."""
        files = "/sys/fs/cgroup/memory/memory.max_usage_in_bytes /sys/fs/cgroup/memory.peak"
        return {name: int(self.execute(name, "sh", "-c", f"cat {files} 2>/dev/null || true").split()[0]) for name in SERVICES}

    def _log(self, service: str) -> str:
        command = f"podman logs --tail 25 {self.container(service)} 2>&1"
        return self.engine.run(["bash", "-c", command], check=False)

    def logs(self) -> str:
        """The end of each container's log, for whoever looks at a failure."""
        parts = []
        for service in SERVICES:
            try:
                parts.append(f"--- {service}\n{self._log(service)}")
            except (AssertionError, RuntimeError) as error:
                parts.append(f"--- {service}: {error}")
        return "\n".join(parts)
