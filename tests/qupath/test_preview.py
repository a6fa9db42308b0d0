"""The quick coarse pass before the fine one: shown, replaced, and taken away again where the fine one does not come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.qupath.conftest import Person, the_dialog
from tests.qupath.fake_server import Answer, Asked, analysis, collection, feature, problem
from tests.qupath.test_detect_tumor import SQUARE, drawn_by_us

COARSE, FINE = "c0000000-0000-4000-8000-000000000000", "f0000000-0000-4000-8000-000000000000"
PATH = "/api/v1/analyses"


@pytest.fixture
def two_passes(person: Person) -> Person:
    """A server that has the coarse answer at once, and the fine one after two looks."""
    person.settings.pop("preview")
    server = person.server
    server.answer("POST", PATH, Answer(202, analysis("queued", id=COARSE)), Answer(202, analysis("queued", id=FINE)))
    server.answer("GET", f"{PATH}/{COARSE}", Answer(200, analysis(id=COARSE)))
    server.answer("GET", f"{PATH}/{COARSE}/contours", Answer(200, collection(feature(SQUARE))))
    states = [analysis("running", id=FINE), analysis("running", id=FINE), analysis(id=FINE)]
    server.answer("GET", f"{PATH}/{FINE}", *(Answer(200, state) for state in states))
    server.answer("GET", f"{PATH}/{FINE}/contours", Answer(200, collection(feature(SQUARE), feature(SQUARE))))
    assert person.image is not None
    person.image["objects"] = [drawn_by_us(name="earlier")]
    return person


def test_both_are_asked_and_the_fine_one_stays(two_passes: Person) -> None:
    outcome = two_passes.runs_it()
    coarse, fine = two_passes.server.questions()
    assert (coarse["mode"], coarse["stride"], coarse["priority"]) == ("patch", 128, 50)
    assert not {"mode", "stride", "priority"} & set(fine)
    assert any(message.startswith("Preview shown · Classifying") for message in outcome["messages"])
    assert [one["name"] for one in outcome["image"]["objects"]] == ["Tumor (AI)", "Tumor (AI)"]
    assert "2 tumor regions on the whole slide" in the_dialog(outcome)["text"]
    assert "1 earlier contour of this model replaced." in the_dialog(outcome)["text"]
    assert outcome["image"]["properties"]["hepamap.analysis"] == FINE


def test_the_preview_is_seen(two_passes: Person) -> None:
    last = Answer(200, analysis("running", id=FINE))
    two_passes.server.answer("GET", f"{PATH}/{FINE}", last)
    steps: list[dict[str, Any]] = [
        {"item": "Detect tumor"},
        {"until": "Preview shown"},
        {"note": {}},
        {"press": "Cancel"},
        {"wait": "dialog"},
    ]
    outcome = two_passes.runs_it(steps=steps)
    (seen,) = outcome["notes"][0]["image"]["objects"]
    assert (seen["name"], seen["metadata"]["hepamap.preview"]) == ("Tumor (AI), preview", "coarse pass")
    # Cancelled: both are stopped on the server, and what was there before is there again.
    assert [call.path for call in two_passes.server.calls("DELETE")] == [f"{PATH}/{FINE}"]
    assert [one["name"] for one in outcome["image"]["objects"]] == ["earlier"]
    assert the_dialog(outcome)["title"] == "hepamap: cancelled"


def test_a_failure_takes_the_preview_away(two_passes: Person) -> None:
    failed = {"code": "slide_damaged", "message": "It is damaged.", "cure": "Copy it again."}
    two_passes.server.answer("GET", f"{PATH}/{FINE}", Answer(200, analysis("failed", id=FINE, error=failed)))
    outcome = two_passes.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: not done"
    assert [one["name"] for one in outcome["image"]["objects"]] == ["earlier"]


def test_a_fine_question_that_is_refused_stops_the_coarse_one(two_passes: Person) -> None:
    refused = problem(422, "threshold_invalid", "This is wrong.", "Do that.")
    two_passes.server.answer("POST", PATH, Answer(202, analysis("queued", id=COARSE)), refused)
    assert two_passes.sees() == "The server refuses: This is wrong. Do that."
    assert [call.path for call in two_passes.server.calls("DELETE")] == [f"{PATH}/{COARSE}"]


def test_a_coarse_question_that_is_cancelled_on_its_way_is_stopped(two_passes: Person) -> None:
    two_passes.server.answer("POST", PATH, Answer(202, analysis("queued", id=COARSE), delay_s=0.5))
    outcome = two_passes.runs_it(do_on={"message": "Sending", "action": "CANCEL"})
    assert [call.path for call in two_passes.server.calls("DELETE")] == [f"{PATH}/{COARSE}"]
    assert the_dialog(outcome)["text"] == "You cancelled; the server was told to stop. Nothing was drawn."


def test_a_coarse_question_whose_answer_is_lost_is_stopped(two_passes: Person) -> None:
    two_passes.constants["ANSWER_S"] = "2"
    marks: list[str] = []

    def post(asked: Asked) -> Answer:
        if "priority" not in asked.body:
            return Answer(202, analysis("queued", id=FINE))
        marks.append(asked.headers["Idempotency-Key"])
        return Answer(202, analysis("queued", id=COARSE), delay_s=3.0 if len(marks) == 1 else 0)

    two_passes.server.answer("POST", PATH, post)
    outcome = two_passes.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert [call.path for call in two_passes.server.calls("DELETE")] == [f"{PATH}/{COARSE}"]
    assert len(marks) == 2
    assert len(set(marks)) == 1  # by its mark, the server knows that it is the same question


def without_answer(person: Person) -> None:
    away = problem(503, "job_store_error", "Just now.", "Wait.")
    person.server.answer("POST", PATH, away, Answer(202, analysis("queued", id=FINE)))


def crashed(person: Person) -> None:
    person.server.answer("GET", f"{PATH}/{COARSE}", Answer(500, "oops"))


def without_contours(person: Person) -> None:
    person.server.answer("GET", f"{PATH}/{COARSE}/contours", Answer(502))


def unreadable(person: Person) -> None:
    person.server.answer("GET", f"{PATH}/{COARSE}/contours", Answer(200, {"detail": "x"}))


@pytest.mark.parametrize("trouble", [without_answer, crashed, without_contours, unreadable])
def test_a_preview_that_fails_harms_nothing(two_passes: Person, trouble: Callable[[Person], None]) -> None:
    trouble(two_passes)
    outcome = two_passes.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert [one["name"] for one in outcome["image"]["objects"]] == ["Tumor (AI)", "Tumor (AI)"]
    assert "1 earlier contour of this model replaced." in the_dialog(outcome)["text"]


def test_a_preview_is_no_earlier_contour(two_passes: Person) -> None:
    assert two_passes.image is not None
    two_passes.image["objects"] = []
    outcome = two_passes.runs_it()
    assert any(message.startswith("Preview shown") for message in outcome["messages"])
    assert "replaced" not in the_dialog(outcome)["text"]


@pytest.mark.parametrize("meanwhile", ["close", "open again"])
def test_an_image_that_was_closed_without_its_preview_has_what_it_had(two_passes: Person, meanwhile: str) -> None:
    two_passes.server.answer("GET", f"{PATH}/{FINE}", Answer(200, analysis("running", id=FINE)))
    project, two_passes.image = [two_passes.image], None
    steps: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"until": "Preview shown"}, {"at": meanwhile}]
    outcome = two_passes.runs_it(project=project, steps=[*steps, {"press": "Cancel"}, {"wait": "dialog"}])
    assert the_dialog(outcome)["title"] == "hepamap: cancelled"
    (image,) = [outcome["shown"]] if meanwhile == "open again" else outcome["project"]
    assert [one["name"] for one in image["objects"]] == ["earlier"]


@pytest.mark.parametrize("ends", ["done", "cancelled"])
def test_a_preview_that_qupath_did_not_outlive_goes_with_the_next_result(two_passes: Person, ends: str) -> None:
    """It had no contours, and was saved with the image."""
    assert two_passes.image is not None
    two_passes.image |= {"objects": [], "properties": {"hepamap.analysis": "earlier", "hepamap.preview": "hcc-10x"}}
    if ends == "cancelled":
        two_passes.server.answer("GET", f"{PATH}/{FINE}", Answer(200, analysis("running", id=FINE)))
    then = [] if ends == "done" else [{"until": "Preview shown"}, {"press": "Cancel"}]
    outcome = two_passes.runs_it(steps=[{"item": "Detect tumor"}, *then, {"wait": "dialog"}])
    assert the_dialog(outcome)["title"] == f"hepamap: {ends}"
    assert len(outcome["image"]["objects"]) == (2 if ends == "done" else 0)
    # What was there before it is lost: as long as there is no other result, there is nothing to judge.
    assert ("hepamap.preview" in outcome["image"]["properties"]) == (ends == "cancelled")


def test_none_where_the_answer_is_there(two_passes: Person) -> None:
    answers = Answer(202, analysis("queued", id=COARSE)), Answer(200, analysis(id=FINE))
    two_passes.server.answer("POST", PATH, *answers)
    outcome = two_passes.runs_it()
    assert not [call for call in two_passes.server.asked if call.path.startswith(f"{PATH}/{COARSE}") and call.method == "GET"]
    assert [call.path for call in two_passes.server.calls("DELETE")] == [f"{PATH}/{COARSE}"]  # nobody waits for it any more
    assert len(outcome["image"]["objects"]) == 2


@pytest.mark.parametrize(("side", "asked"), [(8000, 1), (14000, 2)])
def test_none_for_a_small_region(two_passes: Person, side: int, asked: int) -> None:
    assert two_passes.image is not None
    box = [[[[0, 0], [side, 0], [side, 9000], [0, 9000], [0, 0]]]]  # 6.5 and 11.3 mm²
    two_passes.image["um_per_px"] = 0.3
    two_passes.image["objects"] = [{"polygons": box, "selected": True}]
    two_passes.runs_it(item="Detect in selection")
    assert len(two_passes.server.questions()) == asked


def test_none_in_a_batch(two_passes: Person) -> None:
    two_passes.server.answer("POST", PATH, Answer(202, analysis("queued", id=FINE)))
    two_passes.runs_it("headless")
    assert len(two_passes.server.questions()) == 1
