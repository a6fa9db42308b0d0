"""A map that was interrupted by `kill -9` is finished by the next worker, and is the map of an undisturbed run."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from hepamap.detection import DetectionRequest, detect
from hepamap.settings import Settings
from tests.conftest import write_tiff_slide
from tests.worker.conftest import SERVER, ServerFactory, wait_for
from tests.worker.mapping_worker import BrightnessDetector

MAPPING_WORKER = Path(__file__).with_name("mapping_worker.py")


def test_a_killed_map_goes_on_and_ends_with_the_same_bytes(start: ServerFactory, settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    # Some pieces above each other, of a second each.
    image = np.kron(rng.integers(60, 190, (300, 8, 3), dtype=np.uint8), np.ones((64, 64, 1), np.uint8))
    slide = write_tiff_slide(settings.slide_roots[0] / "tall.tif", image, 0.46)
    detect(DetectionRequest(slide, "tiny-5x", mode="patch"), tmp_path / "alone", BrightnessDetector(settings.models_dir, 0.0))
    server = start(settings, [sys.executable, "-c", SERVER, str(MAPPING_WORKER)])
    analysis = server.post(slide, mode="patch")
    for pieces in (1, 3):
        wait_for(lambda pieces=pieces: len(list(settings.scratch_dir.glob("*/*.npy"))) >= pieces, seconds=60)  # type: ignore[misc]
        (worker,) = server.workers()
        worker.kill()
        wait_for(lambda worker=worker: not worker.is_running())  # type: ignore[misc]
        wait_for(server.workers)
    wait_for(lambda: server.get(analysis)["state"] == "succeeded", seconds=60)
    (folder,) = settings.results_dir.iterdir()
    assert (folder / "probability-map.npy").read_bytes() == (tmp_path / "alone" / "probability-map.npy").read_bytes()
    wait_for(lambda: not list(settings.scratch_dir.iterdir()))  # tidied when the answer is there already
    answered: Counter[str] = Counter()
    for line in (settings.data_dir / "answers.log").read_text().splitlines():
        process, patches = line.split()
        answered[process] += int(patches)
    wanted = int(np.isfinite(np.load(folder / "probability-map.npy")).sum())
    # Each kill costs what the piece that was being done had so far, and no more.
    assert len(answered) == 3
    assert wanted <= sum(answered.values()) < 1.5 * wanted
