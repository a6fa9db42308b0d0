"""The map on the slide and the threshold that moves, with the real server."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.detection import Detector
from hepamap.jobs.errors import JobStoreError
from hepamap.verdicts.thresholds import ThresholdStore
from tests.conftest import WriteSlide
from tests.qupath.conftest import Person
from tests.qupath.live import CELL, MPP, DarkerIsLikelier, Server, bounds, read_json

DETECTED: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"wait": "dialog"}]
OPENED: list[dict[str, Any]] = [*DETECTED, {"item": "Adjust threshold…"}, {"until": "Tumor is what has"}]
OPACITY = 0.6
OUTER = (4 * CELL + 96, 3 * CELL + 96, 16 * CELL + 96, 15 * CELL + 96)
GLASS = 20 * CELL + 96
INNER = (7 * CELL + 96, 6 * CELL + 96, 12 * CELL + 96, 10 * CELL + 96)


@pytest.fixture
def shaded(person: Person, real_server: Server, write_slide: WriteSlide, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide of probability 0.4, a square of 0.7 in it, and one of 0.9 in that; on the borders of cells. Glass at its right."""
    monkeypatch.setattr(Detector, "predictor", lambda self, pack: DarkerIsLikelier())
    noise = np.random.default_rng(3).integers(-20, 20, (1500, 1800, 1))
    image = (np.array((190, 110, 159)) + noise).astype(np.uint8)
    for (left, top, right, bottom), grey in ((OUTER, 76), (INNER, 25)):
        image[top:bottom, left:right] = grey
    image[:, GLASS:] = 245
    path = write_slide(image, MPP).rename(real_server.slides / "shaded.tif")
    person.settings["server"] = real_server.url
    person.settings["user"] = "A. Pathologist"
    person.image = {"name": path.name, "level0": [1800, 1500], "um_per_px": MPP, "uris": [path.as_uri()], "objects": []}
    return path


def asked(server: Server, path: str) -> Any:
    return read_json(f"{server.url}/api/v1{path}")


def the_analysis(outcome: dict[str, Any]) -> str:
    return str(outcome["shown"]["properties"]["hepamap.analysis"])


def same_colour(painted: list[int], rgb: tuple[int, int, int], opacity: float) -> bool:
    *colour, alpha = painted
    # Of faint colours, few bits are left.
    return abs(alpha - 255 * opacity) <= 1 and all(abs(a - b) <= 1 + 2 / opacity for a, b in zip(colour, rgb, strict=True))


@pytest.mark.usefixtures("shaded")
def test_the_map_lies_where_its_cells_are(person: Person, real_server: Server) -> None:
    inside = {"inner": [10 * CELL, 8 * CELL], "outer": [6 * CELL, 4 * CELL + 48], "tissue": [200, 200]}
    glass = {"glass": [GLASS + 3 * CELL, 8 * CELL]}
    edges = {"just in": [INNER[0] + 2, INNER[1] + 2], "just out": [INNER[0] - 3, INNER[1] - 3]}
    steps = [*OPENED, {"note": {"points": {**inside, **edges, **glass}}}, {"press": "Use this threshold"}, {"until": "quiet"}]
    outcome = person.runs_it(steps=steps)
    overlay = outcome["notes"][0]["overlay"]
    facts = asked(real_server, f"/analyses/{the_analysis(outcome)}/probability-map?format=json")
    assert np.abs(np.array(overlay["region"]) - [facts[name] for name in ("x", "y", "width", "height")]).max() <= 0.5
    assert overlay["interpolation"] == "BILINEAR"
    colours = overlay["colours"]
    # 0.9 lies between green and yellow, 0.7 between teal and green; below the threshold of 0.5 cells fade.
    yellow_green = tuple(104 + (248 - 104) * 0.6 if i == 0 else 190 + 38 * 0.6 if i == 1 else 98 - 36 * 0.6 for i in range(3))
    assert same_colour(colours["inner"], yellow_green, OPACITY)  # type: ignore[arg-type]
    assert same_colour(colours["just in"], yellow_green, OPACITY)  # type: ignore[arg-type]
    teal_green = tuple(32 + 72 * 0.8 if i == 0 else 140 + 50 * 0.8 if i == 1 else 146 - 48 * 0.8 for i in range(3))
    assert same_colour(colours["outer"], teal_green, OPACITY)  # type: ignore[arg-type]
    assert same_colour(colours["just out"], teal_green, OPACITY)  # type: ignore[arg-type]
    assert same_colour(colours["tissue"], (39, 114, 148), OPACITY * 0.12)
    assert colours["glass"] == [0, 0, 0, 0]
    assert overlay["region"][0] + overlay["region"][2] > GLASS + 4 * CELL  # it is a cell of the map, without data


@pytest.mark.usefixtures("shaded")
def test_contours_follow_the_threshold(person: Person, real_server: Server) -> None:
    moved = [{"set": {"threshold-slider": 0.6}}, {"set": {"threshold-slider": 0.8}}, {"until": r"\(\d+ ms\)"}, {"note": {}}]
    outcome = person.runs_it(steps=[*OPENED, {"note": {}}, *moved, {"press": "Use this threshold"}, {"until": "quiet"}])
    before, after = ([one for one in note["image"]["objects"]] for note in outcome["notes"])
    assert [bounds(one) for one in before] == [OUTER]
    assert [bounds(one) for one in after] == [INNER]
    (said,) = [text for text in outcome["notes"][1]["labels"] if " ms)" in text]
    assert said.startswith("1 tumor region, ")
    took = re.search(r"\((\d+) ms\)", said)
    assert took is not None
    assert int(took[1]) < 2000  # 300 on a machine that does nothing else
    chosen = asked(real_server, f"/analyses/{the_analysis(outcome)}")["chosen_threshold"]
    assert (chosen["threshold"], chosen["user"]) == (0.8, "A. Pathologist")
    assert outcome["shown"]["properties"]["hepamap.threshold"] == "0.8"
    assert """['threshold', '{"threshold":0.8}']""" in outcome["shown"]["workflow"][-1]["script"]
    assert outcome["threads"] == 0
    assert outcome["windows_opened"] == outcome["windows_closed"]


@pytest.mark.usefixtures("shaded")
def test_an_operating_point_is_one_press(person: Person) -> None:
    outcome = person.runs_it(steps=[*OPENED, {"press": "balanced 0.800"}, {"until": r"\(\d+ ms\)"}, {"note": {}}])
    (note,) = outcome["notes"]
    assert [bounds(one) for one in note["image"]["objects"]] == [INNER]
    assert "sensitivity 91.2 %, specificity 98.7 %, as measured for this model" in note["labels"]


@pytest.mark.usefixtures("shaded")
def test_an_operating_point_at_the_edge_is_reached_exactly(person: Person, real_server: Server) -> None:
    at_the_edge = [{"set": {"threshold-slider": 0.002}}, {"until": r"\(\d+ ms\)"}, {"press": "Use this threshold"}]
    outcome = person.runs_it(steps=[*OPENED, *at_the_edge, {"until": "quiet"}])
    assert asked(real_server, f"/analyses/{the_analysis(outcome)}")["chosen_threshold"]["threshold"] == 0.002


@pytest.mark.usefixtures("shaded")
def test_back_to_the_first(person: Person, real_server: Server) -> None:
    steps = [*OPENED, {"note": {}}, {"set": {"threshold-slider": 0.8}}, {"until": r"\(\d+ ms\)"}, {"press": "Back to the first"}]
    outcome = person.runs_it(steps=[*steps, {"until": "quiet"}])
    assert outcome["shown"]["objects"] == outcome["notes"][0]["image"]["objects"]
    assert outcome["overlay"] is None
    assert asked(real_server, f"/analyses/{the_analysis(outcome)}")["chosen_threshold"] is None


@pytest.mark.usefixtures("shaded")
def test_closing_the_window_does_not_undo_what_is_being_kept(
    person: Person, real_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = ThresholdStore.choose

    def slowly(self: ThresholdStore, *arguments: Any, **others: Any) -> Any:
        time.sleep(1)
        return choose(self, *arguments, **others)

    monkeypatch.setattr(ThresholdStore, "choose", slowly)
    steps: list[dict[str, Any]] = [{"set": {"threshold-slider": 0.8}}, {"until": r"\(\d+ ms\)"}, {"press": "Use this threshold"}]
    outcome = person.runs_it(steps=[*OPENED, *steps, {"hide": True}, {"until": "quiet"}])
    assert outcome["errors"] == []
    assert [bounds(one) for one in outcome["shown"]["objects"]] == [INNER]
    assert asked(real_server, f"/analyses/{the_analysis(outcome)}")["chosen_threshold"]["threshold"] == 0.8
    assert outcome["shown"]["properties"]["hepamap.threshold"] == "0.8"


@pytest.mark.usefixtures("shaded")
def test_what_could_not_be_kept_is_undone_after_the_window_is_gone(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: ThresholdStore, *arguments: Any, **others: Any) -> Any:
        time.sleep(1)
        raise JobStoreError("It is away.", cure="Wait.")

    monkeypatch.setattr(ThresholdStore, "choose", fails)
    steps: list[dict[str, Any]] = [{"set": {"threshold-slider": 0.8}}, {"until": r"\(\d+ ms\)"}, {"press": "Use this threshold"}]
    outcome = person.runs_it(steps=[*OPENED, *steps, {"hide": True}, {"until": "quiet"}, {"wait": "dialog"}])
    assert [bounds(one) for one in outcome["shown"]["objects"]] == [OUTER]
    assert "It is away. Wait." in outcome["dialogs"][-1]["text"]


@pytest.mark.usefixtures("shaded")
def test_closing_the_image_ends_it(person: Person) -> None:
    outcome = person.runs_it(steps=[*OPENED, {"at": "close"}, {"until": "quiet"}])
    assert (outcome["errors"], outcome["overlay"], outcome["threads"]) == ([], None, 0)
    assert outcome["windows_opened"] == outcome["windows_closed"]


SHOW: dict[str, Any] = {"item": "Show or hide probability map"}
LEGEND = "The probability of tumor. Cells below 0.500 (the line) fade; where there is no color, there is no tissue."


@pytest.mark.usefixtures("shaded")
def test_the_map_is_shown_and_hidden_with_its_legend(person: Person) -> None:
    colours = {"note": {"points": {}, "snapshot": "legend"}}
    outcome = person.runs_it(steps=[*DETECTED, SHOW, {"until": "The probability of tumor"}, colours, SHOW, {"note": {}}])
    first, second = outcome["notes"]
    assert first["overlay"] is not None
    assert first["windows"] == ["hepamap: probability map"]
    assert LEGEND in first["labels"]
    assert np.array(first["snapshot"]) == pytest.approx(np.array([[38, 24, 92], [248, 228, 62]]), abs=3)
    assert second["overlay"] is None
    assert second["windows"] == []


@pytest.mark.usefixtures("shaded")
def test_the_legend_goes_with_the_map(person: Person) -> None:
    shown = [*DETECTED, SHOW, {"until": "The probability of tumor"}]
    outcome = person.runs_it(steps=[*shown, {"at": "close"}, {"until": "quiet"}, {"note": {}}])
    assert outcome["notes"][0]["windows"] == []
    outcome = person.runs_it(steps=[*shown, {"hide": True}, {"note": {}}])
    assert outcome["notes"][0]["overlay"] is not None
    # What stays on the slide after the threshold was chosen has a legend, too, at that threshold.
    chosen = [{"set": {"threshold-slider": 0.8}}, {"press": "Use this threshold"}, {"until": "Cells below 0.800"}, {"note": {}}]
    outcome = person.runs_it(steps=[*OPENED, *chosen])
    assert outcome["notes"][0]["windows"] == ["hepamap: probability map"]
    assert outcome["errors"] == []


@pytest.mark.usefixtures("shaded")
def test_a_step_of_the_workflow_can_be_repeated_in_a_batch(person: Person, real_server: Server) -> None:
    outcome = person.runs_it(steps=DETECTED)
    assert person.image is not None
    person.image["properties"] = outcome["shown"]["properties"]
    person.image["objects"] = outcome["shown"]["objects"]
    again = person.runs_it("headless", args=["threshold", '{"threshold": 0.8}'])
    assert again["thrown"] is None
    assert "Threshold 0.8: 1 tumor regions (tiny-5x)." in again["printed"]
    assert [bounds(one) for one in again["image"]["objects"]] == [INNER]


def test_without_an_analysis_there_is_no_threshold(person: Person, guide: str) -> None:
    outcome = person.runs_it(item="Adjust threshold…")
    assert outcome["dialogs"][0]["text"] == "hepamap has not looked at this image yet. Run hepamap > Detect tumor first."
    assert outcome["dialogs"][0]["text"] in guide
