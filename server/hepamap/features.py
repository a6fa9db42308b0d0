"""Tumour regions as GeoJSON that QuPath 0.5 to 0.7 reads by itself.

QuPath reads a file as a whole or not at all, so nothing here may be borderline: coordinates are rounded to its 0.01 px first
and made valid afterwards; one part is a Polygon, several are a MultiPolygon; classes have name and colour; no nulls.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import geojson
import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

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
    features = [
        _feature(index, part, region, metadata, tissue_area_um2=tissue_area_um2, cell_area_um2=cell_area_um2)
        for index, region in enumerate(regions)
        for part in [_clean(region.polygon_l0, offset_l0)]
        if part is not None
    ]
    return geojson.FeatureCollection(features, properties=dict(properties))


def to_text(collection: geojson.FeatureCollection) -> str:
    """The collection as the text of a .geojson file."""
    return json.dumps(collection, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def _feature(
    index: int,
    shape: Polygon | MultiPolygon,
    region: TumourRegion,
    metadata: Mapping[str, str],
    *,
    tissue_area_um2: float,
    cell_area_um2: float,
) -> geojson.Feature:
    geometry = shapely.geometry.mapping(shape)
    share = 100 * region.cells * cell_area_um2 / tissue_area_um2 if tissue_area_um2 > 0 else 0.0
    measurements = {
        "Area mm^2": region.area_um2 / 1e6,
        "Tumor probability mean": region.mean_probability,
        "Tumor probability max": region.max_probability,
        "Share of tissue %": share,
    }
    return geojson.Feature(
        # From content alone: the same result has the same ids, two different ones never share any.
        id=str(uuid.uuid5(_ID_NAMESPACE, json.dumps([index, dict(metadata), geometry], sort_keys=True))),
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


def _clean(polygon_l0: BaseGeometry, offset_l0: Point) -> Polygon | MultiPolygon | None:
    """Move, round, then make valid; only polygons of some area are kept."""
    moved = shapely.transform(polygon_l0, lambda points: points - np.array([offset_l0.x, offset_l0.y]))
    # make_valid first: set_precision needs valid input, and gives valid output on the grid.
    rounded = shapely.set_precision(shapely.make_valid(moved), _PRECISION_PX)
    parts = [part for part in _polygons(rounded) if part.area >= _MIN_PART_AREA_PX2]
    if not parts:
        return None
    parts = [shapely.geometry.polygon.orient(_exact(part)) for part in parts]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _exact(polygon: Polygon) -> Polygon:
    """The shortest decimals of the rounded points: 1234.56, not 1234.5600000000001."""
    return shapely.set_precision(shapely.transform(polygon, lambda points: points.round(2)), 0)


def _polygons(geometry: BaseGeometry) -> Iterator[Polygon]:
    if isinstance(geometry, Polygon):
        yield geometry
    for part in getattr(geometry, "geoms", []):
        yield from _polygons(part)
