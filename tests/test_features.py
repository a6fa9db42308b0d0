import copy
import json
import uuid
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hepamap.contours import TumourRegion, trace_regions
from hepamap.features import feature_collection, to_text
from hepamap.geometry import Grid, Lattice, PixelSize, Point
from tests.slow_contours import normal, slow_clean

LEVEL_0 = Point(0, 0)


def collection(regions: list[TumourRegion], offset: Point = LEVEL_0) -> dict[str, Any]:
    made = feature_collection(
        regions,
        tissue_area_um2=1e6,
        cell_area_um2=1e4,
        offset_l0=offset,
        properties={"notice": "test"},
        metadata={"hepamap.model": "m@1"},
    )
    parsed: dict[str, Any] = json.loads(to_text(made))
    return parsed


def region(polygon: Any) -> TumourRegion:
    return TumourRegion(polygon, 10, 250_000.0, 0.75, 0.5**10)


def assert_qupath_reads(data: dict[str, Any]) -> None:
    """The rules by which QuPath 0.4 to 0.7 take a file as a whole or not at all."""
    assert data["type"] == "FeatureCollection"
    ids = [feature["id"] for feature in data["features"]]
    assert len(set(ids)) == len(ids)
    for feature in data["features"]:
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        geometry, properties = feature["geometry"], feature["properties"]
        assert geometry["type"] in ("Polygon", "MultiPolygon")
        assert "plane" not in geometry
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        assert geometry["type"] == "Polygon" or len(parts) >= 2
        for ring in (ring for part in parts for ring in part):
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert all(round(value, 2) == value for point in ring for value in point)
        shape = shapely.geometry.shape(geometry)
        assert shape.is_valid
        assert shape.area > 0
        assert properties["objectType"] == "annotation"
        assert properties["isLocked"] is True
        assert isinstance(properties["name"], str)
        assert properties["classification"]["name"]
        assert len(properties["classification"]["color"]) == 3
        assert all(np.isfinite(value) for value in properties["measurements"].values())
        assert all(isinstance(value, str) for value in properties["metadata"].values())


def test_a_square_with_a_hole() -> None:
    data = collection([region(shapely.box(0, 0, 100, 100) - shapely.box(20, 20, 40, 60))])
    assert_qupath_reads(data)
    (feature,) = data["features"]
    assert shapely.geometry.shape(feature["geometry"]).equals(shapely.box(0, 0, 100, 100) - shapely.box(20, 20, 40, 60))
    assert feature["properties"]["measurements"] == {
        "Area mm^2": 0.25,
        "Tumor probability mean": 0.75,
        "Tumor probability max": round(0.5**10, 6),
        "Share of tissue %": 10.0,  # 10 cells of 0.01 mm² in 1 mm²
    }
    assert data["properties"] == {"notice": "test"}


def test_bounds_are_subtracted() -> None:
    data = collection([region(shapely.box(9200, 102700, 9300, 102800))], Point(9153, 102664))
    assert shapely.geometry.shape(data["features"][0]["geometry"]).bounds == (47, 36, 147, 136)


def test_nothing_gives_an_empty_collection() -> None:
    assert collection([])["features"] == []


def test_the_same_result_has_the_same_bytes_and_ids() -> None:
    made = [collection([region(shapely.box(0, 0, 10, 10)), region(shapely.box(0, 0, 10, 10))]) for _ in range(2)]
    assert made[0] == made[1]
    assert_qupath_reads(made[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.2, 0.6), st.floats(0.2, 0.6), st.integers(2, 25), st.integers(2, 25))
def test_any_map_gives_what_qupath_reads(seed: int, mpp_x: float, mpp_y: float, rows: int, columns: int) -> None:
    values = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    lattice = Lattice(Grid(1.84, 64, 16, PixelSize(mpp_x, mpp_y)), -2, 5, columns, rows)
    regions = trace_regions(values, lattice, 0.5)
    data = collection(regions, Point(3, 4))
    assert_qupath_reads(data)
    assert len(data["features"]) == len(regions)
    for feature, traced in zip(data["features"], regions, strict=True):
        moved = shapely.transform(traced.polygon_l0, lambda points: points - np.array([3, 4]))
        assert shapely.geometry.shape(feature["geometry"]).area == pytest.approx(moved.area, rel=1e-3)
        assert normal(feature["geometry"]) == slow_clean(traced.polygon_l0, (3, 4))


def large_map(seed: int) -> tuple[NDArray[np.float32], Lattice]:
    """Round and ragged regions with holes, and glass."""
    rng = np.random.default_rng(seed)
    sizes = ((12, 18), (60, 90), (240, 360))
    fields = [cv2.resize(rng.normal(size=size), (360, 240), interpolation=cv2.INTER_CUBIC) for size in sizes]
    values = 1 / (1 + np.exp(-3 * (2 * fields[0] + fields[1] + 0.5 * fields[2])))
    values[fields[0] < -1] = np.nan
    return values.astype(np.float32), Lattice(Grid(1.84, 64, 16, PixelSize(0.2527, 0.2481)), -3, 7, 360, 240)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_a_large_map_gives_the_same_text_as_one_polygon_after_another(threshold: float) -> None:
    values, lattice = large_map(5)
    regions = trace_regions(values, lattice, threshold)
    assert len(regions) > 100
    data = collection(regions, Point(3, 4))
    assert_qupath_reads(data)
    for feature in data["features"]:
        feature["geometry"] = normal(feature["geometry"])
    expected: list[dict[str, Any]] = []
    for one in regions:
        feature = copy.deepcopy(data["features"][0])
        feature["id"] = data["features"][len(expected)]["id"]
        feature["geometry"] = slow_clean(one.polygon_l0, (3, 4))
        feature["properties"]["measurements"] = {
            "Area mm^2": round(one.area_um2 / 1e6, 6),
            "Tumor probability mean": round(one.mean_probability, 6),
            "Tumor probability max": round(one.max_probability, 6),
            "Share of tissue %": round(100 * one.cells * 1e4 / 1e6, 6),
        }
        expected.append(feature)
    assert to_text(data) == to_text({**data, "features": expected})


def test_outlines_are_wound_as_geojson_wants_them() -> None:
    hole = [(20, 20), (40, 20), (40, 60), (20, 60)]
    for outline in ([(0, 0), (100, 0), (100, 100), (0, 100)], [(0, 100), (100, 100), (100, 0), (0, 0)]):
        for inner in (hole, hole[::-1]):
            (feature,) = collection([region(shapely.Polygon(outline, [inner]))])["features"]
            shell, gap = (shapely.LinearRing(ring) for ring in feature["geometry"]["coordinates"])
            assert shell.is_ccw
            assert not gap.is_ccw


def test_what_rounding_breaks_is_mended() -> None:
    # The slit is narrower than 0.01 px: rounded, it is a line into the square, and vanishes.
    slit = shapely.Polygon([(0, 0), (100, 0), (100, 100), (50.004, 100), (50, 0.004), (49.996, 100), (0, 100)])
    crossed = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    spiked = shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 20), (10, 10), (0, 10)])
    data = collection([region(shape) for shape in (slit, crossed, spiked)])
    assert_qupath_reads(data)
    types = [feature["geometry"]["type"] for feature in data["features"]]
    assert types == ["Polygon", "MultiPolygon", "Polygon"]
    for feature, shape in zip(data["features"], (slit, crossed, spiked), strict=True):
        assert normal(feature["geometry"]) == slow_clean(shape, (0, 0))
    assert [shapely.geometry.shape(feature["geometry"]).area for feature in data["features"]] == [10_000, 50, 100]


def test_slivers_are_left_out_and_the_others_keep_their_ids() -> None:
    sliver, square = shapely.box(0, 0, 1000, 0.0009), shapely.box(0, 0, 10, 10)
    tiny_and_large = shapely.MultiPolygon([shapely.box(50, 50, 50.5, 50.5), shapely.box(0, 0, 10, 10)])
    data = collection([region(sliver), region(square), region(tiny_and_large)])
    assert [feature["geometry"]["type"] for feature in data["features"]] == ["Polygon", "Polygon"]
    replaced = collection([region(shapely.box(7, 7, 9, 9)), region(square), region(tiny_and_large)])
    assert [feature["id"] for feature in data["features"]] == [feature["id"] for feature in replaced["features"]][1:]


def test_numbers_are_short_and_never_a_negative_zero() -> None:
    text = to_text(
        feature_collection(
            [region(shapely.box(-0.001, 0.1 + 0.2, 1234.5649, 99.999))],
            tissue_area_um2=1e6,
            cell_area_um2=1e4,
            offset_l0=LEVEL_0,
            properties={},
            metadata={},
        )
    )
    assert '"coordinates":[[[1234.56,0.3],[1234.56,100.0],[0.0,100.0],[0.0,0.3],[1234.56,0.3]]]' in text


def test_ids_tell_content_place_and_origin() -> None:
    square = shapely.box(0, 0, 10, 10)
    with_hole = square - shapely.box(4, 4, 6, 6)
    ids = {
        collection([region(shape)], offset)["features"][0]["id"]
        for shape, offset in ((square, LEVEL_0), (square, Point(0.01, 0)), (with_hole, LEVEL_0))
    }
    other = feature_collection(
        [region(square)], tissue_area_um2=1, cell_area_um2=1, offset_l0=LEVEL_0, properties={}, metadata={"hepamap.model": "n@1"}
    )
    assert len(ids | {other["features"][0]["id"]}) == 4
    # Pinned: an id must not change from one release or machine to the next without somebody deciding it.
    assert collection([region(square)])["features"][0]["id"] == "4db80423-2e41-517a-98f0-b71cbc468c9b"
