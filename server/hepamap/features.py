"""Tumour regions as GeoJSON that QuPath 0.5 to 0.7 reads by itself.

QuPath reads a file as a whole or not at all, so nothing here may be borderline: coordinates are rounded to its 0.01 px first
and made valid afterwards; one part is a Polygon, several are a MultiPolygon; classes have name and colour; no nulls.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import geojson
import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic_core import to_json

from hepamap.contours import TumourRegion
from hepamap.geometry import Point

TUMOUR_CLASS = "Tumor (AI)"
TUMOUR_COLOR = (200, 0, 0)

_PRECISION_PX = 0.01  # what QuPath 0.6 and later round to when reading
_MIN_PART_AREA_PX2 = 1.0  # a sliver that rounding left over
_ID_NAMESPACE = uuid.UUID("6f0c8e64-0d6f-5d0c-9b61-6d1f0f0c7a55")


def feature_collection(
    regions: Sequence[TumourRegion],
    *,
    tissue_area_um2: float,
    cell_area_um2: float,
    offset_l0: Point,
    properties: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> geojson.FeatureCollection:
    """Make the collection.

    Args:
        regions: outlines in level-0 px.
        tissue_area_um2: area of all cells with data, µm²; for the share of tissue.
        cell_area_um2: area of one cell, µm²; the share counts cells, so that glass in filled holes is no tissue.
        offset_l0: origin of the client's frame in level-0 px (the slide's bounds in QuPath), subtracted from every point.
        properties: provenance of the whole, put into the collection's `properties`.
        metadata: provenance in strings, put into each object's `metadata` (QuPath keeps it).
    """
    parts, region_of = _clean(np.array([region.polygon_l0 for region in regions], object), offset_l0)
    coordinates = _coordinates(parts)
    bytes_of = shapely.to_wkb(parts, byte_order=1)
    described = json.dumps(dict(metadata), sort_keys=True)
    features = []
    for index, first, end in _runs(region_of):
        region = regions[index]
        share = 100 * region.cells * cell_area_um2 / tissue_area_um2 if tissue_area_um2 > 0 else 0.0
        measurements = {
            "Area mm^2": region.area_um2 / 1e6,
            "Tumor probability mean": region.mean_probability,
            "Tumor probability max": region.max_probability,
            "Share of tissue %": share,
        }
        shape = hashlib.sha256(b"".join(bytes_of[first:end])).hexdigest()
        # From content alone: the same result has the same ids, two different ones never share any.
        identity = uuid.uuid5(_ID_NAMESPACE, f"{index} {described} {shape}")
        features.append(_feature(str(identity), coordinates[first:end], measurements, metadata))
    return geojson.FeatureCollection(features, properties=dict(properties))


def to_text(collection: geojson.FeatureCollection) -> str:
    """The collection as the text of a .geojson file."""
    # The same text as by `json`, a million numbers in a third of the time; what is not finite was left out before.
    return to_json(collection).decode() + "\n"


def _feature(identity: str, parts: list[Any], measurements: Mapping[str, float], metadata: Mapping[str, str]) -> geojson.Feature:
    geometry = geojson.Polygon() if len(parts) == 1 else geojson.MultiPolygon()
    # Not given to the constructor, which would walk through every number and round it again.
    geometry["coordinates"] = parts[0] if len(parts) == 1 else parts
    return geojson.Feature(
        id=identity,
        geometry=geometry,
        properties={
            "objectType": "annotation",
            "name": TUMOUR_CLASS,
            "classification": {"name": TUMOUR_CLASS, "color": list(TUMOUR_COLOR)},
            "isLocked": True,
            "measurements": {name: round(value, 6) for name, value in measurements.items() if math.isfinite(value)},
            "metadata": dict(metadata),
        },
    )


def _clean(polygons_l0: NDArray[np.object_], offset_l0: Point) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Move, round, and make valid what is not valid any more.

    Returns:
        The parts of some area, outlines and holes wound as GeoJSON wants them, and for each part which polygon it is of.
    """
    offset = (offset_l0.x, offset_l0.y)
    rounded = shapely.transform(polygons_l0, lambda points: _rounded(points - offset))
    broken = ~shapely.is_valid(rounded)
    moved = shapely.transform(polygons_l0[broken], lambda points: points - offset)
    # make_valid first: set_precision needs valid input, and gives valid output on the grid.
    mended = shapely.set_precision(shapely.make_valid(moved), _PRECISION_PX)
    # The shortest decimals of the rounded points: 1234.56, not 1234.5600000000001.
    rounded[broken] = shapely.transform(shapely.set_precision(mended, 0), _rounded)
    parts, polygon_of = _parts(rounded)
    wanted = shapely.area(parts) >= _MIN_PART_AREA_PX2
    return shapely.orient_polygons(parts[wanted]), polygon_of[wanted]


def _parts(shapes: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The parts of shapes, and which shape each is of; mended shapes may be multi-polygons and lines within collections."""
    outer, shape_of = shapely.get_parts(shapes, return_index=True)
    parts, outer_of = shapely.get_parts(outer, return_index=True)
    return parts, shape_of[outer_of]


def _rounded(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points.round(2) + 0.0  # no negative zeros


def _coordinates(polygons: NDArray[np.object_]) -> list[list[list[list[float]]]]:
    """The coordinates of polygons as GeoJSON has them: of each its rings, of each ring its points."""
    rings, polygon_of = shapely.get_rings(polygons, return_index=True)
    points = shapely.get_coordinates(rings).tolist()
    ends = np.cumsum(shapely.get_num_coordinates(rings)).tolist()
    coordinates: list[list[list[list[float]]]] = [[] for _ in polygons]
    for polygon, first, end in zip(polygon_of.tolist(), [0, *ends], ends, strict=False):
        coordinates[polygon].append(points[first:end])
    return coordinates


def _runs(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """The runs of equal numbers in a sorted array: the number, its first place, and the place after its last."""
    values, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    return zip(values.tolist(), first.tolist(), (first + counts).tolist(), strict=True)
