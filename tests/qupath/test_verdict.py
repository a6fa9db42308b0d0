"""Accept, edit, reject, with the real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hepamap.training.annotations import read_annotations
from hepamap.training.cohort import read_cohort
from tests.qupath.conftest import Person
from tests.qupath.fake_server import ANALYSIS_ID, Answer
from tests.qupath.live import LEFT, SIDE, TOP, Server, bounds, read_json
from tests.qupath.test_messages import require_in_guide

DETECTED: list[dict[str, Any]] = [{"item": "Detect tumor"}, {"wait": "dialog"}]
OPENED: list[dict[str, Any]] = [*DETECTED, {"item": "Accept, edit, reject…"}]
PREVIEW = (
    "What is on the image is a preview. Wait for the result, or cancel it, then try again. "
    "If none is under way, run hepamap > Detect tumor again."
)


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


def edited(person: Person, *objects: dict[str, Any]) -> tuple[list[Any], str]:
    """Classes of what is on the image after *Edit*, and what the window says."""
    assert person.image is not None
    ring = [[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 0.0]]
    ours = {"class": "Tumor (AI)", "locked": True, "polygons": [[ring]]}
    person.image["objects"] = [{**ours, "metadata": one} for one in objects]
    person.image["properties"] = {"hepamap.analysis": ANALYSIS_ID, "hepamap.analysis_model": "hcc-10x"}
    outcome = person.runs_it(steps=[{"item": "Accept, edit, reject…"}, {"press": "Edit"}, {"note": {}}])
    assert outcome["errors"] == []
    return [one["class"] for one in outcome["shown"]["objects"]], " ".join(outcome["notes"][0]["labels"])


def test_only_contours_of_the_analysis_are_edited(person: Person) -> None:
    classes, said = edited(person, {"hepamap.model": "hcc-10x@1.0.0"}, {"hepamap.model": "hcc-5x@1.0.0"})
    assert classes == ["Tumor (AI)", "Tumor (AI)", "Tumor"]
    assert "1 copies made." in said


def test_a_preview_is_not_edited(person: Person, guide: str) -> None:
    classes, said = edited(person, {"hepamap.model": "hcc-10x@1.0.0", "hepamap.preview": "coarse pass"})
    assert classes == ["Tumor (AI)"]
    assert PREVIEW in said
    require_in_guide(PREVIEW, guide)


@pytest.mark.parametrize("button", ["Accept", "Submit edited", "Reject"])
def test_a_preview_gets_no_verdict(person: Person, guide: str, button: str) -> None:
    assert person.image is not None
    ring = [[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 0.0]]
    metadata = {"hepamap.model": "hcc-10x@1.0.0", "hepamap.preview": "coarse pass"}
    person.image["objects"] = [{"class": "Tumor (AI)", "locked": True, "polygons": [[ring]], "metadata": metadata}]
    person.image["properties"] = {"hepamap.analysis": ANALYSIS_ID}
    pressed = [{"set": {"verdict-reason": "Necrosis."}}, {"press": button}, {"wait": "dialog"}]
    outcome = person.runs_it(steps=[{"item": "Accept, edit, reject…"}, *pressed], answers={"confirm": True})
    said = outcome["dialogs"][-1]["text"]
    assert said == PREVIEW
    require_in_guide(said, guide)
    assert person.server.asked == []


@pytest.mark.parametrize("is_in_a_project", [True, False])
def test_an_image_that_is_closed_meanwhile(person: Person, is_in_a_project: bool) -> None:
    """The verdict is noted in the project; what is in none is gone, and the server has it all the same."""
    stored = {"id": "v-1", "decision": "accepted", "user": "A. Pathologist", "threshold": 0.5, "iou": 1.0, "area_mm2": 2.0}
    person.server.answer("POST", "/api/v1/analyses/[^/]+/verdicts", Answer(201, stored))
    assert person.image is not None
    person.image["properties"] = {"hepamap.analysis": ANALYSIS_ID}
    case: dict[str, Any] = {"do_on": {"message": "Sending the verdict", "action": "close"}}
    if is_in_a_project:
        case["project"], person.image = [person.image], None
    outcome = person.runs_it(steps=[{"item": "Accept, edit, reject…"}, {"press": "Accept"}, {"wait": "dialog"}], **case)
    assert outcome["dialogs"][-1]["text"].startswith("The server has kept it: accepted, by A. Pathologist.")
    noted = [(image["properties"]["hepamap.verdict"], image["saves"]) for image in outcome["project"] or []]
    assert noted == ([("accepted", 1)] if is_in_a_project else [])


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


def exported(person: Person, folder: Path) -> str:
    outcome = person.runs_it("headless", args=["export", f'{{"folder": "{folder}"}}'])
    assert outcome["thrown"] is None
    return str(outcome["printed"])


def with_annotation(person: Person, slide: str, side: float) -> None:
    assert person.image is not None
    ring = [[0.0, 0.0], [side, 0.0], [side, side], [0.0, 0.0]]
    person.image |= {"uris": [Path(slide).as_uri()], "objects": [{"class": "Tumor", "polygons": [[ring]]}]}
    person.image["name"] = slide.rpartition("/")[2]


def resolved(person: Person, frame: str) -> None:
    body = {"visible": True, "reason": None, "slide": {"path": "/a", "frame": {"name": frame}}}
    person.server.answer("POST", "/api/v1/slides/resolve", Answer(200, body))


@pytest.mark.parametrize("separator", [",", ";"])
def test_what_a_person_wrote_into_the_table_stays(person: Person, tmp_path: Path, separator: str) -> None:
    with_annotation(person, "/lab/a, b.svs", 90.0)
    resolved(person, "bounds")
    exported(person, tmp_path)
    table = tmp_path / "cohort.csv"
    # As a spreadsheet saves it: a mark at its begin, a column more, another order, its own separator.
    head = ["mpp", "slide", "annotations", "split", "group", "unannotated", "frame"]
    row = ["0.5", '"/lab/a, b.svs"', "a_ b.svs.geojson", "test", "patient 7", "non_tumour", "qupath"]
    other = ["", "/lab/c.svs", "c.geojson", "val", "patient 8", "ignore", "qupath"]
    table.write_text("\ufeff" + "\r\n".join(separator.join(line) for line in (head, row, other)) + "\r\n", encoding="utf-8")
    resolved(person, "level0")
    assert "column frame" not in exported(person, tmp_path)
    first, second = read_cohort(table)
    assert (first.slide, first.group, first.split, first.unannotated) == (
        Path("/lab/a, b.svs"),
        "patient 7",
        "test",
        "non_tumour",
    )
    assert (first.frame, first.mpp_override_um, second.group) == ("level0", 0.5, "patient 8")
    assert first.annotations == tmp_path / "a_ b.svs.geojson"


def test_slides_of_one_name_have_a_file_each(person: Person, tmp_path: Path) -> None:
    for slide, side in (("/lab/1/a.svs", 10.0), ("/lab/2/a.svs", 20.0), ("/other/2/A.svs", 30.0), ("/lab/1/a.svs", 40.0)):
        with_annotation(person, slide, side)
        exported(person, tmp_path)
    names = {str(row.slide): row.annotations.name for row in read_cohort(tmp_path / "cohort.csv")}
    assert names == {
        "/lab/1/a.svs": "a.svs.geojson",
        "/lab/2/a.svs": "a.svs (2).geojson",
        "/other/2/A.svs": "A.svs (other_2).geojson",
    }
    areas = [read_annotations(tmp_path / name).annotations[0].polygon.area for name in names.values()]
    assert areas == [40.0**2 / 2, 20.0**2 / 2, 30.0**2 / 2]


def test_a_frame_that_nobody_knows_is_said(person: Person, tmp_path: Path, guide: str) -> None:
    with_annotation(person, "/lab/a.svs", 90.0)
    person.server.answer("POST", "/api/v1/slides/resolve", Answer(502))
    said = exported(person, tmp_path)
    assert "The server could not say from where the coordinates of this slide count, so the table says qupath" in said
    assert read_cohort(tmp_path / "cohort.csv")[0].frame == "qupath"
    (tmp_path / "cohort.csv").write_bytes("slide,annotations,ä\n".encode("latin-1"))
    outcome = person.runs_it("headless", args=["export", f'{{"folder": "{tmp_path}"}}'])
    assert outcome["thrown"].endswith("is not in UTF-8. Save it as “CSV UTF-8”, then export again.")
    (tmp_path / "cohort.csv").write_text("slide,annotations\n")
    outcome = person.runs_it("headless", args=["export", f'{{"folder": "{tmp_path}"}}'])
    require_in_guide(outcome["thrown"].removeprefix("Trouble: hepamap: "), guide)
