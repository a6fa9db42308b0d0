"""*Test connection*: each way in which it can fail, for real, and the sentence that tells it from the others."""

from __future__ import annotations

import http.server
import json
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from hepamap.jobs.store import JobStore
from hepamap.model_pack import write_pack
from hepamap.settings import Settings
from tests.packs import manifest_body
from tests.ports import free_port
from tests.qupath.conftest import Person, the_dialog
from tests.qupath.fake_server import Answer
from tests.qupath.live import Server, listening
from tests.qupath.quasi_qupath import client_script
from tests.qupath.test_messages import guide_patterns, require_in_guide


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., tuple[str, KeyStore]]]:
    """Start a server with these settings; without a worker."""
    running = []

    def make(*, model: bool = True, **settings: object) -> tuple[str, KeyStore]:
        if model:
            write_pack(tmp_path / "models/tiny-5x/1.0.0", manifest_body(), {"none/none": np.zeros(1)}, "# For tests\n")
        (tmp_path / "models").mkdir(exist_ok=True)
        given = {"data_dir": tmp_path / "data", "models_dir": tmp_path / "models", "default_model": "tiny-5x", **settings}
        made = Settings(slide_roots=(tmp_path,), embedded_worker=False, min_free_bytes=0, **given)  # type: ignore[arg-type]
        context = listening(made)
        running.append(context)
        url = context.__enter__()
        return url, KeyStore(JobStore.open(made.database_path).engine)

    yield make
    for context in running:
        context.__exit__(None, None, None)


def report(person: Person, guide: str, *, good: bool = False) -> str:
    """What the test says; every line that tells of trouble is in the guide."""
    dialog = the_dialog(person.runs_it(item="Test connection"))
    assert dialog["title"] == ("hepamap: connection is good" if good else "hepamap: connection")
    patterns = guide_patterns(guide)
    for line in dialog["text"].split("\n✗ ")[1:] or ([] if good else [dialog["text"].removeprefix("✗ ")]):
        said = re.sub(r"\s+", " ", re.split(r"\n[✓–]", line)[0]).strip()
        assert any(re.fullmatch(pattern, said) for pattern in patterns), said
    return str(dialog["text"])


def test_all_is_well(person: Person, real_server: Server, guide: str, slide: Path) -> None:
    text = report(person, guide, good=True)
    assert f"answers at {real_server.url}." in text
    assert "✓ It asks for no key." in text
    assert "✓ It has the models tiny-5x@1.0.0 (default)." in text
    assert f"✓ It sees the slide that is open: {slide}" in text


def test_no_worker(person: Person, guide: str, made: Callable[..., tuple[str, KeyStore]]) -> None:
    person.settings["server"], _ = made()
    person.image = None
    text = report(person, guide)
    assert "✓ It has the models tiny-5x@1.0.0 (default)." in text
    assert "✗ No worker runs, so analyses would wait: no worker process has been seen lately." in text


def test_nobody_answers(person: Person, guide: str) -> None:
    person.settings["server"] = f"127.0.0.1:{free_port()}"
    assert report(person, guide).startswith("✗ No server answers at http://127.0.0.1:")


UNREACHED = "✗ The computer of http://{} cannot be reached from here. Check that this computer is in the network"


def test_no_network(person: Person, guide: str) -> None:
    # No way leads there: the same to a program as an address of the hospital's while the cable is out.
    person.settings["server"] = "255.255.255.255:8000"
    assert report(person, guide).startswith(UNREACHED.format("255.255.255.255:8000"))


def test_nothing_comes_back(person: Person, guide: str) -> None:
    person.constants["CONNECT_S"] = "1"
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        # Where its queue is full, the system lets further callers wait without a word, as a firewall does.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        person.settings["server"] = f"127.0.0.1:{server.getsockname()[1]}"
        assert report(person, guide).startswith(UNREACHED.format(person.settings["server"]))


@pytest.mark.parametrize(
    "failed",
    [
        "new NoRouteToHostException('No route to host')",
        "new SocketException('Network is unreachable: no further information')",
    ],
)
def test_what_other_systems_say_where_nothing_can_be_reached(person: Person, failed: str) -> None:
    wrapped = f"new java.util.concurrent.ExecutionException(new ConnectException().initCause({failed}))"
    client = client_script().rpartition("Hepamap.start(")[0]
    outcome = person.runs_it(
        "headless", script=f"{client}\nthrow new Trouble('✗ ' + Reasons.whyNoAnswer('http://a', {wrapped}))\n"
    )
    assert outcome["thrown"].startswith("Trouble: " + UNREACHED.format("a"))


def test_a_name_that_nobody_knows(person: Person, guide: str) -> None:
    person.settings["server"] = "pathology.invalid:8000"
    assert report(person, guide).startswith("✗ No computer is known by the name in http://pathology.invalid:8000.")


def test_no_address(person: Person, guide: str) -> None:
    person.settings["server"] = "the server in the cellar"
    assert report(person, guide).startswith("✗ “the server in the cellar” is not the address of a server.")


def test_another_server(person: Person, guide: str) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    person.settings["server"] = f"http://127.0.0.1:{web.server_address[1]}"
    assert "is not a hepamap server." in report(person, guide)
    web.shutdown()
    web.server_close()


def test_another_generation(person: Person, guide: str) -> None:
    person.server.answer("GET", "/version", Answer(200, {"name": "hepamap", "api": "v2", "version": "9.0"}))
    assert (
        f"speaks another language (v2) than this script (v1). Use the script that came with the server: {person.server.url}"
        in report(person, guide)
    )


def test_keys(person: Person, guide: str, made: Callable[..., tuple[str, KeyStore]]) -> None:
    url, keys = made(access="keys")
    person.settings["server"] = url
    assert f"✗ The server at {url} asks for a key, and this computer has none." in report(person, guide)
    put_key(person, "hm_wrong")
    assert f"✗ The server at {url} refuses the key: " in report(person, guide)
    put_key(person, keys.create("reader", {Scope.READ}, timedelta(days=1)).secret)
    assert "✗ The key is good, but it may not do this: " in report(person, guide)
    put_key(person, keys.create("both", {Scope.READ, Scope.ANALYSE}, timedelta(days=1)).secret)
    text = report(person, guide)
    assert "✓ It accepts the key, for reading and for analyses." in text
    assert stat.S_IMODE((person.home / "key").stat().st_mode) == 0o600  # it was readable by others before


def put_key(person: Person, key: str) -> None:
    person.home.mkdir(exist_ok=True)
    (person.home / "key").write_text(key + "\n", encoding="utf-8")
    (person.home / "key").chmod(0o644)


def test_no_model(person: Person, guide: str, made: Callable[..., tuple[str, KeyStore]]) -> None:
    person.settings["server"], _ = made(model=False)
    assert "✗ The server has no model, so it cannot analyse anything." in report(person, guide)


@pytest.mark.parametrize(
    ("uri", "folder"), [("file:///elsewhere/a.svs", "/elsewhere"), ("file:///Volumes/slides/case/a.svs", "/Volumes/slides")]
)
def test_the_file_is_not_seen(
    person: Person, guide: str, made: Callable[..., tuple[str, KeyStore]], uri: str, folder: str
) -> None:
    person.settings["server"], _ = made(path_mappings={"S:\\other": "/nowhere"})
    assert person.image is not None
    person.image["uris"] = [uri]
    text = report(person, guide)
    assert "✗ The server cannot use the file of this slide. It says: " in text
    assert f"ask the operator to map '{folder}' to a slide folder (HEPAMAP_PATH_MAPPINGS)" in text
    assert "write both names into hepamap > Settings…, or ask whoever runs it to map them" in text


def test_no_image_is_no_failure(person: Person, guide: str) -> None:
    person.image = None
    assert "– No image is open, so whether the server sees your slides was not tested." in report(person, guide, good=True)


def test_a_key_goes_to_the_server_alone(person: Person) -> None:
    put_key(person, "hm_secret")
    person.runs_it(item="Test connection")
    assert {asked.headers.get("Authorization") for asked in person.server.asked} == {"Bearer hm_secret"}
    assert "hm_secret" not in (person.home / "settings.json").read_text(encoding="utf-8")


def test_the_settings_window_keeps_what_is_typed(person: Person) -> None:
    typed = {
        "settings-server": " lab:8000 ",
        "settings-key": "hm_typed",
        "settings-folders": "S:/slides = /slides",
        "settings-stride": "64",
    }
    person.runs_it(steps=[{"item": "Settings…"}, {"set": typed}, {"press": "Save"}])
    kept = json.loads((person.home / "settings.json").read_text(encoding="utf-8"))
    assert kept == {"server": "lab:8000", "stride": 64, "folders": {"S:/slides": "/slides"}, "preview": False}
    key = person.home / "key"
    assert (key.read_text(encoding="utf-8"), stat.S_IMODE(key.stat().st_mode)) == ("hm_typed\nhttp://lab:8000\n", 0o600)


def test_a_key_of_another_server_stays_here(person: Person, guide: str) -> None:
    put_key(person, "hm_secret\nhttp://elsewhere:8000")
    assert f"✗ The stored key is for http://elsewhere:8000, so it was not sent to {person.server.url}." in report(person, guide)
    assert person.server.asked == []
    put_key(person, f"hm_secret\n{person.server.url}")
    report(person, guide, good=True)
    # Another address in the settings window, and no key typed.
    steps = [{"item": "Settings…"}, {"set": {"settings-server": "lab:8000"}}, {"press": "Save"}, {"note": {}}]
    (note,) = person.runs_it(steps=steps)["notes"]
    assert any(label.startswith(f"The stored key is for {person.server.url}, so it") for label in note["labels"]), note["labels"]


def unprintable(person: Person) -> None:
    put_key(person, "hm_ü")


def of_somebody_else(person: Person) -> None:
    person.home.mkdir(exist_ok=True)
    (person.home / "key").symlink_to("/proc/1/status")  # whose rights nobody can change


def no_file(person: Person) -> None:
    (person.home / "key" / "x").mkdir(parents=True)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (unprintable, "The key has characters"),
        (of_somebody_else, "The file with the key, "),
        (no_file, "The file with the key, "),
    ],
)
def test_settings_open_with_a_key_that_cannot_be_used(
    person: Person, guide: str, trouble: Callable[[Person], None], said: str
) -> None:
    trouble(person)
    typed: list[dict[str, Any]] = [
        {"set": {"settings-key": "hm_good", "settings-server": "lab"}},
        {"press": "Save"},
        {"note": {}},
    ]
    outcome = person.runs_it(steps=[{"item": "Settings…"}, {"note": {}}, *typed])
    assert outcome["errors"] == []
    opened, saved = outcome["notes"]
    (text,) = [label for label in opened["labels"] if label.startswith(said)]
    require_in_guide(text, guide)
    if trouble is unprintable:
        assert (person.home / "key").read_text(encoding="utf-8") == "hm_good\nhttp://lab\n"
    else:  # what is there is not ours to change: said too, and the window stays
        assert "hepamap: settings" in saved["windows"]


@pytest.mark.parametrize("pressed", ["Save", "Delete the key"])
def test_what_cannot_be_written_is_said(person: Person, guide: str, pressed: str) -> None:
    no_file(person)
    steps: list[dict[str, Any]] = [{"set": {"settings-key": "hm_good"}}, {"press": pressed}, {"note": {}}]
    outcome = person.runs_it(steps=[{"item": "Settings…"}, *steps])
    assert outcome["errors"] == []
    (text,) = [label for label in outcome["notes"][0]["labels"] if label.startswith("Not all could be changed in ")]
    require_in_guide(text, guide)


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("stride", "fine", "The step “fine” is not a number."),
        ("folders", "S:/slides", "“S:/slides” does not say which folder is meant."),
        ("ca_file", "/nowhere.pem", "The certificates in /nowhere.pem cannot be read"),
        ("server", "http://a b", "“http://a b” is not the address of a server."),
    ],
)
def test_the_settings_window_refuses_what_is_wrong(person: Person, field: str, typed: str, said: str) -> None:
    steps = [{"item": "Settings…"}, {"set": {f"settings-{field}": typed}}, {"press": "Save"}, {"note": {}}]
    (note,) = person.runs_it(steps=steps)["notes"]
    assert any(label.startswith(said) for label in note["labels"]), note["labels"]
