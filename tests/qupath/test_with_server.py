"""The client with the real server behind it."""

from __future__ import annotations

import re
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.affinity
from numpy.typing import NDArray

from hepamap.detection import Detector
from tests.conftest import write_bounded_slide
from tests.qupath.conftest import Person, the_dialog
from tests.qupath.live import CELL, LEFT, MPP, SIDE, TOP, DarkIsTumour, Server, bounds, dark_square, read_json


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


@pytest.mark.usefixtures("slide")
def test_a_step_of_the_workflow_repeats_its_run(person: Person) -> None:
    first = person.runs_it()["image"]
    told = re.search(r"\['detect', '(.*)'\] as String", first["workflow"][0]["script"])
    assert told is not None
    again = person.runs_it("headless", args=["detect", told[1]])
    assert again["thrown"] is None
    assert [bounds(one) for one in again["image"]["objects"]] == [bounds(one) for one in first["objects"]]
    assert again["image"]["workflow"][0]["script"] == first["workflow"][0]["script"]


class Watch:
    """When the newest job was first seen in each state, by the clock, s."""

    def __init__(self, server: Server) -> None:
        self.seen: dict[str, float] = {}
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            for job in self._server.store.page(state=None, limit=1, before=None).jobs:
                self.seen.setdefault(job.state, time.time())

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)


@pytest.mark.usefixtures("slide")
@pytest.mark.parametrize("action", ["CANCEL", "X"])
def test_cancel_stops_the_job_within_two_seconds(
    person: Person, real_server: Server, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    class Slow(DarkIsTumour):
        def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
            time.sleep(0.5)
            return super().predict(patches)

    monkeypatch.setattr(Detector, "predictor", lambda self, pack: Slow())
    with closing(Watch(real_server)) as watch:
        outcome = person.runs_it(do_on={"message": "%", "action": action})
        deadline = time.monotonic() + 10
        while "cancelled" not in watch.seen:
            assert time.monotonic() < deadline, watch.seen
            time.sleep(0.05)
    assert the_dialog(outcome)["title"] == "hepamap: cancelled"
    assert outcome["image"]["objects"] == []
    pressed_at = outcome["pressed_at_ms"] / 1000
    assert watch.seen["running"] < pressed_at
    # What the guide promises: from the press to the state of the job, with the client's own calls in between.
    assert watch.seen["cancelled"] - pressed_at < 2.0


CORNER, LEVEL0 = (5 * CELL, 3 * CELL), (2304, 1800)


@pytest.fixture
def bounded(person: Person, real_server: Server) -> Path:
    """The dark square in the scanned part of a larger slide; QuPath shows that part alone."""
    path = write_bounded_slide(real_server.slides / "scanned.scn", dark_square(), MPP, CORNER, LEVEL0)
    person.settings["server"] = real_server.url
    person.image = {"name": path.name, "level0": [*LEVEL0], "bounds": [*CORNER, 1800, 1500], "um_per_px": MPP}
    person.image |= {"uris": [path.as_uri()], "objects": []}
    return path


SQUARE = (LEFT, TOP, LEFT + SIDE, TOP + SIDE)
# A selection that has a part of the square, by the borders of cells.
BOX = (LEFT - 2 * CELL, TOP - 2 * CELL, LEFT + 5 * CELL, TOP + 4 * CELL)
PART = (LEFT, TOP, LEFT + 5 * CELL, TOP + 4 * CELL)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("no_crop", [False, True])
@pytest.mark.parametrize(("item", "expected"), [("Detect tumor", SQUARE), ("Detect in selection", PART)])
def test_on_a_slide_with_bounds_contours_are_exact(
    person: Person, item: str, expected: tuple[int, int, int, int], no_crop: bool
) -> None:
    assert person.image is not None
    person.image["no_crop"] = no_crop
    x, y = CORNER if no_crop else (0, 0)
    selected = shapely.affinity.translate(shapely.box(*BOX), x, y)
    ring = [list(point) for point in selected.exterior.coords]
    person.image["objects"] = [{"name": "box", "polygons": [[ring]], "selected": True}]
    outcome = person.runs_it(item=item)
    assert "1 tumor region" in the_dialog(outcome)["text"]
    _, drawn = outcome["image"]["objects"]
    (rings,) = drawn["polygons"]
    assert shapely.Polygon(rings[0], rings[1:]).equals(shapely.affinity.translate(shapely.box(*expected), x, y))


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
        box: dict[str, Any] = {
            "polygons": [[[[4000, 3000], [5000, 3000], [5000, 4000], [4000, 4000], [4000, 3000]]]],
            "selected": True,
        }
        person.settings["server"] = real_server.url
        person.image = {"name": path.name, "level0": [72448, 152080], "bounds": [9153, 102664, 10439, 7641]}
        person.image |= {"um_per_px": None, "uris": [path.resolve().as_uri()], "objects": [box]}
        steps = [{"item": "Show or hide probability map"}, {"until": "overlay"}]
        outcome = person.runs_it(steps=[{"item": "Detect in selection"}, {"wait": "dialog"}, *steps])
        _, drawn = outcome["image"]["objects"]
        job = real_server.store.page(state=None, limit=1, before=None).jobs[0]
        assert job.payload["frame"] == {"name": "bounds", "offset_x": 9153.0, "offset_y": 102664.0}
        # Whole cells that meet the box, each 91 px wide on this slide.
        assert bounds(drawn) == pytest.approx((4000, 3000, 5000, 4000), abs=92)
        # The map has the cells of the region alone; what the contours enclose is what it covers.
        left, top, width, height = outcome["overlay"]["region"]
        assert (left, top, left + width, top + height) == pytest.approx(bounds(drawn), abs=1)
        level0 = read_json(f"{real_server.url}/api/v1/analyses/{job.id}/probability-map?format=json&frame=level0")
        assert [level0["x"] - 9153, level0["y"] - 102664] == pytest.approx([left, top], abs=0.5)
        # The same slide opened with --no-crop: the same contour, exactly the corner of the bounds away.
        person.image["no_crop"] = True
        box["polygons"] = [[[[x + 9153, y + 102664] for x, y in box["polygons"][0][0]]]]
        _, moved = person.runs_it(item="Detect in selection")["image"]["objects"]
        ring, moved_ring = (np.array(one["polygons"][0][0]) for one in (drawn, moved))
        assert np.abs(moved_ring - ring - (9153, 102664)).max() < 0.011  # both are rounded to a hundredth
