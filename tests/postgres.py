"""A private PostgreSQL in a temporary folder, reached by a socket in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from tests.required import missing

_USER = "postgres"
# What is committed survives a crash of PostgreSQL also without fsync; tests never cut the power.
_OPTIONS = "-c listen_addresses='' -c fsync=off -c max_connections=60"


class Postgres:
    """A running server; may be stopped and started again."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._run("initdb", "-D", str(folder / "data"), "-U", _USER, "--auth=trust", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"{_OPTIONS} -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """At once, as a crash would."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self.folder / "data"), "-m", "immediate")

    def kill(self) -> None:
        """All its processes by `kill -9`, the first one first."""
        first = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 30)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(host=str(self.folder), user=_USER, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_USER}@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        become = ["runuser", "-u", _USER, "--"] if os.getuid() == 0 else []
        subprocess.run(
            [*become, str(self._programs / program), *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of its own, or a skipped test where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        missing("postgresql", "PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hepamap-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam(_USER).pw_uid, -1)
        server = Postgres(folder, programs)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
