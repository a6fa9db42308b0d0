"""The real server behind the client: real requests, real contours; only the network is a made-up one."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from hepamap.api.app import create_app
from hepamap.detection import ANALYSIS, Detector
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobRunner, RunnerLimits
from hepamap.jobs.store import JobStore
from hepamap.model_pack import OperatingPoint, write_pack
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from tests.conftest import WriteSlide
from tests.packs import manifest_body

if TYPE_CHECKING:
    from tests.qupath.conftest import Person

MPP = 0.46
CELL = 64  # of the pack, at its usual stride of 16 and 1.84 µm/px: level-0 px
LEFT, TOP, SIDE = 4 * CELL + 96, 3 * CELL + 96, 10 * CELL  # a dark square, on the borders of cells


@dataclass
class DarkIsTumour:
    """Answers the share of dark pixels in the patch's own cell."""

    batch_size: int = 16
    device: str = "none"
    policy: str = "float32"
    warnings: tuple[tuple[str, str], ...] = ()

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        cell = patches[:, 24:40, 24:40]
        return np.asarray((cell.max(axis=-1) < 60).mean(axis=(1, 2)), np.float32)


@dataclass
class DarkerIsLikelier(DarkIsTumour):
    """Answers how dark the patch's own cell is: grey 255 is 0, black is 1."""

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(1 - patches[:, 24:40, 24:40].mean(axis=(1, 2, 3)) / 255, np.float32)


@dataclass
class Server:
    url: str
    slides: Path
    store: JobStore


@contextmanager
def listening(settings: Settings) -> Iterator[str]:
    """The REST interface alone, at the address that is given."""
    http = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None, timeout_graceful_shutdown=1))
    web = threading.Thread(target=http.run)
    web.start()
    while not http.started:
        assert web.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}"
    http.should_exit = True
    web.join(10)


@pytest.fixture
def real_server(tmp_path: Path, shared_slides: Path | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    slides = tmp_path / "slides"
    slides.mkdir()
    points = (OperatingPoint(name="balanced", threshold=0.8, sensitivity=0.912, specificity=0.987),)
    body = manifest_body().model_copy(update={"operating_points": points})
    write_pack(tmp_path / "models/tiny-5x/1.0.0", body, {"none/none": np.zeros(1)}, "# For tests\n")
    monkeypatch.setattr(Detector, "predictor", lambda self, pack: DarkIsTumour())
    settings = Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        default_model="tiny-5x",
        slide_roots=(slides, *([shared_slides] if shared_slides else [])),
        embedded_worker=False,
        min_free_bytes=0,
    )
    with listening(settings) as url, closing(JobStore.open(settings.database_path)) as store:
        handlers = {ANALYSIS: DetectionHandler(Detector(settings.models_dir), settings.results_dir, settings.scratch_dir)}
        runner = JobRunner(store, handlers, RunnerLimits(beat_s=0.05, stale_s=60.0, attempts_max=1))
        work = threading.Thread(target=runner.run, args=(Polling(0.02),))
        work.start()
        yield Server(url, slides, store)
        runner.stop()
        work.join(10)


@pytest.fixture
def shared_slides() -> Path | None:
    return None


def dark_square() -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(-20, 20, (1500, 1800, 1))
    image = (np.array((190, 110, 160)) + noise).astype(np.uint8)
    image[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = (50, 30, 45)  # darker than 25, it would be background
    return image


@pytest.fixture
def slide(person: Person, real_server: Server, write_slide: WriteSlide) -> Path:
    """A slide with a dark square, open in QuPath."""
    path = write_slide(dark_square(), MPP).rename(real_server.slides / "dark square.tif")
    person.settings["server"] = real_server.url
    person.image = {"name": path.name, "level0": [1800, 1500], "um_per_px": MPP, "uris": [path.as_uri()], "objects": []}
    return path


def bounds(drawn: dict[str, Any]) -> tuple[float, float, float, float]:
    points = np.array([point for rings in drawn["polygons"] for point in rings[0]])
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def read_json(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)
