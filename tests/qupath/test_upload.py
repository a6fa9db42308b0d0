"""A slide that the server does not see is sent to it: asked first, in pieces, and going on after a cut."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hepamap.settings import Settings
from tests.qupath.conftest import Person, the_dialog
from tests.qupath.fake_server import Answer, problem
from tests.qupath.live import LEFT, SIDE, TOP, Server, bounds
from tests.qupath.quasi_qupath import client_script
from tests.qupath.test_messages import require_in_guide


class Wire:
    """Passes bytes on to a server, and can break the connection once, after so many bytes."""

    def __init__(self, url: str) -> None:
        self._to = ("127.0.0.1", int(urlsplit(url).port or 0))
        self.sent = 0
        self.cut_at: int | None = None
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for end in (self._listener, *self._ends):
            _shut(end)
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            self._ends += [client, server]
            for source, sink, counts in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, counts))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
                self.sent += len(data) if counts else 0
                if counts and self.cut_at is not None and self.sent > self.cut_at:
                    self.cut_at = None
                    break
        except OSError:
            pass
        _shut(source)
        _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(real_server: Server) -> Iterator[Wire]:
    wire = Wire(real_server.url)
    yield wire
    wire.close()


@pytest.fixture
def unseen(person: Person, slide: Path, wire: Wire, tmp_path: Path) -> Path:
    """The slide lies where the server may not look."""
    (tmp_path / "own").mkdir()
    path = slide.rename(tmp_path / "own" / "a slide.tif")
    assert person.image is not None
    person.image["uris"] = [path.as_uri()]
    person.settings["server"] = wire.url
    person.constants |= {"PIECE_BYTES": "65536", "PAUSE_MS": "50"}
    return path


def test_it_goes_on_after_a_cut(person: Person, unseen: Path, wire: Wire) -> None:
    size = unseen.stat().st_size
    wire.cut_at = size // 2
    outcome = person.runs_it(answers={"confirm": True})
    assert the_dialog(outcome)["title"] == "hepamap: done"
    assert outcome["questions"][0].startswith(f"The server does not see this file. Send it to the server ({size / 1e6:.1f} MB)?")
    assert "The upload was cut; going on in a moment" in outcome["messages"]
    assert size < wire.sent < 1.3 * size + 65536 + 65536  # not sent anew
    (drawn,) = outcome["image"]["objects"]
    assert bounds(drawn) == (LEFT, TOP, LEFT + SIDE, TOP + SIDE)


def test_it_goes_on_in_another_run(person: Person, unseen: Path, wire: Wire) -> None:
    first = person.runs_it(answers={"confirm": True}, do_on={"message": r"Uploading · [3-9]\d %", "action": "CANCEL"})
    assert the_dialog(first)["text"] == "You cancelled. Nothing was drawn."
    sent = wire.sent
    second = person.runs_it(answers={"confirm": True})
    assert the_dialog(second)["title"] == "hepamap: done"
    assert wire.sent - sent < 0.8 * unseen.stat().st_size + 65536
    assert len(json.loads((person.home / "uploads.json").read_text(encoding="utf-8"))) == 1


@pytest.mark.usefixtures("unseen")
def test_nothing_is_sent_without_leave(person: Person, wire: Wire) -> None:
    case: dict[str, Any] = {"answers": {"confirm": False}}
    assert "The server cannot use the file of this slide." in the_dialog(person.runs_it(**case))["text"]
    person.settings["upload"] = "never"
    outcome = person.runs_it(answers={"confirm": True})
    assert outcome["questions"] == []
    assert "The server cannot use the file of this slide." in the_dialog(outcome)["text"]
    person.settings.pop("upload")
    assert "The server cannot use the file of this slide." in person.runs_it("headless")["thrown"]
    assert wire.sent < 20_000


UPLOAD = "/api/v1/uploads/u1"
BYTES = 1000


@pytest.fixture
def sending(person: Person, tmp_path: Path) -> Person:
    """A small file, sent to the server of a few lines."""
    (tmp_path / "own.svs").write_bytes(bytes(BYTES))
    assert person.image is not None
    person.image["uris"] = [(tmp_path / "own.svs").as_uri()]
    person.settings["upload"] = "always"
    person.constants["PAUSE_MS"] = "50"
    unseen = {"code": "outside_roots", "message": "Not there.", "cure": "Upload it."}
    person.server.answer("POST", "/api/v1/slides/resolve", Answer(200, {"visible": False, "reason": unseen, "slide": None}))
    person.server.answer("POST", "/api/v1/uploads", Answer(201, "{}", {"Location": UPLOAD}))
    person.server.answer("HEAD", UPLOAD, offset(0))
    return person


def offset(count: int) -> Answer:
    return Answer(200, "", {"Upload-Offset": str(count)})


LOCKED = problem(423, "upload_locked", "Another request is writing to this upload.", "Wait until it has ended.")


def test_it_waits_for_a_server_that_still_waits_for_what_was_cut(sending: Person) -> None:
    others = (problem(408, "upload_stalled", "Nothing came.", "Ask."), problem(409, "upload_offset", "Elsewhere.", "Ask."))
    sending.server.answer(
        "PATCH", UPLOAD, Answer(200, cut=True), *[LOCKED] * 7, *others, Answer(204, "", {"Upload-Offset": "1000"})
    )
    sending.server.answer("HEAD", UPLOAD, *[offset(0)] * 10, offset(300))
    outcome = sending.runs_it()
    assert the_dialog(outcome)["title"] == "hepamap: done", the_dialog(outcome)["text"]
    pieces = [(asked.headers["Upload-Offset"], len(asked.body)) for asked in sending.server.calls("PATCH")]
    assert pieces == [("0", BYTES)] * 10 + [("300", BYTES - 300)]
    assert sending.server.posted["slide"] == {"upload": "u1"}


def test_it_waits_longer_than_a_server_keeps_an_upload_locked() -> None:
    (longest,) = re.findall(r"GIVE_UP_MS = ([\d_]+)", client_script())
    assert int(longest) > 2 * 1000 * Settings.model_fields["upload_silence_s"].default


def test_it_does_not_wait_for_ever(sending: Person, guide: str) -> None:
    sending.constants["GIVE_UP_MS"] = "300"
    sending.server.answer("PATCH", UPLOAD, LOCKED)
    text = sending.sees()
    assert text.startswith("The upload broke off (The server refuses: Another request is writing to this upload.")
    require_in_guide(text, guide)
