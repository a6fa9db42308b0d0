"""The script with the real server behind it: real requests, real contours; only the network is a made-up one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from hepamap.api.app import create_app
from hepamap.detection import Detector
from hepamap.jobs.queue import Polling
from hepamap.jobs.runner import JobRunner, RunnerLimits
from hepamap.jobs.store import JobStore
from hepamap.model_pack import write_pack
from hepamap.settings import Settings
from hepamap.worker.handler import ANALYSIS, DetectionHandler
from tests.conftest import WriteSlide
from tests.packs import manifest_body
from tests.qupath.conftest import Person, the_dialog

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
class Server:
    url: str
    slides: Path
    store: JobStore


@pytest.fixture
def real_server(tmp_path: Path, shared_slides: Path | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    slides = tmp_path / "slides"
    slides.mkdir()
    write_pack(tmp_path / "models/tiny-5x/1.0.0", manifest_body(), {"none/none": np.zeros(1)}, "# For tests\n")
    monkeypatch.setattr(Detector, "predictor", lambda self, pack: DarkIsTumour())
    settings = Settings(
        data_dir=tmp_path / "data",
        models_dir=tmp_path / "models",
        default_model="tiny-5x",
        slide_roots=(slides, *([shared_slides] if shared_slides else [])),
        embedded_worker=False,
        min_free_bytes=0,
    )
    http = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None, timeout_graceful_shutdown=1))
    web = threading.Thread(target=http.run)
    web.start()
    while not http.started:
        assert web.is_alive()
        time.sleep(0.01)
    with closing(JobStore.open(settings.database_path)) as store:
        handlers = {ANALYSIS: DetectionHandler(Detector(settings.models_dir), settings.results_dir, settings.scratch_dir)}
        runner = JobRunner(store, handlers, RunnerLimits(beat_s=0.05, stale_s=60.0, attempts_max=1))
        work = threading.Thread(target=runner.run, args=(Polling(0.02),))
        work.start()
        port = http.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}", slides, store)
        runner.stop()
        work.join(10)
    http.should_exit = True
    web.join(10)


@pytest.fixture
def shared_slides() -> Path | None:
    return None


@pytest.fixture
def slide(person: Person, real_server: Server, write_slide: WriteSlide) -> Path:
    """A slide with a dark square, open in QuPath."""
    noise = np.random.default_rng(3).integers(-20, 20, (1500, 1800, 1))
    image = (np.array((190, 110, 160)) + noise).astype(np.uint8)
    image[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = 5
    path = write_slide(image, MPP).rename(real_server.slides / "dark square.tif")
    person.settings["server"] = real_server.url
    person.image = {"name": path.name, "level0": [1800, 1500], "um_per_px": MPP, "uris": [path.as_uri()], "objects": []}
    return path


def bounds(drawn: dict[str, Any]) -> tuple[float, float, float, float]:
    points = np.array([point for rings in drawn["polygons"] for point in rings[0]])
    left, top = points.min(axis=0)
    right, bottom = points.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


@pytest.mark.usefixtures("slide")
def test_the_tumour_is_drawn_where_it_is(person: Person) -> None:
    outcome = person.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done"
    (drawn,) = outcome["image"]["objects"]
    assert bounds(drawn) == (LEFT, TOP, LEFT + SIDE, TOP + SIDE)
    assert drawn["metadata"]["hepamap.model"] == "tiny-5x@1.0.0"
    assert drawn["locked"]


@pytest.mark.usefixtures("slide")
def test_the_second_run_replaces_the_first(person: Person) -> None:
    assert person.image is not None
    (first,) = person.runs_it()["image"]["objects"]
    half = LEFT + SIDE // 2
    box = [[[0, 0], [half, 0], [half, 1500], [0, 1500], [0, 0]]]
    person.image["objects"] = [first, {"name": "by hand", "polygons": [box], "selected": True}]
    outcome = person.runs_it("editor")
    assert "1 earlier contour of this model replaced" in the_dialog(outcome)["text"]
    by_hand, second = outcome["image"]["objects"]
    assert by_hand["name"] == "by hand"
    assert second["id"] != first["id"]
    assert bounds(second) == (LEFT, TOP, half, TOP + SIDE)


def test_what_the_server_refuses_is_said(person: Person, slide: Path) -> None:
    assert person.image is not None
    person.image["level0"] = [1799, 1500]
    text = person.sees()
    assert text.startswith("The slide on the server is not the one that is open.")
    assert "1799 × 1500 px" in text
    person.image["uris"] = [Path("/elsewhere/a.svs").as_uri()]
    assert person.sees().startswith("The server cannot use the file of this slide.")
    person.image["uris"] = [(slide.parent / "none.svs").as_uri()]
    assert "none.svs" in person.sees()


def test_cancel_stops_the_job(person: Person, slide: Path, real_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(DarkIsTumour):
        def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
            time.sleep(0.2)
            return super().predict(patches)

    monkeypatch.setattr(Detector, "predictor", lambda self, pack: Slow())
    outcome = person.runs_it(do_on={"message": "%", "action": "CANCEL"})
    assert the_dialog(outcome)["title"] == "hepamap: cancelled"
    assert outcome["image"]["objects"] == []
    deadline = time.monotonic() + 10
    while not (job := real_server.store.page(state=None, limit=1, before=None).jobs[0]).finished:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert job.state == "cancelled"


class TestSlideWithBounds:
    """A real Mirax slide, which QuPath crops to what was scanned."""

    @pytest.fixture
    def shared_slides(self, shared_data: Path) -> Path:
        return shared_data / "slides"

    def test_contours_lie_in_what_qupath_shows(
        self, person: Person, real_server: Server, shared_slides: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class AllTumour(DarkIsTumour):
            def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
                return np.ones(len(patches), np.float32)

        monkeypatch.setattr(Detector, "predictor", lambda self, pack: AllTumour())
        path = shared_slides / "slaid" / "Mirax2-Fluorescence-2.mrxs"
        box = {"polygons": [[[[4000, 3000], [5000, 3000], [5000, 4000], [4000, 4000], [4000, 3000]]]], "selected": True}
        person.settings["server"] = real_server.url
        person.image = {"name": path.name, "level0": [72448, 152080], "bounds": [9153, 102664, 10439, 7641]}
        person.image |= {"um_per_px": None, "uris": [path.resolve().as_uri()], "objects": [box]}
        _, drawn = person.runs_it()["image"]["objects"]
        job = real_server.store.page(state=None, limit=1, before=None).jobs[0]
        assert job.payload["frame"] == {"name": "bounds", "offset_x": 9153.0, "offset_y": 102664.0}
        # Whole cells that meet the box, each 91 px wide on this slide.
        assert bounds(drawn) == pytest.approx((4000, 3000, 5000, 4000), abs=92)
