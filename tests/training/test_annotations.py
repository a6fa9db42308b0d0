from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shapely.geometry import Polygon

from hepamap.training.annotations import read_annotations
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap, areas_by_meaning
from hepamap.training.errors import AnnotationInvalidError, AnnotationNotFoundError
from hepamap.training.readers.drawn import Annotation
from hepamap.training.readers.geojson import read_geojson

BOX = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
FAR = [[20, 0], [30, 0], [30, 10], [20, 10], [20, 0]]
BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


def polygon(*rings: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": list(rings)}, "properties": properties}


def read(data: Any) -> Any:
    return read_geojson(json.dumps(data).encode(), "a.geojson")


@pytest.mark.parametrize(
    "wrap",
    [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f],
    ids=["collection", "list", "feature"],
)
def test_every_top_level_is_read(wrap: Any) -> None:
    found = read(wrap(polygon(BOX, HOLE, classification={"name": "Tumor", "color": [1, 2, 3]})))
    assert [a.class_name for a in found.annotations] == ["Tumor"]
    assert found.annotations[0].polygon.area == 100 - 4
    assert (found.repaired, found.ignored) == (0, {})


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"], "color": [1, 2, 3]}}, "Tumor: Positive"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": None, "name": "Tumor"}, "Tumor"),
        ({"name": "  "}, None),
        ({}, None),
    ],
)
def test_class_in_every_spelling(properties: dict[str, Any], name: str | None) -> None:
    assert read(polygon(BOX, **properties)).annotations[0].class_name == name


def test_missing_properties_and_foreign_members_do_no_harm() -> None:
    data = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [BOX], "plane": {"z": 0}, "isEllipse": True}}
    assert read({"type": "FeatureCollection", "crs": {}, "features": [data]}).annotations[0].polygon.area == 100


def test_multipolygon_with_islands_and_hole() -> None:
    data = polygon(classification={"name": "Tumor"})
    data["geometry"] = {"type": "MultiPolygon", "coordinates": [[BOX, HOLE], [FAR]]}
    assert read(data).annotations[0].polygon.area == 96 + 100


def test_self_crossing_polygon_is_repaired_and_counted() -> None:
    found = read(polygon(BOW_TIE))
    assert found.repaired == 1
    assert found.annotations[0].polygon.area == 50  # two triangles of base 10 and height 5
    assert found.annotations[0].polygon.is_valid


def test_what_is_no_area_is_counted_not_lost() -> None:
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    found = read([point, point, polygon(BOX, objectType="detection"), polygon([[0, 0], [5, 0], [0, 0], [0, 0]])])
    assert found.annotations == ()
    assert found.ignored == {"Point, not an area": 2, "detection object": 1, "without area": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("null", "no list of features"),
        ('{"type": "FeatureCollection"}', "no list of features"),
        ('{"type": "Polygon", "coordinates": []}', "“Polygon” where a Feature"),
        ('[{"type": "Area", "content": []}]', "“Area” where a Feature"),
        ("[3]", "“int” where a Feature"),
        ('{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, "x"]]]}}', "unreadable coordinates"),
        ('{"type": "Feature", "geometry": {"type": "Polygon"}}', "unreadable coordinates"),
        (json.dumps(polygon([[0, 0], [1, float("nan")], [1, 1], [0, 0]])), "no numbers"),
        ('{"type": "Feature", "geometry": null, "properties": [1]}', "properties are no object"),
    ],
)
def test_what_is_not_geojson_is_refused(text: str, message: str) -> None:
    with pytest.raises(AnnotationInvalidError, match=message) as caught:
        read_geojson(text.encode(), "a.geojson")
    assert "a.geojson" in caught.value.message
    assert "QuPath" in caught.value.cure


def test_missing_unknown_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationNotFoundError, match=r"none\.geojson"):
        read_annotations(tmp_path / "none.geojson")
    with pytest.raises(AnnotationInvalidError, match=r"“\.txt”"):
        read_annotations(tmp_path / "a.txt")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationInvalidError, match="UTF-8"):
        read_annotations(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("Tumor", "tumour"),
        ("tumour", "tumour"),
        ("Tumor: Positive", "tumour"),
        ("Non-tumor", "non_tumour"),
        ("NON_TUMOUR", "non_tumour"),
        ("Normal", "non_tumour"),
        ("Ignore*", "excluded"),
        ("Stroma", None),
        (None, None),
    ],
)
def test_meaning_of_class_names(name: str | None, meaning: str | None) -> None:
    assert DEFAULT_CLASSES.meaning(name) == meaning


def test_own_class_names() -> None:
    classes = ClassMap.of(tumour=["CHC G2"], non_tumour=["foie sain"])
    assert classes.meaning("chc-g2") == "tumour"
    assert classes.meaning("Tumor") is None


def test_areas_unite_by_meaning_and_conflicts_belong_to_neither() -> None:
    drawn = [
        Annotation("Tumor", Polygon(BOX)),
        Annotation("HCC", Polygon([(5, 0), (15, 0), (15, 10), (5, 10)])),
        Annotation("Normal", Polygon([(12, 0), (22, 0), (22, 10), (12, 10)])),
        Annotation("Ignore*", Polygon([(0, 0), (2, 0), (2, 10), (0, 10)])),
        Annotation("Stroma", Polygon(FAR)),
        Annotation(None, Polygon(FAR)),
    ]
    areas = areas_by_meaning(drawn)
    # Tumour covers x 0 to 15, non-tumour 12 to 22; both share 12 to 15; 0 to 2 is excluded. All are 10 high.
    assert areas.tumour.area == pytest.approx((12 - 2) * 10)
    assert areas.non_tumour.area == pytest.approx((22 - 15) * 10)
    assert areas.conflict_area == pytest.approx(3 * 10)
    assert areas.left_out.area == pytest.approx((2 + 3) * 10)
    assert areas.ignored == {"Stroma": 1, "no class": 1}


@pytest.mark.parametrize(
    ("file", "classes"),
    [
        ("wsidicom/qupath-brush.json", ["brush"]),
        ("wsidicom/qupath-rectangle.json", ["rectangle"]),
        ("wsidicom/qupath-polygon-cell-classified.json", ["Cell", "Cell", "Nucleus", "Nucleus"]),
        ("histoqc/geojson_example.json", ["Tumor", "Invborder"]),
        ("histoqc/holed.geojson", [None]),
        ("dlup/qupath05.geojson", ["UT", "I", "I"]),
    ],
)
def test_real_files_of_qupath(shared_data: Path, file: str, classes: list[str | None]) -> None:
    found = read_annotations(shared_data / "annotations" / file)
    assert [a.class_name for a in found.annotations] == classes
    assert all(a.polygon.is_valid and a.polygon.area > 0 for a in found.annotations)


def test_real_rectangle_and_hole_have_the_right_area(shared_data: Path) -> None:
    rectangle = read_annotations(shared_data / "annotations" / "wsidicom/qupath-rectangle.json").annotations[0].polygon
    assert rectangle.area == (26478 - 26268) * (15474 - 15298)
    holed = read_annotations(shared_data / "annotations" / "histoqc/holed.geojson").annotations[0].polygon
    assert holed.area < (13369 - 10098) * (19491 - 16763)


@pytest.mark.parametrize("file", ["qupath-line.json", "qupath-point.json", "qupath-multipoint.json"])
def test_real_lines_and_points_are_no_areas(shared_data: Path, file: str) -> None:
    found = read_annotations(shared_data / "annotations" / "wsidicom" / file)
    assert found.annotations == ()
    assert sum(found.ignored.values()) == 1


@pytest.mark.parametrize("file", ["sectra-pathologycore-area.json", "sectra-pathologycore-polyline.json"])
def test_another_viewers_export_is_refused(shared_data: Path, file: str) -> None:
    with pytest.raises(AnnotationInvalidError, match="where a Feature should stand"):
        read_annotations(shared_data / "annotations" / "wsidicom" / file)
