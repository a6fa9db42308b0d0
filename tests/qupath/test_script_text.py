"""What the script may not say, since one of QuPath 0.5, 0.6 and 0.7 does not know it; needs no Groovy."""

from __future__ import annotations

import re

import pytest

from hepamap.qupath_client.sources import Source, read_sources, sources_folder
from tests.qupath.quasi_qupath import STAND_IN, client_script

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
