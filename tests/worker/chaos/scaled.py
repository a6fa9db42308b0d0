"""The scaled form: PostgreSQL, a server and some workers, any of which may be killed."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hepamap.jobs.store import JobStore
from hepamap.operations import tallies
from hepamap.settings import Settings
from tests.postgres import Postgres
from tests.worker.fleet import SERVER, Fleet
from tests.worker.small_worker import answer_to

_ATTEMPTS_MAX = 50
_WORKER = [sys.executable, "-m", "tests.worker.small_worker"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the jobs."""

    asked: int
    analyses: int
    succeeded: int
    right: int
    """Results that answer the question that was asked."""
    ends_stored: int
    """How often the end of a job was stored, as counted in the transactions that stored them."""
    starts: int
    """How often a job was started: killed ones start anew."""
    kills: dict[str, int]
    seconds: float
    """From the first start of a job to the last end of one."""
    exits: tuple[int, ...]
    """Exit statuses of the processes that were left in the end, and stopped politely."""

    @property
    def flawless(self) -> bool:
        """Nothing lost, nothing twice, nothing wrong."""
        return self.asked == self.analyses == self.succeeded == self.right == self.ends_stored


def chaos(
    settings: Settings,
    *,
    jobs: int,
    workers: int,
    kills: int,
    job_seconds: float,
    seed: int,
    postgres: Postgres | None = None,
    database_kills: int = 0,
) -> Counts:
    """Ask for `jobs` analyses while processes are killed, and wait for the answers.

    Args:
        settings: of the site.
        jobs: how many.
        workers: how many.
        kills: of the server and the workers, all together.
        job_seconds: how long a job takes undisturbed.
        seed: which moments, and which processes.
        postgres: the database's server.
        database_kills: how often that is killed, besides.
    """
    rng = random.Random(seed)
    # Its jobs store no pieces, so that each start that is killed is in vain, and chance may kill one job again and again.
    settings = settings.model_copy(update={"worker_attempts_max": _ATTEMPTS_MAX})
    fleet = Fleet(settings, [SERVER, *[_WORKER] * workers], SMALL_JOB_SECONDS=str(job_seconds))
    asking = threading.Thread(target=lambda: [fleet.ask(number) for number in range(jobs)])
    asking.start()
    # Spread over the time that the jobs would take undisturbed: processes need some time to start anew.
    pause_s = max(0.5, jobs * job_seconds / workers / max(1, kills))
    assert postgres is not None or not database_kills
    victims = [False] * kills + [True] * database_kills
    rng.shuffle(victims)
    killed: Counter[str] = Counter()
    for is_database in victims:
        time.sleep(rng.uniform(0.2, 1.8) * pause_s)
        fleet.revive()
        killed[_kill(fleet, workers, postgres if is_database else None, rng)] += 1
    while asking.is_alive():
        fleet.revive()
        asking.join(0.5)
    while any(analysis["finished_at"] is None for analysis in fleet.analyses()):
        fleet.revive()
        time.sleep(0.2)
    return _counted(fleet, settings, jobs, dict(killed))


def _kill(fleet: Fleet, workers: int, postgres: Postgres | None, rng: random.Random) -> str:
    """Kill PostgreSQL, which is started again, or else one of the others; says which kind it was."""
    if postgres is not None:
        postgres.kill()
        time.sleep(rng.uniform(0.1, 3.0))
        postgres.start()
        return "postgresql"
    number = rng.randrange(workers + 1)
    fleet.kill(number)
    return "worker" if number else "server"


def _counted(fleet: Fleet, settings: Settings, jobs: int, killed: dict[str, int]) -> Counts:
    analyses = fleet.analyses()
    exits = fleet.stop()
    with closing(JobStore.open(settings.database)) as store:
        with store.reading() as session:
            ends = sum(tally.count for tally in tallies.read(session)[tallies.OUTCOMES])
        return Counts(
            asked=jobs,
            analyses=len(analyses),
            succeeded=sum(analysis["state"] == "succeeded" for analysis in analyses),
            right=sum(_is_right(analysis, store, settings) for analysis in analyses),
            ends_stored=ends,
            starts=len((settings.data_dir / "starts.log").read_text().splitlines()),
            kills=killed,
            seconds=round(_span(analyses), 1),
            exits=tuple(exits),
        )


def _span(analyses: list[Any]) -> float:
    times = [[datetime.fromisoformat(analysis[name]) for analysis in analyses] for name in ("started_at", "finished_at")]
    return (max(times[1]) - min(times[0])).total_seconds()


def _is_right(analysis: Any, store: JobStore, settings: Settings) -> bool:
    job = store.get(analysis["id"])
    if job is None or job.result is None:
        return False
    found = json.loads((settings.results_dir / job.result.location / "result.json").read_text())
    threshold = analysis["request"]["threshold"]
    return bool(found == {"threshold": threshold, "answer": answer_to(threshold)})
