"""Several machines: a map that one worker began is finished by another one, from the pieces that lie where both see them."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hepamap.detection import DetectionRequest, detect
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.postgres import Postgres
from tests.worker.conftest import wait_for
from tests.worker.fleet import SERVER, Fleet, fleet_settings
from tests.worker.mapping_worker import BrightnessDetector

WORKER = [sys.executable, "-m", "tests.worker.mapping_worker"]
PATIENCE_S = 120.0


@pytest.fixture
def fleet(postgres: Postgres, tmp_path: Path) -> Iterator[Fleet]:
    """A server and two workers on PostgreSQL."""
    fleet = Fleet(fleet_settings(tmp_path, postgres.new_database()), [SERVER, WORKER, WORKER])
    yield fleet
    fleet.stop()


def answered(settings: Settings) -> Counter[int]:
    """How many patches each process has answered for."""
    found: Counter[int] = Counter()
    log = settings.data_dir / "answers.log"
    for line in log.read_text().splitlines() if log.exists() else ():
        process, patches = line.split()
        found[int(process)] += int(patches)
    return found


def test_another_worker_finishes_the_map_of_a_killed_one(fleet: Fleet, tmp_path: Path) -> None:
    settings = fleet.settings
    squares = np.random.default_rng(3).integers(60, 190, (300, 8, 3), dtype=np.uint8)
    # Some pieces above each other, of a second each.
    slide = write_tiff_slide(settings.slide_roots[0] / "tall.tif", np.kron(squares, np.ones((64, 64, 1), np.uint8)), 0.46)
    detect(DetectionRequest(slide, "tiny-5x", mode="patch"), tmp_path / "alone", BrightnessDetector(settings.models_dir, 0.0))
    analysis = fleet.ask(0, slide={"path": str(slide)}, mode="patch", threshold=0.5)
    wait_for(lambda: len(list(settings.scratch_dir.glob("*/*.npy"))) >= 2, PATIENCE_S)
    (first,) = answered(settings)
    (killed,) = [process for process in fleet.processes if process.pid == first]
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    kept = len(list(settings.scratch_dir.glob("*/*.npy")))

    def is_done() -> bool:
        return bool(fleet.send("GET", f"/api/v1/analyses/{analysis['id']}")["state"] == "succeeded")

    wait_for(is_done, PATIENCE_S)
    (folder,) = settings.results_dir.iterdir()
    assert (folder / "probability-map.npy").read_bytes() == (tmp_path / "alone" / "probability-map.npy").read_bytes()
    assert list(settings.scratch_dir.iterdir()) == []
    counts = answered(settings)
    wanted = int(np.isfinite(np.load(folder / "probability-map.npy")).sum())
    (second,) = set(counts) - {first}
    assert second in [process.pid for process in fleet.processes]
    # It went on from what was stored: what was answered twice is at most the piece that was being made.
    assert kept >= 2
    assert counts[second] < wanted
    assert wanted <= counts.total() < 1.5 * wanted
