import json
from typing import Any

import pytest
import shapely

from hepamap.errors import HepamapError, RegionEmptyError, RegionInvalidError, RegionOutsideSlideError
from hepamap.geometry import Point, Size
from hepamap.regions import bare_region, parse_region

SQUARE = {"type": "Polygon", "coordinates": [[[10, 20], [110, 20], [110, 120], [10, 120], [10, 20]]]}
SIZE = Size(1000, 800)


@pytest.mark.parametrize(
    "data",
    [
        SQUARE,
        {"type": "Feature", "geometry": SQUARE, "properties": {}},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": SQUARE}]},
        [{"type": "Feature", "geometry": SQUARE}],
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
    ],
)
def test_every_form_of_geojson(data: Any) -> None:
    assert parse_region(data, Point(0, 0), SIZE).equals(shapely.box(10, 20, 110, 120))


def test_a_bare_region_is_the_same_and_holds_outlines_alone() -> None:
    name = {"name": "DOE-JANE", "measurements": {"Area": float("inf")}}
    solid = {"type": "Polygon", "coordinates": [[[1e-9, 0, float("inf")], [60, 0, 0], [60, 70.1, 0], [1e-9, 0, 0]]], "by": "DOE"}
    drawn = [{"type": "Feature", "geometry": geometry, "properties": name} for geometry in (SQUARE, solid)]
    bare = json.loads(json.dumps(bare_region(drawn), allow_nan=False))
    assert "DOE" not in str(bare)
    assert parse_region(bare, Point(5, 7), SIZE).equals_exact(parse_region(drawn, Point(5, 7), SIZE), 0)
    assert bare_region([]) == []


def test_the_clients_frame_is_moved_to_level_0() -> None:
    assert parse_region(SQUARE, Point(5, 7), SIZE).equals(shapely.box(15, 27, 115, 127))


def test_what_hangs_over_the_edge_is_cut() -> None:
    assert parse_region(SQUARE, Point(930, 0), SIZE).equals(shapely.box(940, 20, 1000, 120))


def test_several_regions_are_united() -> None:
    both = [
        {"type": "Feature", "geometry": SQUARE},
        {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(300, 0, 310, 10))},
    ]
    assert parse_region(both, Point(0, 0), SIZE).area == 100 * 100 + 10 * 10


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}, RegionInvalidError),
        ({"type": "Polygon", "coordinates": []}, RegionEmptyError),
        ({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [0, 0], [0, 0]]]}, RegionEmptyError),
        ([], RegionEmptyError),
        ({"type": "FeatureCollection", "features": []}, RegionEmptyError),
        ({"type": "Point", "coordinates": [1, 2]}, RegionInvalidError),
        ({"type": "Polygon", "coordinates": [[["a", "b"]]]}, RegionInvalidError),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, RegionInvalidError),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, float("nan")], [1, 0], [0, 0]]]}, RegionInvalidError),
        ({"type": "Polygon"}, RegionInvalidError),
        ({"detail": "an error body"}, RegionInvalidError),
        ({"type": "Feature", "geometry": None}, RegionInvalidError),
        ("a text", RegionInvalidError),
        ({"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0], [0, 9], [0, 0]]]}, RegionInvalidError),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}]}, RegionInvalidError),
        (None, RegionInvalidError),
        (shapely.geometry.mapping(shapely.box(1000, 0, 1100, 100)), RegionOutsideSlideError),
        (shapely.geometry.mapping(shapely.box(-100, -100, -1, -1)), RegionOutsideSlideError),
    ],
)
def test_bad_regions(data: Any, error: type[HepamapError]) -> None:
    with pytest.raises(error) as caught:
        parse_region(data, Point(0, 0), SIZE)
    assert caught.value.cure


def test_what_only_touches_the_edge_is_no_part_of_it() -> None:
    outline = [[-100, 0], [500, 0], [500, 500], [0, 500], [0, 800], [-100, 800], [-100, 0]]
    region = parse_region({"type": "Polygon", "coordinates": [outline]}, Point(0, 0), SIZE)
    assert isinstance(region, shapely.Polygon)
    assert region.equals(shapely.box(0, 0, 500, 500))


def test_three_dimensional_coordinates_are_flat() -> None:
    solid = {"type": "Polygon", "coordinates": [[[0, 0, 5], [9, 0, 5], [9, 9, 5], [0, 0, 5]]]}
    assert parse_region(solid, Point(0, 0), SIZE).area == 40.5


def test_a_list_without_end_is_refused() -> None:
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(RegionInvalidError, match="nested"):
        parse_region(nested, Point(0, 0), SIZE)
