"""Accept, edit, reject, with the real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hepamap.training.annotations import read_annotations
from hepamap.training.cohort import read_cohort
from tests.qupath.conftest import Person
from tests.qupath.live import LEFT, SIDE, TOP, Server, bounds, read_json

DETECTED: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"wait": "dialog"}]
OPENED: list[dict[str, Any]] = [*DETECTED, {"item": "Accept, edit, reject…"}]


def verdicts(server: Server, outcome: dict[str, Any]) -> Any:
    analysis = outcome["shown"]["properties"]["hepamap.analysis"]
    return read_json(f"{server.url}/api/v1/analyses/{analysis}/verdicts")["items"]


@pytest.mark.usefixtures("slide")
def test_accept(person: Person, real_server: Server) -> None:
    person.settings["user"] = "A. Pathologist"
    outcome = person.runs_it(steps=[*OPENED, {"press": "Accept"}, {"wait": "dialog"}])
    (stored,) = verdicts(real_server, outcome)
    assert (stored["decision"], stored["user"], stored["iou"]) == ("accepted", "A. Pathologist", 1.0)
    assert outcome["dialogs"][-1]["text"].startswith("The server has kept it: accepted, by A. Pathologist. Tumor area: ")
    assert outcome["shown"]["properties"]["hepamap.verdict"] == "accepted"
    assert outcome["shown"]["workflow"][-1]["parameters"]["verdict"] == stored["id"]
    assert len(outcome["shown"]["objects"]) == 1


@pytest.mark.usefixtures("slide")
def test_reject_needs_a_reason(person: Person, real_server: Server) -> None:
    unreasoned = [{"press": "Reject"}, {"note": {}}]
    reasoned = [{"set": {"verdict-reason": "Necrosis."}}, {"press": "Reject"}, {"wait": "dialog"}]
    outcome = person.runs_it(steps=[*OPENED, *unreasoned, *reasoned])
    assert "Say why the contours are rejected, then send it again." in outcome["notes"][0]["labels"]
    (stored,) = verdicts(real_server, outcome)
    assert (stored["decision"], stored["reason"], stored["iou"]) == ("rejected", "Necrosis.", None)


@pytest.mark.usefixtures("slide")
def test_edit_makes_copies_and_sends_them(person: Person, real_server: Server) -> None:
    person.settings["user"] = "A. Pathologist"
    assert person.image is not None
    # Drawn by hand before: as large as the contour, beside it.
    own = [
        [LEFT + SIDE, TOP],
        [LEFT + 2 * SIDE, TOP],
        [LEFT + 2 * SIDE, TOP + SIDE],
        [LEFT + SIDE, TOP + SIDE],
        [LEFT + SIDE, TOP],
    ]
    person.image["objects"] = [{"name": "missed", "class": "Tumor", "polygons": [[own]]}]
    steps = [*OPENED, {"press": "Edit"}, {"press": "Edit"}, {"note": {}}, {"press": "Submit edited"}, {"wait": "dialog"}]
    outcome = person.runs_it(steps=steps, answers={"confirm": True})
    missed, contour, copy = outcome["shown"]["objects"]
    assert (missed["name"], contour["class"], contour["locked"]) == ("missed", "Tumor (AI)", True)
    assert (copy["class"], copy["locked"], copy["name"]) == ("Tumor", False, "Tumor (A. Pathologist)")
    assert bounds(copy) == bounds(contour) == (LEFT, TOP, LEFT + SIDE, TOP + SIDE)
    assert "There are editable copies of these contours already (class Tumor)." in " ".join(outcome["notes"][0]["labels"])
    assert outcome["questions"] == ["Send 2 annotations of class Tumor as the tumor of this image?"]
    (stored,) = verdicts(real_server, outcome)
    assert stored["decision"] == "edited"
    assert stored["iou"] == pytest.approx(0.5, abs=0.001)
    assert "Overlap with the contours of the model (IoU): 0.5" in outcome["dialogs"][-1]["text"]


@pytest.mark.usefixtures("slide")
def test_the_second_run_leaves_copies_alone(person: Person) -> None:
    steps = [*OPENED, {"press": "Edit"}, {"press": "Close"}, *DETECTED]
    outcome = person.runs_it(steps=steps)
    assert sorted(one["class"] for one in outcome["shown"]["objects"]) == ["Tumor", "Tumor (AI)"]


def test_annotations_are_exported_for_training(person: Person, tmp_path: Path) -> None:
    assert person.image is not None
    ring = [[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 0.0]]
    own = {"name": "a", "class": "Tumor", "polygons": [[ring]]}
    ours = {**own, "class": "Tumor (AI)", "locked": True, "metadata": {"hepamap.model": "hcc-10x@1.0.0"}}
    person.image["objects"] = [own, ours, {**own, "class": None}]
    for _ in range(2):  # the second time replaces
        outcome = person.runs_it("headless", args=["export", f'{{"folder": "{tmp_path}"}}'])
        assert outcome["thrown"] is None
    assert "hepamap dataset build cohort.csv --out dataset" in outcome["printed"]
    table = (tmp_path / "cohort.csv").read_text(encoding="utf-8").splitlines()
    name = "Leber ä 1.svs"
    assert table == [
        "slide,annotations,group,split,unannotated,frame",
        f"/slides/{name},{name}.geojson,{name},train,ignore,qupath",
    ]
    (row,) = read_cohort(tmp_path / "cohort.csv")
    assert len(read_annotations(row.annotations).annotations) == 1
