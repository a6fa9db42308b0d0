"""A stand-in for QuPath, a fake server, and a person who runs the script."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.qupath.fake_server import FakeHepamap
from tests.qupath.live import real_server, shared_slides, slide
from tests.qupath.quasi_qupath import QuasiQuPath, require_java
from tests.qupath.shapes import require_valid, sent_shapes

__all__ = ["real_server", "shared_slides", "slide"]

SLIDE_PATH = "/slides/Leber ä 1.svs"
SLIDE_URI = "file:///slides/Leber%20%C3%A4%201.svs"


class Person:
    """Has the client in QuPath, uses its menu on an image, and reads what QuPath shows."""

    def __init__(self, qupath: QuasiQuPath, server: FakeHepamap, home: Path) -> None:
        self._qupath = qupath
        self.server = server
        self.home = home
        self.settings: dict[str, Any] = {"server": server.url, "preview": False}
        self.constants: dict[str, str] = {"POLL_MS": "20"}
        self.image: dict[str, Any] | None = {
            "name": "Leber ä 1.svs",
            "level0": [20000, 10000],
            "um_per_px": 0.25,
            "uris": [SLIDE_URI],
            "objects": [],
        }

    def runs_it(self, mode: str = "menu", **case: Any) -> dict[str, Any]:
        """From the menu, the script `editor`, for a `project`, or `headless`."""
        self.home.mkdir(exist_ok=True)
        (self.home / "settings.json").write_text(json.dumps(self.settings), encoding="utf-8")
        if mode == "editor":
            case.setdefault("args", ["detect"])
        if mode == "menu" and "steps" not in case:
            case.setdefault("item", "Detect tumor")
        outcome = self._qupath.run(self.constants, {"mode": mode, "image": self.image, **case})
        # The stand-in takes any rings; QuPath 0.6 and later do not.
        for polygons in [*outcome["imported"], *outcome["exported"]]:
            require_valid(polygons)
        for asked in self.server.asked:
            for polygons in sent_shapes(asked.body):
                require_valid(polygons)
        return outcome

    def sees(self, mode: str = "menu", **case: Any) -> str:
        """Text of the one dialog that came."""
        return str(the_dialog(self.runs_it(mode, **case))["text"])


def the_dialog(outcome: Mapping[str, Any]) -> Mapping[str, str]:
    """The one dialog."""
    assert outcome["errors"] == []
    assert outcome["thrown"] is None
    (dialog,) = outcome["dialogs"]
    assert isinstance(dialog, dict)
    return dialog


@pytest.fixture(scope="session")
def live_server() -> Iterator[FakeHepamap]:
    server = FakeHepamap()
    yield server
    server.close()


@pytest.fixture(scope="session")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is ~/.hepamap otherwise."""
    return tmp_path_factory.mktemp("home") / "hepamap"


@pytest.fixture(scope="session")
def qupath(live_server: FakeHepamap, own_folder: Path) -> Iterator[QuasiQuPath]:
    require_java()
    # HEPAMAP_URL counts only where no server is stored: another one of a test stands above it.
    process = QuasiQuPath({"HEPAMAP_HOME": str(own_folder), "HEPAMAP_URL": live_server.url, "LANG": "C.UTF-8"})
    yield process
    process.close()


@pytest.fixture
def server(live_server: FakeHepamap) -> FakeHepamap:
    live_server.reset()
    return live_server


@pytest.fixture
def person(qupath: QuasiQuPath, server: FakeHepamap, own_folder: Path) -> Person:
    shutil.rmtree(own_folder, ignore_errors=True)
    return Person(qupath, server, own_folder)


@pytest.fixture(scope="session")
def guide() -> str:
    return (Path(__file__).parents[2] / "docs" / "qupath.md").read_text(encoding="utf-8")
