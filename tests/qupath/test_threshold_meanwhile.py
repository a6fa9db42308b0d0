"""The threshold window while something else goes on: a new detection, a server that is away or slow."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from PIL import Image

from tests.qupath.conftest import Person
from tests.qupath.fake_server import Answer, Asked, analysis, collection, feature, problem
from tests.qupath.test_messages import require_in_guide

PATH = "/api/v1/analyses"
DETECTED: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"wait": "dialog"}]
OPENED: list[dict[str, Any]] = [*DETECTED, {"item": "Adjust threshold…"}, {"until": "Tumor is what has"}]
DRAWN: dict[str, Any] = {"until": r"\(\d+ ms\)"}
USE: dict[str, Any] = {"press": "Use this threshold"}
QUIET: dict[str, Any] = {"until": "quiet"}
AWAY = problem(503, "job_store_error", "Just now.", "Wait.")
FACTS = {
    **{"x": 0, "y": 0, "width": 20000, "height": 10000, "columns": 2, "rows": 1, "threshold": 0.5, "model": {"id": "hcc-10x"}},
    "operating_points": [{"name": "strict", "threshold": 0.9}],
}


def moved(threshold: float) -> dict[str, Any]:
    return {"set": {"threshold-slider": threshold}}


def map_image() -> bytes:
    png = io.BytesIO()
    Image.new("L", (2, 1), 128).save(png, "PNG")
    return png.getvalue()


@dataclass
class Analyses:
    """A server with an analysis for each question; its contours say from which analysis they are, and at which threshold."""

    # What is asked of contours is their threshold, else it is `keeping` or `map`.
    delays_s: dict[str, float] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)  # it comes after the contours of a second analysis
    refusals: list[str] = field(default_factory=list)  # the next one is refused
    stays_running: set[str] = field(default_factory=set)
    finds_nothing: set[str] = field(default_factory=set)
    kept: list[tuple[str, float]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _second: threading.Event = field(default_factory=threading.Event)

    def post(self, asked: Asked) -> Answer:
        kind = "coarse" if "priority" in asked.body else "fine"
        return Answer(202, analysis("queued", id=f"{kind}-{next(self._numbers)}"))

    def look(self, asked: Asked) -> Answer:
        name = asked.path.split("/")[4]
        return Answer(200, analysis("running" if name in self.stays_running else "succeeded", id=name))

    def contours(self, asked: Asked) -> Answer:
        name, at = asked.path.split("/")[4], asked.path.partition("threshold=")[2] or "0.5"
        if name == "fine-2":
            self._second.set()
        contour = feature([square(float(at))])
        contour["properties"]["name"] = f"{name} at {at}"
        return self._answer(at, collection() if name in self.finds_nothing else collection(contour))

    def map(self, asked: Asked) -> Answer:
        return self._answer("map", map_image() if "index8" in asked.path else FACTS)

    def keep(self, asked: Asked) -> Answer:
        answer = self._answer("keeping", {})
        if answer.status == 200:
            self.kept.append((asked.path.split("/")[4], asked.body["threshold"]))
        return answer

    def _answer(self, what: str, body: dict[str, Any] | bytes) -> Answer:
        if what in self.refusals:
            self.refusals.remove(what)
            return AWAY
        if what in self.late:
            assert self._second.wait(10)
            time.sleep(1)  # those are drawn first
        time.sleep(self.delays_s.get(what, 0))
        return Answer(200, body)


def square(threshold: float) -> list[list[float]]:
    side = 1000 * threshold
    return [[0.0, 0.0], [side, 0.0], [side, side], [0.0, side], [0.0, 0.0]]


@pytest.fixture
def analyses(person: Person) -> Analyses:
    made = Analyses()
    person.server.answer("POST", PATH, made.post)
    person.server.answer("GET", f"{PATH}/[^/]+", made.look)
    person.server.answer("GET", f"{PATH}/[^/]+/contours", made.contours)
    person.server.answer("GET", f"{PATH}/[^/]+/probability-map", made.map)
    person.server.answer("PUT", f"{PATH}/[^/]+/threshold", made.keep)
    return made


def names(image: dict[str, Any]) -> list[str]:
    return [one["name"] for one in image["objects"]]


def test_the_window_goes_with_its_analysis(person: Person, analyses: Analyses) -> None:
    meanwhile = [*OPENED, moved(0.6), DRAWN, *DETECTED, {"note": {}}]
    outcome = person.runs_it(steps=[*meanwhile, {"hide": True}, QUIET])
    (note,) = outcome["notes"]
    assert names(note["image"]) == ["fine-2 at 0.5"]
    assert (note["windows"], note["overlay"]) == ([], None)
    assert names(outcome["shown"]) == ["fine-2 at 0.5"]
    assert outcome["errors"] == []


def test_the_legend_goes_with_its_analysis(person: Person, analyses: Analyses) -> None:
    shown = [*DETECTED, {"item": "Show or hide probability map"}, {"until": "The probability of tumor"}]
    outcome = person.runs_it(steps=[*shown, *DETECTED, {"note": {}}])
    assert (outcome["notes"][0]["windows"], outcome["overlay"]) == ([], None)


@pytest.mark.parametrize("item", ["Adjust threshold…", "Show or hide probability map"])
def test_a_map_that_comes_late_is_not_laid_on_a_new_analysis(person: Person, analyses: Analyses, item: str) -> None:
    analyses.late.add("map")
    outcome = person.runs_it(steps=[*DETECTED, {"item": item}, *DETECTED, QUIET, {"wait": "dialog"}])
    assert outcome["dialogs"][-1]["text"].startswith("The image has the contours of another analysis by now")
    assert (outcome["overlay"], names(outcome["shown"])) == (None, ["fine-2 at 0.5"])


def test_a_threshold_that_comes_late_is_not_drawn_on_a_new_analysis(person: Person, analyses: Analyses, guide: str) -> None:
    analyses.late.add("0.6")
    outcome = person.runs_it(steps=[*OPENED, moved(0.6), USE, *DETECTED, QUIET, {"wait": "dialog"}])
    assert names(outcome["shown"]) == ["fine-2 at 0.5"]
    assert analyses.kept == []
    assert outcome["dialogs"][-1]["text"].startswith("The image has the contours of another analysis by now")
    require_in_guide(outcome["dialogs"][-1]["text"], guide)


def test_a_threshold_that_is_kept_late_is_not_noted_for_a_new_analysis(person: Person, analyses: Analyses) -> None:
    analyses.late.add("keeping")
    outcome = person.runs_it(steps=[*OPENED, moved(0.6), DRAWN, USE, *DETECTED, QUIET, {"wait": "dialog"}])
    assert analyses.kept == [("fine-1", 0.6)]
    assert names(outcome["shown"]) == ["fine-2 at 0.5"]  # the first window has put nothing back
    assert "hepamap.threshold" not in outcome["shown"]["properties"]
    assert outcome["dialogs"][-1]["text"].startswith("The image has the contours of another analysis by now")


@pytest.fixture(params=[["coarse-3 at 0.5, preview"], []], ids=["preview", "empty-preview"])
def preview(person: Person, analyses: Analyses, request: pytest.FixtureRequest) -> list[str]:
    """What the preview of a second question shows; its result does not come."""
    person.settings.pop("preview")
    analyses.stays_running.add("fine-4")
    shown: list[str] = request.param
    analyses.finds_nothing |= set() if shown else {"coarse-3"}
    return shown


MOVED: list[dict[str, Any]] = [*OPENED, moved(0.6), DRAWN]
# The same question again would have no preview.
UNDER_PREVIEW: list[dict[str, Any]] = [
    *({"item": "Settings…"}, {"set": {"settings-threshold": "0.8"}}, {"press": "Save"}),
    *({"item": "Detect tumor"}, {"until": "Preview shown"}),
]
CANCELLED: list[dict[str, Any]] = [{"press": "Cancel"}, {"wait": "dialog"}]


def test_a_preview_is_not_replaced_by_contours_of_the_analysis_before(person: Person, preview: list[str]) -> None:
    meanwhile = [moved(0.7), {"until": "is a preview"}, {"note": {}}, *CANCELLED, {"note": {}}]
    outcome = person.runs_it(steps=[*MOVED, *UNDER_PREVIEW, *meanwhile, {"press": "Back to the first"}, QUIET])
    assert [names(note["image"]) for note in outcome["notes"]] == [preview, ["fine-2 at 0.6"]]
    assert names(outcome["shown"]) == ["fine-2 at 0.5"]


def test_a_threshold_that_was_left_under_a_preview_does_not_come_back(person: Person, preview: list[str]) -> None:
    left = [{"press": "Back to the first"}, {"note": {}}]
    outcome = person.runs_it(steps=[*MOVED, *UNDER_PREVIEW, *left, *CANCELLED, QUIET])
    assert names(outcome["notes"][0]["image"]) == preview
    assert names(outcome["shown"]) == ["fine-2 at 0.5"]
    assert "hepamap.preview" not in outcome["shown"]["properties"]


def test_nobody_judges_a_preview(person: Person, preview: list[str]) -> None:
    judged = [{"item": "Accept, edit, reject…"}, {"press": "Accept"}, {"wait": "dialog"}]
    outcome = person.runs_it(steps=[*DETECTED, *UNDER_PREVIEW, *judged, *CANCELLED])
    assert [one["title"] for one in outcome["dialogs"]] == ["hepamap: done", "hepamap: not done", "hepamap: cancelled"]
    assert outcome["dialogs"][1]["text"].startswith("What is on the image is a preview.")
    assert not [call for call in person.server.calls("POST") if call.path.endswith("/verdicts")]


def test_what_is_kept_is_drawn(person: Person, analyses: Analyses) -> None:
    analyses.refusals.append("0.6")
    outcome = person.runs_it(steps=[*OPENED, moved(0.6), {"until": "cannot work just now"}, USE, QUIET])
    assert names(outcome["shown"]) == ["fine-1 at 0.6"]
    assert analyses.kept == [("fine-1", 0.6)]


def test_what_cannot_be_drawn_is_not_kept(person: Person, analyses: Analyses) -> None:
    analyses.refusals += ["0.6", "0.6"]
    away = [{"until": "cannot work just now"}, USE, {"until": "Telling the server"}, {"until": "cannot work just now"}]
    outcome = person.runs_it(steps=[*OPENED, moved(0.6), *away, {"note": {}}, moved(0.7), DRAWN, USE, QUIET])
    assert names(outcome["notes"][0]["image"]) == ["fine-1 at 0.5"]
    assert all(not disabled for _, disabled in outcome["notes"][0]["buttons"])
    assert analyses.kept == [("fine-1", 0.7)]  # it can be tried again


def test_the_threshold_does_not_move_while_it_is_kept(person: Person, analyses: Analyses) -> None:
    analyses.delays_s["keeping"] = 1.0
    keeping = [USE, {"until": "Telling the server"}, {"note": {}}, moved(0.7), {"press": "strict 0.900"}]
    outcome = person.runs_it(steps=[*OPENED, moved(0.6), DRAWN, *keeping, QUIET, {"note": {}}])
    assert names(outcome["shown"]) == ["fine-1 at 0.6"]
    assert analyses.kept == [("fine-1", 0.6)]
    assert outcome["shown"]["properties"]["hepamap.threshold"] == "0.6"
    assert outcome["notices"][-1].startswith("The threshold 0.600 is kept")
    disabled = dict(outcome["notes"][0]["buttons"])
    assert (disabled["strict 0.900"], disabled["Back to the first"]) == (True, False)
