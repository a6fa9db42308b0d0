"""What the script may not say, since one of QuPath 0.5, 0.6 and 0.7 does not know it; needs no Groovy."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from hepamap.qupath_client.sources import Source, read_sources, sources_folder
from tests.qupath.quasi_qupath import STAND_IN, client_script
from tests.qupath.qupath_api import OTHERS, QUPATH, VERSIONS

TEXT = client_script()
CODE = re.sub(r"(?s)/\*.*?\*/|(?<![:/])//[^\n]*", "", TEXT)

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
    calls = [line.strip() for line in re.findall(r"removeObjects\((.*)", CODE)]
    assert len(calls) >= 2
    assert all(re.search(r", true\)$", line) or line.endswith("{") for line in calls)


def test_every_import_of_qupath_is_in_the_stand_in() -> None:
    # What the stand-in has not, no test has run.
    imported = re.findall(r"^import (qupath\.[\w.]+)$", TEXT, re.MULTILINE)
    assert len(imported) >= 5
    for name in imported:
        assert (STAND_IN / f"{name.replace('.', '/')}.groovy").exists(), name


# Without imports and texts, but with what is reckoned in texts.
BARE = re.sub(
    r"(?m)^import .*$|'(?:[^'\\\n]|\\.)*'",
    "",
    re.sub(r'"(?:[^"\\\n]|\\.)*"', lambda text: f'"{" ".join(re.findall(r"[$]{([^}]*)}", text[0]))}"', CODE),
)
IMPORTED = {name.rpartition(".")[2]: name for name in re.findall(r"(?m)^import (qupath\.[\w.]+)$", TEXT)}
OWN_METHODS = {
    *re.findall(r"(?m)^    (?:(?:private|static) )*[\w.<>\[\]]+ (\w+)\((?:[^()]|\([^()]*\))*\) \{", BARE),
    *re.findall(r"\bClosure (\w+) =", BARE),
}


def test_only_classes_of_qupath_that_all_versions_have() -> None:
    named = {*IMPORTED.values(), *re.findall(r"\bqupath(?:\.\w+)+", BARE)}
    assert named - set(QUPATH) == set()


def uses(members: Mapping[str, Mapping[str, object]], code: str) -> set[str]:
    """What a script takes of the classes that it imports, and is not listed; also calls of whose object nothing is known."""
    unknown = {
        f"{short}.{member}"
        for short, name in IMPORTED.items()
        for member in re.findall(rf"\b(?<!\.){short}\.(\w+)", code)
        if member not in members.get(name, {})
    }
    unknown |= {
        f"new {short}" for short, name in IMPORTED.items() if f"new {short}(" in code and "new" not in members.get(name, {})
    }
    known = {*OWN_METHODS, *OTHERS, *(member for listed in members.values() for member in listed)}
    return unknown | (set(re.findall(r"\.(\w+)(?:\(| \{)", code)) - known)


def test_only_members_of_qupath_that_are_listed() -> None:
    assert uses(QUPATH, BARE) == set()
    # Members are called, as the sources have them: a property of Groovy's making would not be seen here.
    assert re.findall(r"\b(?:imageData|hierarchy|gui|viewer|roi|entry)\.(?!\w+\()\w+", BARE) == []


def test_what_is_listed_is_in_all_versions_and_used() -> None:
    assert {name for members in QUPATH.values() for name, versions in members.items() if versions != VERSIONS} == set()
    called = set(re.findall(r"\.(\w+)", BARE)) | {"new"}
    assert {name for members in QUPATH.values() for name in members} | OTHERS <= called


def test_what_is_not_listed_is_found() -> None:
    more = "imageData.getHierarchy().getTileObjects(); PathIO.readObjects(file); new ImageRegion(0); viewer.zoom { }"
    assert uses(QUPATH, BARE + more) == {"getTileObjects", "PathIO.readObjects", "readObjects", "new ImageRegion", "zoom"}


def test_imports_are_explicit() -> None:
    # A step of the workflow, or another startup script, runs the script without QuPath's default imports.
    assert "import static" not in TEXT
    assert not re.search(r"^import .*\*$", TEXT, re.MULTILINE)


# Short names that QuPath imports before a script, in one version or another: a class or another import of such a name would not
# compile there. Those that the stand-in has are imported in every test.
# fmt: off
IMPORTED_BY_QUPATH = {
    "ImageData", "ImageServer", "PathObject", "PathObjectHierarchy", "PathClass", "ImageRegion", "RegionRequest", "ImagePlane",
    "Padding", "PathObjects", "ROIs", "PathClassFactory", "Projects", "PathObjectTools", "RoiTools", "GsonTools",
    "BufferedImageTools", "PathClassifierTools", "ColorTools", "GeneralTools", "DistanceTools", "ImageWriterTools",
    "PathClassTools", "GeometryTools", "IJTools", "OpenCVTools", "TileExporter", "ServerTools", "PixelClassifierTools",
    "ImageOps", "DelaunayTools", "CellTools", "PointIO", "ProjectIO", "BufferedImage", "QPEx", "QuPathGUI", "Dialogs",
    "GuiTools", "Charts", "MenuTools", "PaneTools", "PathPrefs", "Platform",
}
# fmt: on


def test_no_name_means_two_things_after_qupaths_own_imports() -> None:
    assert not IMPORTED_BY_QUPATH & set(re.findall(r"(?m)^class (\w+)", CODE))
    imported = dict(re.findall(r"(?m)^import ([\w.]+\.(\w+))$", TEXT))
    same = {full for full, short in imported.items() if short in IMPORTED_BY_QUPATH}
    assert all(re.match(r"qupath\.|java\.awt\.image\.BufferedImage$|javafx\.application\.Platform$", name) for name in same), same


@pytest.mark.parametrize("source", read_sources(sources_folder()), ids=lambda source: source.name)
def test_sources_are_small(source: Source) -> None:
    lines = source.text.splitlines()
    assert len(lines) < 400
    assert all(len(line) <= 150 for line in lines)


@pytest.mark.parametrize(
    "new", [r"\) ->", r"\w::\w", r" !in ", r" !instanceof ", r"\bvar ", r"\btry \(", r"\?=", r"===", r"\?\["]
)
def test_nothing_that_only_newer_groovy_understands(new: str) -> None:
    assert not re.search(new, re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "''", CODE))
