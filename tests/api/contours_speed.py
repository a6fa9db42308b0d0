"""How long contours of a stored map take at new thresholds, over REST from a real server process.

    python -m tests.api.contours_speed

The map is one of a 25 × 50 mm slide at a stride of 29.44 µm: 850 × 1700 cells, smoothed noise, with hundreds of regions.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil

from hepamap.geometry import Grid, Lattice, PixelSize, Point
from hepamap.jobs.job import JobResult, Question
from hepamap.jobs.store import JobStore
from hepamap.operations.folders import make_folders
from hepamap.probability_map import ProbabilityMap
from hepamap.results import SUMMARY_NAME, Frame, frame_json, open_result
from hepamap.settings import Settings
from tests.api.server_process import serving

ROWS, COLUMNS = 850, 1700
FRAME = frame_json(Frame("level0", Point(0.0, 0.0)))
PROVENANCE = {
    "software": {"version": "0", "commit": "c"},
    "model": {"id": "m", "version": "1.0.0", "weights_sha256": "s"},
    "slide": {"fingerprint": "f"},
    "mode": "patch",
    "stride_m": 16,
}


def write_result(folder: Path) -> None:
    """A result with what contours need."""
    rough = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(rough, (0, 0), 6.0), np.float32)
    values = ((smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.float32)
    values[:, : COLUMNS // 5] = np.nan
    lattice = Lattice(Grid(1.84, 64, 16, PixelSize(0.46, 0.46)), -2, -2, COLUMNS, ROWS)
    folder.mkdir(parents=True)
    ProbabilityMap(values, lattice, PROVENANCE).save(folder)
    parameters = {"threshold": 0.5, "min_area_um2": 1e4, "min_hole_area_um2": 1e4}
    (folder / SUMMARY_NAME).write_text(json.dumps({"frame": FRAME, "parameters": parameters, "provenance": PROVENANCE}))


def stored_analysis(settings: Settings) -> str:
    """An analysis that has succeeded with that result."""
    make_folders(settings)
    write_result(settings.results_dir / "map")
    store = JobStore.open(settings.database)
    payload = {"request": {}, "identity": None, "frame": FRAME, "fingerprint": "f"}
    job = store.submit(Question(kind="analysis", key="k", work={}, payload=payload)).job
    work = store.claim()
    assert work is not None
    assert store.succeed(work, JobResult("ok", (), "map"))
    store.close()
    return job.id


def milliseconds(seconds: list[float]) -> str:
    return f"median {1000 * statistics.median(seconds):.0f} ms, best {1000 * min(seconds):.0f} ms"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(data_dir=Path(place), models_dir=Path(place), embedded_worker=False, min_free_bytes=0)
        job_id = stored_analysis(settings)
        opening = []
        for _ in range(20):
            started = time.perf_counter()
            open_result(settings.results_dir / "map")
            opening.append(time.perf_counter() - started)
        with serving(settings, Path(place) / "log") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
            url, process = f"/api/v1/analyses/{job_id}/contours", psutil.Process(server.pid)
            walls, computing = [], []
            for number in range(30):
                before, started = process.cpu_times().user, time.perf_counter()
                response = client.get(url, params={"threshold": 0.5 + number / 1000})
                walls.append(time.perf_counter() - started)
                computing.append(process.cpu_times().user - before)
                response.raise_for_status()
            regions, size = len(response.json()["features"]), len(response.content)
            again = client.get(
                url,
                params={"threshold": 0.5},
                headers={"If-None-Match": client.get(url, params={"threshold": 0.5}).headers["etag"]},
            )
    print(f"{regions} regions, {size / 1e6:.2f} MB of GeoJSON")  # noqa: T201
    print(f"contours at a new threshold: {milliseconds(walls[2:])}; processor time {milliseconds(computing[2:])}")  # noqa: T201
    print(f"opening the stored map: {milliseconds(opening)}; what the client has: status {again.status_code}")  # noqa: T201


if __name__ == "__main__":
    main()
