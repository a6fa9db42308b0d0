"""*Run for project* and batches of scripts, with the real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.qupath.conftest import Person
from tests.qupath.fake_server import ANALYSIS_ID, analysis, collection, feature
from tests.qupath.live import LEFT, SIDE, TOP, Server, bounds
from tests.qupath.test_detect_tumor import SQUARE

RUN: list[dict[str, Any]] = [{"item": "Run for project…"}, {"press": "Run"}, {"until": "For Research Use Only"}, {"note": {}}]


@pytest.fixture
def images(person: Person, slide: Path) -> list[dict[str, Any]]:
    """One that is open, one that can be done, one whose file is not there, one that QuPath cannot read."""
    assert person.image is not None
    first = person.image
    missing = (slide.parent / "gone.tif").as_uri()
    person.image = None
    return [
        {**first, "name": "open"},
        {**first, "name": "closed"},
        {**first, "name": "missing", "uris": [missing]},
        {**first, "name": "broken", "damaged": True},
    ]


def test_all_images_of_a_project(person: Person, images: list[dict[str, Any]], real_server: Server) -> None:
    hide = {"hide": True}
    outcome = person.runs_it(project=images, steps=[*RUN, hide, *RUN])
    first, second = (next(text for text in note["texts"] if text.startswith("image")) for note in outcome["notes"])
    lines = {line.split("  ")[0]: line for line in first.splitlines()}
    assert " done  " in lines["open"]
    assert " done  " in lines["closed"]
    assert "failed" in lines["missing"]
    assert "The server cannot use the file of this slide." in lines["missing"]
    assert "QuPath could not open or save this image (the data file is damaged)." in lines["broken"]
    assert second.count("done before") == 2
    # What is open is changed there and not saved; what is closed is saved, once.
    (drawn,) = outcome["shown"]["objects"]
    assert bounds(drawn) == (LEFT, TOP, LEFT + SIDE, TOP + SIDE)
    assert [image["saves"] for image in outcome["project"]] == [0, 1, 0, 0]
    assert [len(image["objects"]) for image in outcome["project"]] == [0, 1, 0, 0]
    assert outcome["threads"] == 0
    assert len(real_server.store.page(state=None, limit=9, before=None).jobs) <= 2


def test_a_batch_of_scripts(person: Person, images: list[dict[str, Any]]) -> None:
    opened, closed, missing, _ = images
    outcome = person.runs_it("headless", batch=[opened, missing, closed])
    # QuPath saves each image after its script, unless the script threw: the last one too, in a batch with a failure.
    assert outcome["thrown"] is None
    assert [image and len(image["objects"]) for image in outcome["notes"]] == [1, 0, 1]
    assert "1 of 3 images failed; the table above says why." in outcome["printed"]
    table = outcome["printed"].partition("image  ")[2]
    assert table.count(" done ") == 2
    assert table.count(" failed ") == 1
    assert outcome["dialogs"] == []


def test_an_image_in_no_project_is_not_kept(person: Person, images: list[dict[str, Any]]) -> None:
    unsaved = "This image is in no project, so QuPath will keep nothing of this."
    person.image = images[0]
    assert unsaved in person.runs_it("headless")["printed"]
    person.image = None
    assert unsaved not in person.runs_it("headless", batch=images[:2], project=images[:2])["printed"]


def test_an_image_that_was_cancelled_is_not_done(person: Person) -> None:
    person.server.states = [analysis("running")]
    two = [{**(person.image or {}), "name": name} for name in ("first", "second")]
    person.image = None
    run: list[dict[str, Any]] = [{"item": "Run for project…"}, {"press": "Run"}]
    ended: list[dict[str, Any]] = [{"until": "For Research Use Only"}, {"note": {}}]
    outcome = person.runs_it(project=two, steps=[*run, *ended], do_on={"message": "Classifying", "action": "CANCEL"})
    (note,) = outcome["notes"]
    assert "hepamap: run for project, cancelled" in note["windows"]
    (table,) = [text for text in note["texts"] if text.startswith("image")]
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [["first", "cancelled"]]
    assert len(person.server.calls("DELETE")) == 1


def test_an_image_with_a_preview_is_not_done(person: Person) -> None:
    """QuPath ended between preview and result, and the preview was saved; the question is one that was answered before."""
    run: list[dict[str, Any]] = [*RUN, {"hide": True}]
    image = {**(person.image or {}), "name": "first"}
    person.image = None
    (done,) = person.runs_it(project=[{**image, "name": "other"}, image], steps=run)["project"][1:]
    stale = {**image, "properties": {**done["properties"], "hepamap.preview": "hcc-10x"}}
    outcome = person.runs_it(project=[{**image, "name": "other"}, stale], steps=run)
    (table,) = [text for text in outcome["notes"][0]["texts"] if text.startswith("image")]
    assert table.splitlines()[2].startswith("first  done  ")
    assert "hepamap.preview" not in outcome["project"][1]["properties"]


def second_while_it_is_analysed(person: Person, action: str) -> dict[str, Any]:
    """Two images are analysed, the second of which is closed; what is done meanwhile."""
    one = [*[analysis("running")] * 5, analysis()]
    person.server.states = [*one, *one]
    person.server.contours = lambda _: collection(feature(SQUARE))
    two = [{**(person.image or {}), "name": name} for name in ("first", "second")]
    person.image = None
    return person.runs_it(project=two, steps=RUN, do_on={"message": "2 of 2: second · Classifying", "action": action})


def test_what_a_person_saves_meanwhile_stays(person: Person) -> None:
    outcome = second_while_it_is_analysed(person, "save an annotation in the second")
    _, second = outcome["project"]
    assert [one["name"] for one in second["objects"]] == ["drawn meanwhile", "Tumor (AI)"]
    assert second["properties"]["hepamap.analysis"] == ANALYSIS_ID
    assert second["saves"] == 2  # the person's, and ours


def test_an_image_that_cannot_be_read_again_is_not_done(person: Person) -> None:
    outcome = second_while_it_is_analysed(person, "damage the second")
    (table,) = [text for text in outcome["notes"][0]["texts"] if text.startswith("image")]
    assert "QuPath could not open or save this image (the data file is damaged)." in table.splitlines()[2]
    assert table.splitlines()[2].startswith("second  failed")
    assert outcome["project"][1]["saves"] == 0


def test_no_project(person: Person) -> None:
    outcome = person.runs_it(item="Run for project…")
    assert outcome["dialogs"][0]["text"] == (
        "No project with images is open. Open one, or use hepamap > Detect tumor for one image."
    )
