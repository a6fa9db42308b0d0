"""Everything that can go wrong, and the sentence that it gets; the guide repeats each of them word for word."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.ports import free_port
from tests.qupath.conftest import SLIDE_URI, Person, the_dialog
from tests.qupath.fake_server import ANALYSIS_ID, Answer, analysis, collection, feature, problem
from tests.qupath.quasi_qupath import client_script
from tests.qupath.said import messages

ANALYSES = "/api/v1/analyses"
ANALYSIS = f"{ANALYSES}/{ANALYSIS_ID}"
CONTOURS = f"{ANALYSIS}/contours"
SQUARE = [[[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 0.0]]]
LINE = {"polygons": [[[[0, 0], [5, 5]]]], "area": False, "selected": True}
TROUBLED = "The server cannot work just now"

Trouble = Callable[[Person], None]


def image(**changes: Any) -> Trouble:
    def change(person: Person) -> None:
        person.image = {**(person.image or {}), **changes}

    return change


def no_image(person: Person) -> None:
    person.image = None


def address(text: str) -> Trouble:
    def change(person: Person) -> None:
        person.settings["server"] = text

    return change


def answer(method: str, path: str, *answers: Answer) -> Trouble:
    return lambda person: person.server.answer(method, path, *answers)


def refused(status: int, code: str, detail: str = "This is wrong.", cure: str = "Do that.") -> Trouble:
    return answer("POST", ANALYSES, problem(status, code, detail, cure))


def ends(state: str, **others: Any) -> Trouble:
    return lambda person: person.server.states.append(analysis(state, **others))


def contours(*features: dict[str, Any]) -> Trouble:
    def change(person: Person) -> None:
        person.server.contours = lambda _: collection(*features)

    return change


def closed_port(person: Person) -> None:
    address(f"127.0.0.1:{free_port()}")(person)


def secure(person: Person) -> None:
    address(person.server.url.replace("http:", "https:"))(person)


def slow(person: Person) -> None:
    person.constants["ANSWER_S"] = "1"
    answer("GET", "/version", Answer(200, {"name": "hepamap", "api": "v1"}, delay_s=1.5))(person)


def lost(person: Person) -> None:
    person.constants["LOST_CONTACT_MS"] = "100"
    answer("GET", ANALYSIS, Answer(200, analysis("running")), Answer(502))(person)


FAILED = {"code": "slide_damaged", "message": "Level 0 of a.svs cannot be decoded.", "cure": "Copy it again."}
NONE = problem(404, "analysis_not_found", "There is none.", "Check.")
FAR_AWAY = [[[30000.0, 0.0], [30009.0, 0.0], [30009.0, 9.0], [30000.0, 0.0]]]
UNREADABLE = {**feature(SQUARE), "properties": None}

# What is wrong → what the person reads first, and what else is in the text.
CASES: dict[str, tuple[Trouble, str, str]] = {
    "no image": (no_image, "No image is open", "Open a slide"),
    "from the network": (
        image(uris=["https://example.org/a.svs"]),
        "This image is not one file on a disk",
        "https://example.org/a.svs",
    ),
    "many files": (image(uris=[SLIDE_URI, "file:///b.svs"]), "This image is not one file on a disk", "file:///b.svs"),
    "cropped": (image(transformed=True), "This image is a rotated, cropped", "Open the original slide"),
    "flipped": (
        image(builder="flipped"),
        "This image is a rotated, cropped or otherwise changed view",
        "Open the original slide",
    ),
    "rotated": (image(builder="rotated"), "This image is a rotated, cropped", "Open the original slide"),
    "second series": (image(series=2), "This image is one of several in its file (series 2)", "open that one"),
    "z-stack": (image(planes=5), "This image has 5 focus planes", "open such a slide"),
    "a line": (image(objects=[LINE]), "The selected annotation has no area", "Select a closed region"),
    "nothing selected": (image(objects=[]), "No annotation is selected", "for the whole slide"),
    "bad address": (address("http://not an address"), "“http://not an address” is not the address", "http://server:8000"),
    "bad scheme": (address("ftp://server"), "“ftp://server” is not the address", "http://server:8000"),
    "nobody there": (closed_port, "No server answers at http://127.0.0.1:", "though its computer is there"),
    "unknown name": (address("nowhere.invalid"), "No computer is known by the name in http://nowhere.invalid", "HEPAMAP_URL"),
    "slow": (slow, "The server at http://127.0.0.1:", "took too long"),
    "http, not https": (secure, "The secure connection to https://127.0.0.1:", "certificate"),
    "cut off": (answer("GET", "/version", Answer(200, cut=True)), "The connection to http://127.0.0.1:", "broke"),
    "a web page": (answer("GET", "/version", Answer(200, "<html>")), "What answers at http://127.0.0.1:", "is not a hepamap"),
    "not found": (answer("GET", "/version", Answer(404, "<html>")), "What answers at http://127.0.0.1:", "is not a hepamap"),
    "another server": (answer("GET", "/version", Answer(200, {"name": "x"})), "What answers at", "is not a hepamap"),
    "moved": (
        answer("GET", "/version", Answer(301, "", {"Location": "https://b/"})),
        "http://127.0.0.1:",
        "address (https://b/)",
    ),
    "newer": (answer("GET", "/version", Answer(200, {"name": "hepamap", "api": "v2", "version": "9"})), "The hepamap at", "(v2)"),
    "a gate": (answer("GET", "/version", Answer(401)), "Something in front of the server at", "does not let you in (HTTP 401)"),
    "forbidden": (answer("POST", ANALYSES, Answer(403, "<html>")), "Something in front", "does not let you in (HTTP 403)"),
    "file unknown": (
        refused(404, "slide_not_found"),
        "The server cannot use the file of this slide. It says: This is wrong. Do that.",
        "can be uploaded",
    ),
    "file elsewhere": (refused(403, "slide_not_allowed"), "The server cannot use the file", "hepamap > Settings…"),
    "file closed": (refused(403, "slide_not_readable"), "The server cannot use the file", "This is wrong."),
    "another slide": (
        refused(409, "slide_mismatch"),
        "The slide on the server is not the one that is open. The server says: This is wrong.",
        "Do that.",
    ),
    "no pixel size": (refused(422, "pixel_size_missing"), "The size of a pixel is not known: This is wrong.", "Pixel width"),
    "threshold": (refused(422, "threshold_invalid"), "The server refuses: This is wrong. Do that.", ""),
    "internal": (refused(500, "internal_error"), "The server failed: This is wrong. Do that.", ""),
    "too often": (refused(429, "too_many_requests"), f"{TROUBLED}: This is wrong. Do that.", ""),
    "too often for a gate": (
        answer("POST", ANALYSES, Answer(429, "<html>")),
        "Something in front of the server at",
        "(HTTP 429)",
    ),
    "no database": (refused(503, "job_store_error"), f"{TROUBLED}: This is wrong. Do that.", ""),
    "crashed": (answer("POST", ANALYSES, Answer(500, "oops")), "The server at", "failed (HTTP 500)"),
    "gateway": (answer("POST", ANALYSES, Answer(502, "<html>")), "Something in front of the server at", "(HTTP 502)"),
    "job failed": (ends("failed", error=FAILED), "The server refuses: Level 0 of a.svs cannot be decoded. Copy it again.", ""),
    "job cancelled": (ends("cancelled"), "Somebody cancelled the analysis", "Run this again"),
    "job gone": (answer("GET", ANALYSIS, NONE), "The server has this analysis no more", "again"),
    "lost": (lost, "The server at", "stopped answering while it worked"),
    "error body": (answer("GET", CONTOURS, Answer(200, {"detail": "x"})), "The server at", "something else than contours"),
    "no contours": (answer("GET", CONTOURS, Answer(200, "null")), "The server at", "something else than contours"),
    "unreadable": (contours(UNREADABLE), "QuPath could not read the contours (properties are null)", "Nothing was changed"),
    "elsewhere": (contours(feature(FAR_AWAY)), "The contours do not lie on this image", ""),
    "unforeseen": (ends("running", progress=None), "Something went wrong in the script", "please report it"),
}


ITEMS = {"a line": "Detect in selection", "nothing selected": "Detect in selection"}


@pytest.mark.parametrize("name", CASES)
def test_what_goes_wrong_is_said(person: Person, guide: str, name: str) -> None:
    trouble, begins, has = CASES[name]
    trouble(person)
    before = None if person.image is None else person.image["objects"]
    # Greyed out without an image, so that only a script can come to say so.
    outcome = person.runs_it("editor") if name == "no image" else person.runs_it(item=ITEMS.get(name, "Detect tumor"))
    dialog = the_dialog(outcome)
    assert (dialog["kind"], dialog["title"]) == ("error", "hepamap: not done")
    assert dialog["text"].startswith(begins)
    assert has in dialog["text"]
    assert before is None or len(outcome["image"]["objects"]) == len(before)
    require_in_guide(dialog["text"], guide)


def require_in_guide(text: str, guide: str) -> None:
    """The guide has the sentence; there, what differs from case to case is an ellipsis."""
    said = re.sub(r"\s+", " ", text)
    assert any(re.fullmatch(pattern, said) for pattern in guide_patterns(guide)), said


# What a window says while it works, and in an empty field.
IN_PASSING = {"Telling the server", "a key is stored that cannot be used"}


def test_the_guide_has_every_message_of_the_script(guide: str) -> None:
    patterns = guide_patterns(guide)
    said = messages(client_script())
    assert len(said) > 80
    assert [text for text in sorted(said - IN_PASSING) if not any(re.fullmatch(pattern, text) for pattern in patterns)] == []


def test_messages_are_read_from_a_script() -> None:
    (found,) = (text for text in messages(client_script()) if text.startswith("The stored key"))
    assert found == (
        "The stored key is for …, so it was not sent to …. If that is your server, put its key into hepamap > Settings…."
    )
    extra = """class More {
    static void f() {
        if (a) throw new Trouble(b ? 'One.' : "Two ${c ? '}' : 'x'}. " +
            'Three (%).' /* 'no' */)  // new Trouble('none')
        Windows.tellShortly(String.format(Locale.ROOT, 'At %.3f mm².', x))
    }
}
"""
    assert messages(client_script() + extra) - messages(client_script()) == {"One.", "Two …. Three (%).", "At … mm²."}


def test_the_guide_has_every_setting(guide: str) -> None:
    code = client_script()
    (asked,) = re.findall(r"ASKED = \[(.*)\]", code)
    names = {"server", *re.findall(r"'(\w+)'", asked), *re.findall(r"\b(?:HepamapSettings\.)?(?:get|text)\('(\w+)'\)", code)}
    assert names >= {"ca_file", "min_area_um2", "mode", "opacity", "upload", "user"}
    table = guide.partition("## Settings")[2].partition("## ")[0]
    assert names - set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| ([^|]+) \|", table)))) == set()


def guide_rows(guide: str) -> list[str]:
    table = guide.partition("## Messages")[2].partition("|---|---|")[2]
    return [row.strip() for row in re.findall(r"(?m)^\| ([^|]+) \|", table)]


def guide_patterns(guide: str) -> list[str]:
    return [re.escape(row).replace("…", ".*") for row in guide_rows(guide)]


def test_the_guide_names_no_message_that_the_script_has_not(guide: str) -> None:
    source = client_script()
    where = re.findall(r"WHERE_ADDRESS = '(.*)'", source)[0]
    said = re.sub(r"""['"] \+\s+['"]""", "", source)
    (disks,) = re.findall(r"OWN_DISKS = '(.*)'", said)
    for name, text in {"WHERE_ADDRESS": where, "WHERE": where, "OWN_DISKS": disks}.items():
        said = said.replace(f"${{{name}}}", text)
    said = re.sub(r"\$\{[^}]*\}|%\.\df", "…", said.replace("\\n", " "))
    rows = guide_rows(guide)
    assert len(rows) > 30
    for row in rows:
        for part in row.split("…"):
            assert part.strip(" .()") in said, row


@pytest.mark.parametrize("mode", ["project", "headless"])
def test_without_a_window_the_script_fails_so_that_a_batch_knows(person: Person, mode: str) -> None:
    refused(404, "slide_not_found")(person)
    outcome = person.runs_it(mode)
    assert outcome["dialogs"] == []
    assert outcome["thrown"].startswith("Trouble: hepamap: The server cannot use the file of this slide")


def test_a_short_silence_does_not_end_a_run(person: Person) -> None:
    answers = [Answer(200, analysis("running")), Answer(502), Answer(200, cut=True), Answer(200, analysis())]
    person.server.answer("GET", ANALYSIS, *answers)
    outcome = person.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert "Waiting for the server, which does not answer just now" in outcome["messages"]


def test_a_short_silence_does_not_lose_the_contours(person: Person) -> None:
    away = problem(503, "job_store_error", "Just now.", "Wait.")
    person.server.answer("GET", CONTOURS, Answer(502), away, Answer(200, cut=True), Answer(200, collection(feature(SQUARE))))
    outcome = person.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert len(outcome["image"]["objects"]) == 1


def test_a_long_silence_ends_it(person: Person, guide: str) -> None:
    person.constants["LOST_CONTACT_MS"] = "200"
    person.server.answer("GET", CONTOURS, Answer(502))
    require_in_guide(person.sees(), guide)


@pytest.mark.parametrize("path", [ANALYSIS, CONTOURS])
def test_a_server_that_asks_for_patience_gets_it(person: Person, path: str) -> None:
    often = problem(429, "too_many_requests", "Too often.", "Wait.")
    patient = dataclasses.replace(often, headers={**often.headers, "Retry-After": "1"})
    answers = {ANALYSIS: Answer(200, analysis()), CONTOURS: Answer(200, collection(feature(SQUARE)))}
    person.server.answer("GET", path, patient, answers[path])
    begun = time.monotonic()
    outcome = person.runs_it()
    assert time.monotonic() - begun >= 1.0
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert len([asked for asked in person.server.calls("GET") if asked.path == path]) == 2  # it was not asked in between


@pytest.mark.parametrize(("at", "deletes"), [("Connecting", 0), ("Looking", 0), ("Sending", 1), ("Waiting for other", 1)])
def test_cancel_at_any_moment(person: Person, guide: str, at: str, deletes: int) -> None:
    version = Answer(200, {"name": "hepamap", "api": "v1"}, delay_s=0.3)
    person.server.answer("GET", "/version", version)
    person.server.answer("POST", "/api/v1/slides/resolve", Answer(200, {"visible": True, "reason": None}, delay_s=0.3))
    person.server.answer("POST", ANALYSES, Answer(202, analysis("queued"), delay_s=0.3))
    person.server.states = [analysis("queued")]
    dialog = the_dialog(person.runs_it(do_on={"message": at, "action": "CANCEL"}))
    assert dialog["title"] == "hepamap: cancelled"
    assert len(person.server.calls("DELETE")) == deletes
    require_in_guide(dialog["text"], guide)


def test_cancel_that_the_server_does_not_hear(person: Person, guide: str) -> None:
    person.server.states = [analysis("running")]
    person.server.answer("DELETE", ANALYSIS, Answer(502))
    text = person.sees(do_on={"message": "Classifying", "action": "CANCEL"})
    assert text.startswith("You cancelled, but the server at")
    require_in_guide(text, guide)
