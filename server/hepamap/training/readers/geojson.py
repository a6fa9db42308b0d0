"""QuPath's GeoJSON, in every form that its versions wrote.

A FeatureCollection, a bare list, one feature; the class as an object with name or names, as a plain string, or none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from shapely.errors import ShapelyError
from shapely.geometry import LineString, shape
from shapely.geometry.base import BaseGeometry

from hepamap.training.readers.drawn import AnnotationFile, Collector

_READ = ("Polygon", "MultiPolygon", "LineString")
_NOT_ANNOTATIONS = ("cell", "detection", "root", "tile", "tmaCore")


def read_geojson(data: bytes, name: str) -> AnnotationFile:
    """Read QuPath's GeoJSON.

    Args:
        data: the file's content.
        name: the file's name, for messages.

    Raises:
        AnnotationInvalidError: it is no GeoJSON as QuPath writes it.
    """
    collector = Collector(name, "QuPath as GeoJSON (File > Export objects as GeoJSON)")
    for feature in _features(data, collector):
        reason = _reason_to_ignore(feature)
        if reason is None:
            drawn = _geometry(feature["geometry"], collector)
            if isinstance(drawn, LineString):
                collector.ignore_line([(point[0], point[1]) for point in drawn.coords])
            else:
                collector.add(_class_name(feature.get("properties") or {}), drawn)
        else:
            collector.ignore(reason)
    return collector.file("table")


def _features(data: bytes, collector: Collector) -> list[Mapping[str, Any]]:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise collector.invalid("is not a text file in UTF-8") from error
    except ValueError as error:
        raise collector.invalid(f"is no JSON ({error})") from error
    if isinstance(content, dict):
        content = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list):
        raise collector.invalid("holds no list of features")
    for feature in content:
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            kind = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise collector.invalid(f"is not GeoJSON as QuPath writes it: it holds a “{kind}” where a Feature should stand")
        if not isinstance(feature.get("properties") or {}, dict):
            raise collector.invalid("has a feature whose properties are no object")
    return content


def _reason_to_ignore(feature: Mapping[str, Any]) -> str | None:
    properties = feature.get("properties") or {}
    # Older versions wrote "object_type" or kept the kind in the feature's id ("PathDetectionObject").
    kind = str(properties.get("objectType") or properties.get("object_type") or "annotation")
    if kind in _NOT_ANNOTATIONS or feature.get("id") in ("PathDetectionObject", "PathCellObject", "PathTileObject"):
        return f"{kind if kind != 'annotation' else 'detection'} object"
    geometry = feature.get("geometry") or {}
    geometry_kind = geometry.get("type") if isinstance(geometry, dict) else None
    return None if geometry_kind in _READ else f"{geometry_kind or 'no geometry'}, not an area"


def _class_name(properties: Mapping[str, Any]) -> str | None:
    """The class in any of QuPath's spellings; where there is none, the object's own name."""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else classification.get("name")
    chosen = classification or properties.get("name")
    return str(chosen).strip() or None if chosen is not None else None


def _geometry(geometry: Mapping[str, Any], collector: Collector) -> BaseGeometry:
    try:
        # QuPath adds members of its own ("plane", "isEllipse"): only type and coordinates matter.
        with np.errstate(invalid="ignore"):  # NaN is refused by the collector, in our words
            return shape({"type": geometry["type"], "coordinates": geometry["coordinates"]})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ShapelyError) as error:
        raise collector.invalid(f"has a {geometry.get('type')} with unreadable coordinates") from error
