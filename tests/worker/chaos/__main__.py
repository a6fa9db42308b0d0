from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tests.worker.chaos
from tests.postgres import Postgres, running_postgres
from tests.worker.chaos import embedded, scaled
from tests.worker.fleet import fleet_settings

_FASTER_MIN = 1.8


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.worker.chaos",
        description=tests.worker.chaos.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--embedded", action="store_true", help="SQLite, and the worker that the server starts itself")
    form.add_argument("--throughput", action="store_true", help="no kills; one worker against two")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="not with --embedded, which has one")
    parser.add_argument("--database-kills", type=int, default=0, help="not with --embedded, whose database is no process")
    parser.add_argument("--job-seconds", type=float, default=0.6, help="not with --embedded, whose slides say how long it takes")
    arguments = parser.parse_args()
    if arguments.embedded:
        return _embedded(arguments)
    with running_postgres() as postgres:
        return _throughput(arguments, postgres) if arguments.throughput else _scaled(arguments, postgres)


def _embedded(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        settings = embedded.embedded_settings(Path(folder))
        counts = embedded.chaos(settings, jobs=arguments.jobs, kills=arguments.kills, seed=arguments.seed)
    _show({**asdict(counts), "flawless": counts.flawless})
    return 0 if counts.flawless else 1


def _scaled(arguments: argparse.Namespace, postgres: Postgres) -> int:
    counts = _run(arguments, postgres, arguments.workers, arguments.kills, arguments.database_kills)
    return 0 if counts.flawless else 1


def _throughput(arguments: argparse.Namespace, postgres: Postgres) -> int:
    one, two = (_run(arguments, postgres, workers, 0, 0) for workers in (1, 2))
    faster = one.seconds / two.seconds
    print(  # noqa: T201
        f"two workers are {faster:.2f} times as fast as one (at least {_FASTER_MIN} is wanted): {one.seconds:g} s and "
        f"{two.seconds:g} s from the first start of a job to the last end of one, for {arguments.jobs} jobs that wait "
        f"{arguments.job_seconds:g} s each and compute nothing, so that they share no core; one server and one PostgreSQL on "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    return 0 if one.flawless and two.flawless and faster >= _FASTER_MIN else 1


def _run(arguments: argparse.Namespace, postgres: Postgres, workers: int, kills: int, database_kills: int) -> scaled.Counts:
    with tempfile.TemporaryDirectory() as folder:
        counts = scaled.chaos(
            fleet_settings(Path(folder), postgres.new_database()),
            jobs=arguments.jobs,
            workers=workers,
            kills=kills,
            job_seconds=arguments.job_seconds,
            seed=arguments.seed,
            postgres=postgres,
            database_kills=database_kills,
        )
    _show({"workers": workers, **asdict(counts), "flawless": counts.flawless})
    return counts


def _show(counts: dict[str, Any]) -> None:
    print(json.dumps(counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
