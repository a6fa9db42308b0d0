"""How long who waits for PostgreSQL waits when its host vanishes; for a network of its own, whose packets are then dropped.

Only the system's own means are at work: the limit on silence is taken away. Prints the seconds by what was waited for.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa

from hepamap.jobs.database import connect, open_database
from hepamap.jobs.patience import PatientConnection
from hepamap.jobs.queue import _conninfo
from tests.jobs.frozen import frozen_way
from tests.postgres import running_postgres

_PATIENCE_S = 60.0


def waits_of(place: str, url: str, port: int) -> dict[str, float]:
    """See the module."""
    open_database(place).dispose()
    engine = connect(url)
    lines = [engine.connect(), engine.connect()]
    for line in lines:
        line.execute(sa.text("SELECT 1"))
    listener = psycopg.connect(_conninfo(engine.url), autocommit=True)
    listener.execute("LISTEN nothing")
    waits: dict[str, float] = {}
    confirmed = _waiting("a statement that has arrived", lambda: lines[1].execute(sa.text("SELECT pg_sleep(300)")), waits)
    time.sleep(1.0)
    for end in ("--dport", "--sport"):
        subprocess.run(["iptables", "-A", "INPUT", "-p", "tcp", end, str(port), "-j", "DROP"], check=True)
    asked = _waiting("a new statement", lambda: lines[0].execute(sa.text("SELECT 1")), waits)
    idle = _waiting("a listener", lambda: list(listener.notifies(timeout=2 * _PATIENCE_S)), waits)
    for thread in (confirmed, asked, idle):
        thread.join(_PATIENCE_S)
    return dict(waits)


def _waiting(name: str, wait: Callable[[], Any], waits: dict[str, float]) -> threading.Thread:
    def run() -> None:
        started = time.monotonic()
        try:
            wait()
        except (psycopg.OperationalError, sa.exc.OperationalError):
            waits[name] = time.monotonic() - started

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


if __name__ == "__main__":
    PatientConnection.silence_s = None
    with running_postgres() as postgres:
        place = postgres.new_database()
        with frozen_way(postgres.folder, place) as (way, url):
            print(json.dumps(waits_of(place, url, way.port)), flush=True)  # noqa: T201
