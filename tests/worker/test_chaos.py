"""Both forms of `chaos`, small; the large ones are a command of their own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.worker.chaos import embedded, scaled
from tests.worker.fleet import fleet_settings


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_done_twice_when_processes_are_killed(postgres: Postgres, tmp_path: Path) -> None:
    settings = fleet_settings(tmp_path, postgres.new_database())
    counts = scaled.chaos(settings, jobs=40, workers=2, kills=6, job_seconds=0.5, seed=7)
    assert counts.flawless, counts
    assert sum(counts.kills.values()) == 6
    assert counts.starts >= counts.asked
    assert counts.exits[1:] == (0, 0)
    assert counts.exits[0] in (0, -signal.SIGTERM)  # uvicorn ends by the signal that it was sent, when it has tidied up


@pytest.mark.slow
def test_one_server_with_its_own_worker_loses_nothing_either(tmp_path: Path) -> None:
    settings = embedded.embedded_settings(tmp_path)
    counts = embedded.chaos(settings, jobs=5, kills=2, seed=5, lease_s=4.0, amid_maps=True)
    assert counts.flawless, counts
    assert counts.kills == {"worker": 1, "all": 1}
    assert counts.kills_amid["maps"] > 0
    assert counts.callbacks_received == 4
