import json
import uuid
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from hepamap.contours import TumourRegion, trace_regions
from hepamap.features import feature_collection, to_text
from hepamap.geometry import Grid, Lattice, PixelSize, Point

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
