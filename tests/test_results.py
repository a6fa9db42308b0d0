import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from hepamap import RESEARCH_USE_ONLY
from hepamap.errors import OutputExistsError, OutputNotWritableError, ResultDamagedError, ThresholdInvalidError
from hepamap.geometry import Grid, Lattice, PixelSize, Point, Region
from hepamap.pipeline import Analysis, regions_of
from hepamap.plausibility import Warning_
from hepamap.probability_map import ProbabilityMap
from hepamap.results import Frame, StoredResult, open_result, require_free, summary_of, write_result
from tests.flushed import Flushed

FILES = {
    "contours.geojson",
    "overlay.png",
    "probability-map.json",
    "probability-map.npy",
    "probability-map.ome.tif",
    "probability-map.png",
    "result.json",
}
PROVENANCE = {
    "software": {"version": "0", "commit": "c"},
    "model": {"id": "m", "version": "1.0.0", "weights_sha256": "s"},
    "slide": {"fingerprint": "f"},
    "mode": "patch",
    "stride_m": 16,
}
PARAMETERS = {"threshold": 0.5, "min_area_um2": 0.0, "min_hole_area_um2": 0.0}
FRAME = Frame("bounds", Point(100.0, 50.0))


def analysis(outcome: str = "ok", *codes: str) -> Analysis:
    values = np.full((6, 8), 0.1, np.float32)
    values[1:4, 2:6] = 0.9
    values[5, 7] = 0.6
    values[0, 0] = np.nan
    lattice = Lattice(Grid(1.84, 64, 16, PixelSize(0.46, 0.46)), -2, -2, 8, 6)
    made = ProbabilityMap(values, lattice, PROVENANCE)
    warnings = [Warning_(code, "A sentence.") for code in codes]
    return Analysis(made, regions_of(made, 0.5, 0.0, 0.0), outcome, warnings, {"map": 1.0})


def write(folder: Path, *, overwrite: bool = False, done: Analysis | None = None) -> StoredResult:
    done = done or analysis()
    thumbnail = np.full((300, 400, 3), 200, np.uint8)
    summary = summary_of(done, FRAME, PARAMETERS)
    write_result(folder, done, summary, FRAME, thumbnail, Region(-32, -32, 512, 384), overwrite=overwrite)
    return open_result(folder)


def test_all_files_are_there_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_map_comes_back(tmp_path: Path) -> None:
    stored = write(tmp_path / "out")
    assert np.array_equal(stored.map.values, analysis().map.values, equal_nan=True)
    assert stored.map.lattice == analysis().map.lattice
    assert stored.map.provenance == PROVENANCE
    assert stored.frame == FRAME


@pytest.mark.parametrize(
    ("mode", "said"),
    [("patch", "of the patch centred"), ("dense", "of the patch centred"), ("segment", "of the pixels of each cell")],
)
def test_a_map_says_what_its_values_are_of(mode: str, said: str) -> None:
    made = replace(analysis().map, provenance={**PROVENANCE, "mode": mode})
    assert said in made.place_json()["meaning"]


def test_contours_are_in_the_frame_and_carry_their_provenance(tmp_path: Path) -> None:
    write(tmp_path / "out")
    data = json.loads((tmp_path / "out" / "contours.geojson").read_text())
    assert data["properties"]["notice"] == RESEARCH_USE_ONLY
    assert data["properties"]["frame"] == {"name": "bounds", "offset_x": 100.0, "offset_y": 50.0}
    assert data["properties"]["provenance"] == PROVENANCE
    largest = data["features"][0]
    # Cells 2 to 5, rows 1 to 3 of a lattice whose first cell begins at -32; cells are 64 px; less the bounds.
    assert shapely.geometry.shape(largest["geometry"]).bounds == (96 - 100, 32 - 50, 352 - 100, 224 - 50)
    assert largest["properties"]["metadata"]["hepamap.weights_sha256"] == "s"
    assert data["properties"]["tissue_area_mm2"] == pytest.approx(47 * 29.44**2 / 1e6)


def test_another_threshold_or_area_needs_only_the_stored_map(tmp_path: Path) -> None:
    stored = write(tmp_path / "out")
    assert len(stored.contours()["features"]) == 2
    assert len(stored.contours(threshold=0.7)["features"]) == 1
    assert len(stored.contours(min_area_um2=1000)["features"]) == 1
    level0 = stored.contours(threshold=0.7, frame=Frame("level0", Point(0, 0)))
    assert shapely.geometry.shape(level0["features"][0]["geometry"]).bounds == (96, 32, 352, 224)
    for bad in (0.0, 1.0, 1.5, -1.0, float("nan")):
        with pytest.raises(ThresholdInvalidError):
            stored.contours(threshold=bad)


def test_tumour_in_a_hole_counts_once(tmp_path: Path) -> None:
    """7 × 7 cells of tumour round a hole of 3 × 3, and one cell of tumour in it: 41 cells, whatever area is asked for."""
    values = np.full((9, 9), 0.1, np.float32)
    values[1:8, 1:8] = 0.9
    values[3:6, 3:6] = 0.1
    values[4, 4] = 0.9
    lattice = Lattice(Grid(1.84, 64, 16, PixelSize(0.46, 0.46)), 0, 0, 9, 9)
    made = ProbabilityMap(values, lattice, PROVENANCE)
    parameters = {"threshold": 0.5, "min_area_um2": 1e4, "min_hole_area_um2": 1e4}
    stored = StoredResult(tmp_path, made, {"outcome": "ok", "warnings": [], "parameters": parameters})
    cell_um2 = 29.44**2

    for min_area_um2, regions, cells in ((1e4, 1, 49), (0.0, 2, 41), (cell_um2, 2, 41)):  # the first fills the hole
        data = stored.contours(min_area_um2=min_area_um2, frame=FRAME)
        shapes = [shapely.geometry.shape(feature["geometry"]) for feature in data["features"]]
        assert len(shapes) == regions
        assert sum(shape.area for shape in shapes) == pytest.approx(shapely.union_all(shapes).area)
        assert data["properties"]["tumour_area_mm2"] * 1e6 / cell_um2 == pytest.approx(cells, abs=0.5)


def test_what_is_not_evaluable_has_no_contours_at_any_threshold(tmp_path: Path) -> None:
    stored = write(tmp_path / "out", done=analysis("not_evaluable", "not_h_and_e"))
    written = json.loads((tmp_path / "out" / "contours.geojson").read_text())
    for data in (written, stored.contours(), stored.contours(threshold=0.7), stored.contours(threshold=0.05, min_area_um2=0)):
        assert data["features"] == []
        properties = data["properties"]
        assert (properties["outcome"], properties["warning_codes"]) == ("not_evaluable", ["not_h_and_e"])
        assert properties["tumour_area_mm2"] is None
        assert properties["tissue_area_mm2"] == stored.summary["tissue_area_mm2"] > 0
    numbers = ("tumour_area_mm2", "tumour_share_of_tissue", "tumour_regions", "max_probability")
    assert [stored.summary[name] for name in numbers] == [None] * 4


@pytest.mark.parametrize(("outcome", "told"), [("ok", None), ("ok_with_warnings", "ok_with_warnings")])
def test_each_contour_says_where_its_run_was_doubtful(tmp_path: Path, outcome: str, told: str | None) -> None:
    codes = [] if told is None else ["little_tissue", "nearly_all_tumour"]
    write(tmp_path / "out", done=analysis(outcome, *codes))
    data = json.loads((tmp_path / "out" / "contours.geojson").read_text())
    assert (data["properties"]["outcome"], data["properties"]["warning_codes"]) == (outcome, codes)
    assert [feature["properties"]["metadata"].get("hepamap.outcome") for feature in data["features"]] == [told, told]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert data["properties"]["tumour_area_mm2"] == result["tumour_area_mm2"] > 0
    assert len(data["features"]) == result["tumour_regions"]


@pytest.mark.parametrize("outcome", ["ok", "not_evaluable"])
def test_the_overlay_says_what_is_not_evaluable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    texts: list[str] = []
    draw = cv2.putText

    def drawn(picture: Any, text: str, *others: Any) -> Any:
        texts.append(text)
        return draw(picture, text, *others)

    monkeypatch.setattr(cv2, "putText", drawn)
    write(tmp_path / "out", done=analysis(outcome))
    overlay = cv2.imread(str(tmp_path / "out" / "overlay.png"))
    assert overlay is not None
    blue, greens, red = np.moveaxis(overlay.astype(int), -1, 0)
    green = greens > 50 + np.maximum(blue, red)  # contours on the slide, and their example in the legend: no colour of the map is
    evaluable = outcome == "ok"
    assert (green[:300].any(), green[300:].any()) == (evaluable, evaluable)
    assert [text.startswith("NOT EVALUABLE") for text in texts].count(True) == (0 if evaluable else 1)
    assert ("contour at the threshold" in texts) == evaluable


def test_the_ome_tiff_has_the_values_and_their_size(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "probability-map.ome.tif") as tiff:
        assert np.array_equal(tiff.asarray(), analysis().map.values, equal_nan=True)
        assert tiff.ome_metadata is not None
        assert 'PhysicalSizeX="29.44"' in tiff.ome_metadata
        assert RESEARCH_USE_ONLY in tiff.ome_metadata


def test_a_large_ome_tiff_is_a_pyramid(tmp_path: Path) -> None:
    from hepamap.rendering import write_ome_tiff

    values = np.random.default_rng(0).random((700, 901)).astype(np.float32)
    values[:2, :2] = np.nan
    values[2, 2] = np.nan
    lattice = replace(analysis().map.lattice, columns=901, rows=700)
    write_ome_tiff(ProbabilityMap(values, lattice, PROVENANCE), tmp_path / "map.ome.tif")
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape for level in levels] == [(700, 901), (350, 451), (175, 226)]
    assert np.isnan(levels[1][0, 0])
    assert levels[1][1, 1] == pytest.approx((values[2, 3] + values[3, 2] + values[3, 3]) / 3)
    assert levels[1][5, 7] == pytest.approx(values[10:12, 14:16].mean(), abs=1e-6)


def test_pictures_show_the_cells(tmp_path: Path) -> None:
    write(tmp_path / "out")
    grey = cv2.imread(str(tmp_path / "out" / "probability-map.png"), cv2.IMREAD_UNCHANGED)
    assert grey is not None
    assert grey.shape == (6, 8, 4)
    assert grey[0, 0, 3] == 0
    assert grey[2, 3].tolist() == [230, 230, 230, 255]
    overlay = cv2.imread(str(tmp_path / "out" / "overlay.png"))
    assert overlay is not None
    # The view is the map itself, 50 px a cell: inside a tumour cell, a clear one, and the one without data.
    assert overlay[125, 175].tolist() != overlay[225, 325].tolist()
    assert overlay[25, 25].tolist() == [200, 200, 200]
    assert overlay.shape[0] > 300


def test_every_picture_says_what_it_was_made_from(tmp_path: Path) -> None:
    write(tmp_path / "out")
    provenance = dict(open_result(tmp_path / "out").map.provenance)
    for name in ("probability-map.png", "overlay.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            texts = picture.info
        assert json.loads(texts["Description"]) == provenance
        assert texts["Disclaimer"] == RESEARCH_USE_ONLY
    with tifffile.TiffFile(tmp_path / "out" / "probability-map.ome.tif") as tiff:
        description = ElementTree.fromstring(tiff.ome_metadata or "").find(".//{*}Description")
    assert description is not None
    notice, text = (description.text or "").split("\n")
    assert (notice, json.loads(text)) == (RESEARCH_USE_ONLY, provenance)


def test_a_result_is_not_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(OutputExistsError):
        write(tmp_path / "out")
    write(tmp_path / "out", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="no result"):
        require_free(tmp_path, overwrite=True)


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    slide = tmp_path / "slide.svs"
    slide.write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="is a file"):
            write(slide, overwrite=overwrite)
    assert slide.read_text() == "precious"


def test_the_folder_that_one_is_in_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputExistsError, match="folder that you are in"):
        require_free(Path("."), overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_disk_takes(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError):
        require_free(tmp_path / ("x" * 300), overwrite=False)


@pytest.mark.parametrize("text", ["{}", "[]", '{"frame": {}, "parameters": {}}', "null", "not json"])
def test_a_summary_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "result.json").write_text(text)
    with pytest.raises(ResultDamagedError):
        open_result(tmp_path / "out")


def test_values_that_are_a_zip_are_damage(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "probability-map.npy").write_bytes(b"PK\x03\x04 no array")
    with pytest.raises(ResultDamagedError):
        open_result(tmp_path / "out")


@pytest.mark.parametrize("width", [1, 2, 50])
def test_a_narrow_picture_has_room_for_its_legend(width: int) -> None:
    from hepamap.rendering import overlay_png

    done = analysis()
    png = overlay_png(np.full((200, width, 3), 200, np.uint8), Region(0, 0, width * 4, 800), done.map, done.regions)
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.shape[1] == 400


@pytest.mark.parametrize("failing", ["save", "write_ome_tiff", "overlay_png"])
def test_a_full_disk_leaves_nothing_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before = write(tmp_path / "out").summary

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "save":
        monkeypatch.setattr(ProbabilityMap, "save", full)
    else:
        monkeypatch.setattr(f"hepamap.results.{failing}", full)
    with pytest.raises(OutputNotWritableError, match="no space"):
        write(tmp_path / "out", overwrite=True)
    with pytest.raises(OutputNotWritableError, match="no space"):
        write(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert open_result(tmp_path / "out").summary == before


def test_a_result_is_on_the_disk_when_it_is_said_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = Flushed(monkeypatch)
    results = tmp_path / "data" / "results"
    write(results / "out")
    assert flushed.lacks(results / "out") == []
    assert not [name for name in flushed.lacks(results) if name in (".", results.name)]
    removed: list[list[str]] = []
    rmtree = shutil.rmtree

    def look(folder: Any, **others: Any) -> None:
        if Path(folder).suffix == ".old":
            removed.append(flushed.lacks(results / "out"))
        rmtree(folder, **others)

    monkeypatch.setattr(shutil, "rmtree", look)
    write(results / "out", overwrite=True)
    assert removed == [[]]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hepamap.results.write_ome_tiff", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputNotWritableError):
        write(tmp_path / "file" / "out")


@pytest.mark.parametrize("name", ["result.json", "probability-map.json", "probability-map.npy"])
def test_a_damaged_result_says_so(tmp_path: Path, name: str) -> None:
    write(tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ResultDamagedError):
        open_result(tmp_path / "out")
    path.unlink()
    with pytest.raises(ResultDamagedError):
        open_result(tmp_path / "out")
