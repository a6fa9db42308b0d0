"""What the script may not say, since one of QuPath 0.5, 0.6 and 0.7 does not know it; needs no Groovy."""

from __future__ import annotations

import re

import pytest

from tests.qupath.quasi_qupath import SCRIPT, STAND_IN, with_settings

TEXT = SCRIPT.read_text(encoding="utf-8")
CODE = re.sub(r"(?s)/\*.*?\*/|//[^\n]*", "", TEXT)

# Removed by 0.7 at the latest, or not there yet in 0.5.
NOT_IN_ALL = [
    "addPathObject",
    "addPathObjects",
    "addPathObjectListener",
    "hasChildren",
    "getColorRGB",
    "setColorRGB",
    "putMeasurement",
    "addMeasurement",
    "getMeasurementValue",
    "setClassification",
    "getAllObjectsForROI",
    "getAnnotationsForROI",
    "runOnApplicationThread",
    "PaneTools",
    "GridPaneUtils",
    "getUserPath",
    "PluginRunnerFX",
    "TaskRunnerFX",
    "createTaskRunner",
    "FXUtils",
    "parseObjectsFromGeoJSON",
]


@pytest.mark.parametrize("name", NOT_IN_ALL)
def test_only_what_all_versions_have(name: str) -> None:
    assert not re.search(rf"\b{name}\b", CODE)


def test_objects_are_removed_in_the_way_that_all_versions_have() -> None:
    assert re.findall(r"removeObjects\(([^)]*)\)", CODE) == ["earlier, true"]


def test_dialogs_is_not_imported() -> None:
    # Its package changed in 0.5; every version imports the right one by itself.
    assert "import" not in " ".join(line for line in TEXT.splitlines() if "Dialogs" in line)


def test_every_import_of_qupath_is_in_the_stand_in() -> None:
    # What the stand-in has not, no test has run.
    imported = re.findall(r"^import ((?:qupath|javafx|org)\.[\w.]+)$", TEXT, re.MULTILINE)
    assert len(imported) >= 8
    for name in imported:
        assert (STAND_IN / f"{name.replace('.', '/')}.groovy").exists(), name


def test_the_settings_are_harmless_as_they_ship() -> None:
    settings = {"SERVER_URL": "''", "MODEL": "''", "STRIDE": "null", "THRESHOLD": "null", "SLIDE_FOLDERS": "[:]"}
    assert with_settings(TEXT, settings) == TEXT


def test_lines_are_not_too_long() -> None:
    assert all(len(line) <= 130 for line in TEXT.splitlines())


def test_every_setting_is_in_the_guide(guide: str) -> None:
    shown = TEXT.partition("--- Settings")[2].partition("--- Constants")[0]
    for name in re.findall(r"(?m)^@Field \S.* (\w+) = ", shown):
        assert f"| `{name}` |" in guide
