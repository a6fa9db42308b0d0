"""The script where everything goes well: what it sends, where it draws, and what it leaves alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.qupath.conftest import SLIDE_PATH, Person, the_dialog
from tests.qupath.fake_server import ANALYSIS_ID, MODEL, NOTICE, Answer, analysis, collection, feature
from tests.qupath.quasi_qupath import client_script, with_constants
from tests.qupath.test_messages import require_in_guide

SQUARE = [[[1000.0, 2000.0], [3000.25, 2000.0], [3000.25, 4000.5], [1000.0, 4000.5], [1000.0, 2000.0]]]
HOLE = [[1500.0, 2500.0], [1500.0, 2600.0], [1600.0, 2600.0], [1600.0, 2500.0], [1500.0, 2500.0]]
MODES = ("menu", "editor", "project", "headless")


def drawn_by_us(**others: Any) -> dict[str, Any]:
    metadata = {"hepamap.model": "hcc-10x@1.0.0", "hepamap.version": "0.0.9"}
    return {"polygons": [SQUARE], "class": "Tumor (AI)", "locked": True, "metadata": metadata, **others}


@pytest.mark.parametrize("mode", MODES)
def test_contours_come_from_every_way_to_start_a_script(person: Person, mode: str) -> None:
    person.server.contours = lambda _: collection(feature([*SQUARE, HOLE]))
    outcome = person.runs_it(mode)
    (drawn,) = outcome["image"]["objects"]
    assert drawn["polygons"] == [[*SQUARE, HOLE]]
    assert (drawn["class"], drawn["locked"], drawn["metadata"]["hepamap.model"]) == ("Tumor (AI)", True, "hcc-10x@1.0.0")
    assert outcome["errors"] == []
    assert outcome["thrown"] is None
    with_window = mode in ("menu", "editor")
    assert len(outcome["dialogs"]) == outcome["windows_opened"] == outcome["windows_closed"] == int(with_window)
    text = outcome["dialogs"][0]["text"] if with_window else outcome["printed"]
    assert "1 tumor region on the whole slide (hcc-10x). Tumor: 1.50 mm², 15.0 % of 10.00 mm² of tissue." in text
    assert NOTICE in text


def test_the_menu_is_not_held_up(person: Person) -> None:
    person.server.states = [analysis("running"), analysis()]
    assert person.runs_it("menu")["busy_on_return"]


def test_what_is_sent(person: Person) -> None:
    person.settings |= {"model": "hcc-5x", "stride": 32, "threshold": 0.7}
    person.runs_it()
    view = {"width": 20000, "height": 10000, "pixel_width_um": 0.25, "pixel_height_um": 0.25}
    assert person.server.posted == {
        "slide": {"path": SLIDE_PATH},
        "client_view": view,
        "model": "hcc-5x",
        "stride": 32,
        "threshold": 0.7,
    }
    post = person.server.calls("POST")[-1]
    assert post.headers["Content-Type"] == "application/json"
    assert not any(name.lower() == "upgrade" for asked in person.server.asked for name in asked.headers)


def test_without_settings_the_server_decides(person: Person) -> None:
    assert person.image is not None
    person.image["um_per_px"] = None
    person.runs_it()
    assert person.server.posted == {"slide": {"path": SLIDE_PATH}, "client_view": {"width": 20000, "height": 10000}}


@pytest.mark.parametrize(
    "address",
    [
        *("  HOST:PORT ", "http://HOST:PORT/", "HOST:PORT/api", "http://HOST:PORT/api/v1/", "http://HOST:PORT/docs"),
        *("http://HOST:PORT/qupath", "http://HOST:PORT/qupath/hepamap.groovy"),
    ],
)
def test_addresses_are_understood(person: Person, address: str) -> None:
    person.settings["server"] = address.replace("HOST:PORT", person.server.url.removeprefix("http://"))
    assert "No tumor region" in person.sees()


def test_which_server_counts(person: Person) -> None:
    from_script = {"SERVER_URL": "'http://script.invalid'"}
    person.constants |= from_script
    person.settings["server"] = "http://stored.invalid"
    assert "No computer is known by the name in http://stored.invalid" in person.sees()
    given = '{"server": "http://given.invalid"}'
    assert "No computer is known by the name in http://given.invalid" in person.sees("editor", args=["detect", given])
    assert person.server.asked == []
    person.settings.pop("server")  # then the environment's, which is the one that the person has
    assert "No tumor region" in person.sees()


def test_folders_with_another_name_on_the_server(person: Person) -> None:
    person.settings["folders"] = {"/slide": "/wrong", "/SLIDES/": "/data/"}
    person.runs_it()
    assert person.server.posted["slide"]["path"] == "/data/Leber ä 1.svs"


def test_of_folders_in_one_another_the_inner_one_counts(person: Person) -> None:
    person.settings["folders"] = {"/slides": "/wide", "/slides/new/": "/narrow", "/slides/ne": "/no"}
    person.image = {**(person.image or {}), "uris": ["file:///slides/new/a.svs"]}
    person.runs_it()
    assert person.server.posted["slide"]["path"] == "/narrow/a.svs"


@pytest.mark.parametrize("no_crop", [False, True])
def test_a_slide_with_bounds(person: Person, no_crop: bool) -> None:
    bounds = [30000, 100000, 10439, 7641]
    level0 = [72448, 152080]
    person.image = {**(person.image or {}), "level0": level0, "bounds": bounds, "no_crop": no_crop}
    tumour_l0 = [[30100.0, 100200.0], [33000.0, 100200.0], [33000.0, 104000.0], [30100.0, 100200.0]]

    def contours(posted: Any) -> dict[str, Any]:
        size = [posted["client_view"]["width"], posted["client_view"]["height"]]
        x, y = {tuple(level0): (0, 0), tuple(bounds[2:]): (30000, 100000)}[tuple(size)]
        return collection(feature([[[px - x, py - y] for px, py in tumour_l0]]))

    person.server.contours = contours
    (drawn,) = person.runs_it()["image"]["objects"]
    x, y = (0, 0) if no_crop else (30000, 100000)
    assert drawn["polygons"] == [[[[px - x, py - y] for px, py in tumour_l0]]]


def test_selected_annotations_are_the_region(person: Person) -> None:
    assert person.image is not None
    two_parts = [[SQUARE[0], HOLE], [[[0.5, 0.0], [9.0, 0.0], [9.0, 9.0], [0.5, 0.0]]]]
    person.image["objects"] = [
        {"polygons": [SQUARE], "selected": True},
        {"polygons": two_parts, "selected": True},
        {"polygons": [SQUARE], "selected": True, "area": False},
        {"polygons": [SQUARE], "selected": False},
        drawn_by_us(selected=True),
    ]
    text = person.sees(item="Detect in selection")
    geometries = [one["geometry"] for one in person.server.posted["region"]["features"]]
    assert geometries == [{"type": "Polygon", "coordinates": SQUARE}, {"type": "MultiPolygon", "coordinates": two_parts}]
    assert "in the selected annotations" in text


def test_only_our_own_contours_are_replaced(person: Person) -> None:
    assert person.image is not None
    kept: list[dict[str, Any]] = [
        {"name": "drawn by hand", "polygons": [SQUARE], "class": "Tumor"},
        {"name": "same class, by hand", "polygons": [SQUARE], "class": "Tumor (AI)", "locked": True},
        drawn_by_us(name="unlocked, so somebody's", locked=False),
        drawn_by_us(name="given another class", **{"class": "Tumor"}),
        drawn_by_us(name="of another model", metadata={"hepamap.model": "hcc-5x@1.0.0"}),
    ]
    gone: list[dict[str, Any]] = [
        drawn_by_us(name="ours"),
        drawn_by_us(name="ours, older", metadata={"hepamap.model": "hcc-10x@0.9.0"}),
    ]
    person.image["objects"] = [*kept, *gone]
    outcome = person.runs_it()  # no tumour this time: the model is known from the collection alone
    assert [one["name"] for one in outcome["image"]["objects"]] == [one["name"] for one in kept]
    assert "2 earlier contours of this model replaced" in the_dialog(outcome)["text"]


def test_no_id_twice(person: Person) -> None:
    assert person.image is not None
    same = "5d1f6b5e-1111-4222-8333-444455556666"
    person.image["objects"] = [drawn_by_us(id=same, locked=False)]
    person.server.contours = lambda _: collection(feature(SQUARE, id=same), feature(SQUARE, id=same.replace("5d", "6d")))
    ids = [one["id"] for one in person.runs_it()["image"]["objects"]]
    assert len(set(ids)) == 3
    assert ids[0] == same
    assert ids[2] == same.replace("5d", "6d")


def test_another_slide_is_opened_meanwhile(person: Person) -> None:
    person.server.states = [analysis("running"), analysis()]
    person.server.contours = lambda _: collection(feature(SQUARE))
    other = {**(person.image or {}), "name": "other.svs", "level0": [500, 500]}
    case: dict[str, Any] = {
        "project": [person.image],
        "other_image": other,
        "do_on": {"message": "Classifying", "action": "open another slide"},
    }
    person.image = None  # that of the project is opened
    outcome = person.runs_it(**case)
    (stored,) = outcome["project"]
    assert len(stored["objects"]) == stored["saves"] == 1
    assert stored["closes"] == 1  # read anew to draw on it, and let go again
    assert outcome["other"]["objects"] == []
    assert "The contours belong to Leber ä 1.svs, in the project." in the_dialog(outcome)["text"]


def test_the_slide_is_closed_and_opened_again_meanwhile(person: Person) -> None:
    person.server.states = [analysis("running"), analysis()]
    person.server.contours = lambda _: collection(feature(SQUARE))
    case: dict[str, Any] = {"project": [person.image], "do_on": {"message": "Classifying", "action": "open again"}}
    person.image = None
    outcome = person.runs_it(**case)
    assert len(outcome["shown"]["objects"]) == 1  # in the viewer, unsaved, as all that a person works on
    assert outcome["project"][0]["saves"] == 0


def test_the_slide_is_closed_for_good(person: Person) -> None:
    person.server.states = [analysis("running")]
    outcome = person.runs_it(do_on={"message": "Classifying", "action": "close"})
    assert "The image was closed while hepamap worked on it" in the_dialog(outcome)["text"]
    assert len(person.server.calls("DELETE")) == 1
    assert outcome["image"]["objects"] == []
    assert (outcome["windows_opened"], outcome["threads"], outcome["overlay"]) == (outcome["windows_closed"], 0, None)


def test_progress_is_told(person: Person) -> None:
    waiting = {"done": 0, "total": None, "stage": "loading the model", "fraction": 0.0, "eta_s": None}
    person.server.states = [analysis("queued"), analysis("running", progress=waiting), analysis("running"), analysis()]
    outcome = person.runs_it()
    assert outcome["messages"] == [
        f"Connecting to {person.server.url}",
        "Looking for the slide on the server",
        "Sending the whole slide",
        "Waiting for other analyses to finish",
        "Loading the model",
        "Classifying · 25 % · about 2 min left",
        "Drawing",
    ]
    assert outcome["shares"] == [-1.0, -1.0, -1.0, 0.0, -1.0, 0.25, -1.0]


def test_warnings_are_told(person: Person) -> None:
    warned = {"code": "nearly_all_tumour", "message": "99 % of the tissue is marked as tumour: check it."}
    person.server.states = [analysis(outcome="ok_with_warnings", warnings=[warned])]
    dialog = the_dialog(person.runs_it())
    assert (dialog["kind"], dialog["title"]) == ("plain", "hepamap: done, with warnings")
    assert "Look twice: 99 % of the tissue is marked as tumour: check it." in dialog["text"]


def test_what_cannot_be_evaluated_stands_out_and_is_not_drawn(person: Person) -> None:
    assert person.image is not None
    person.image["objects"] = [drawn_by_us(name="earlier")]
    warned = {"code": "not_h_and_e", "message": "This does not look like an H&E slide."}
    person.server.states = [analysis(outcome="not_evaluable", warnings=[warned])]
    person.server.contours = lambda _: collection(feature(SQUARE))
    outcome = person.runs_it()
    dialog = the_dialog(outcome)
    assert (dialog["kind"], dialog["title"]) == ("error", "hepamap: NOT EVALUABLE")
    assert "This does not look like an H&E slide." in dialog["text"]
    assert [one["name"] for one in outcome["image"]["objects"]] == ["earlier"]


def test_a_run_is_noted_in_the_workflow(person: Person) -> None:
    person.settings["threshold"] = 0.7
    (step,) = person.runs_it()["image"]["workflow"]
    assert step["parameters"] == {"model": "hcc-10x", "analysis": ANALYSIS_ID, "region": "whole slide", "threshold": "0.7"}
    assert step["script"].startswith("//")
    assert repeated(step) == {
        "where": "slide",
        "model": "hcc-10x@1.0.0",
        "stride": None,
        "mode": None,
        "threshold": 0.7,
        "min_area_um2": None,
    }


def repeated(step: Mapping[str, Any]) -> Any:
    """What a step of the workflow asks for when it is run."""
    told = re.search(r"\['detect', '(.*)'\] as String", step["script"])
    assert told is not None
    return json.loads(told[1])


@pytest.fixture
def own_file(person: Person, tmp_path: Path) -> Path:
    """The client where a user keeps it; QuPath says of its scripts in which file they are."""
    path = tmp_path / "Leber's scripts" / "hepamap.groovy"
    path.parent.mkdir()
    path.write_text(with_constants(client_script(), person.constants), encoding="utf-8")
    person.server.answer("GET", "/api/v1/models/hcc-10x%401.0.0", Answer(200, MODEL))
    return path


def asked_again(person: Person, *steps: Mapping[str, Any]) -> list[Any]:
    """What is asked when a script is made of these steps and run later, with other settings and another selection."""
    assert person.image is not None
    before = len(person.server.questions())
    person.settings |= {"threshold": 0.2, "stride": 64, "model": "hcc-5x", "min_area_um2": 1}
    person.image["objects"] = [{"polygons": [[HOLE]], "selected": True}]
    outcome = person.runs_it("headless", script="\n".join(step["script"] for step in steps) + "\n", script_file="/other.groovy")
    assert outcome["thrown"] is None
    assert outcome["printed"].count("hepamap: done. No tumor region") == len(steps)
    return person.server.questions()[before:]


def ring(x: float) -> list[list[float]]:
    turns = [turn / 998 * math.tau for turn in range(998)]
    points = [[x + 2900 * math.cos(turn), 5000 + 2900 * math.sin(turn)] for turn in turns]
    return [*points, points[0]]


@pytest.mark.parametrize("item", ["Detect tumor", "Detect in selection"])
def test_a_step_of_the_workflow_asks_the_same_again(person: Person, own_file: Path, item: str) -> None:
    assert person.image is not None
    person.settings |= {"threshold": 0.7}
    large = [[ring(3000)], [ring(9000)], [ring(15000)]]  # more than Java takes in one text
    person.image["objects"] = [{"polygons": [SQUARE], "selected": True}, {"polygons": large, "selected": True}]
    (step,) = person.runs_it(item=item, script_file=str(own_file))["image"]["workflow"]
    (first,) = person.server.questions()
    expected = {**first, "model": "hcc-10x@1.0.0"}
    assert asked_again(person, step, step) == [expected, expected]
    assert ("region" in first) == (item == "Detect in selection")


def test_a_step_is_repeated_in_a_batch(person: Person, own_file: Path) -> None:
    assert person.image is not None
    person.image["objects"] = [{"polygons": [SQUARE], "selected": True}]
    (step,) = person.runs_it(item="Detect in selection", script_file=str(own_file))["image"]["workflow"]
    two = [{**person.image, "name": name, "objects": []} for name in ("first", "second")]
    outcome = person.runs_it("headless", script=step["script"], batch=two, project=two)
    assert outcome["thrown"] is None
    assert [asked["region"] for asked in person.server.questions()] == [person.server.questions()[0]["region"]] * 3
    assert re.findall(r"(?m)^(\w+) +done ", outcome["printed"]) == ["first", "second"]


@pytest.mark.parametrize("runs", ["evaluate(new File('%s'))", "println 'mine'\nevaluate(new File('%s').text)"])
def test_a_startup_script_that_runs_the_client_is_not_taken_for_it(
    person: Person, own_file: Path, tmp_path: Path, runs: str
) -> None:
    own_file = own_file.rename(tmp_path / "own.groovy")
    startup = tmp_path / "startup.groovy"
    startup.write_text(runs % own_file, encoding="utf-8")
    outcome = person.runs_it(script=startup.read_text(), script_file=str(startup))
    (step,) = outcome["image"]["workflow"]
    # Of a text the client cannot know where it lies: then it is looked for in the user's folder.
    expected = own_file if "text" not in runs else person.home / "hepamap.groovy"
    assert re.findall(r"new File\('(.*)'\)", step["script"]) == [str(expected)]
    if "text" in runs:
        own_file.rename(expected)
    assert len(asked_again(person, step)) == 1


def test_a_region_that_is_none_is_refused(person: Person, guide: str) -> None:
    text = person.sees("editor", args=["detect", '{"where": "region", "region": {"type": "Polygon"}}'])
    assert text.startswith("Where is said to be region, but none is given.")
    require_in_guide(text, guide)


@pytest.mark.parametrize("mode", ["menu", "editor"])
@pytest.mark.parametrize("button", ["CANCEL", "X"])
def test_cancel_reaches_the_server(person: Person, mode: str, button: str) -> None:
    person.server.states = [analysis("running")]
    outcome = person.runs_it(mode, do_on={"message": "Classifying", "action": button})
    (delete,) = person.server.calls("DELETE")
    assert delete.path == f"/api/v1/analyses/{ANALYSIS_ID}"
    dialog = the_dialog(outcome)
    assert (dialog["kind"], dialog["title"]) == ("plain", "hepamap: cancelled")
    assert outcome["image"]["objects"] == []
