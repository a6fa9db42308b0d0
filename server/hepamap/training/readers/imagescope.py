"""Aperio ImageScope's XML: layers of regions in level-0 px; a negative region is a hole in its layer.

The class is the layer's name, else its description, else the region's text.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry import Point, Polygon
from shapely.geometry.base import BaseGeometry

from hepamap.training.readers.drawn import AnnotationFile, Collector
from hepamap.training.readers.xml_file import parse, points

VIEWER = "ImageScope"
ROOT = "Annotations"

_FREEHAND, _RECTANGLE, _ELLIPSE = "0", "1", "2"
_NOT_AREAS = {"3": "arrow", "4": "ruler", "5": "pointer"}
_QUARTER_SEGMENTS = 32


def read_imagescope(data: bytes, name: str) -> AnnotationFile:
    """Read ImageScope's annotations.

    Args:
        data: the file's content.
        name: the file's name, for messages.

    Raises:
        AnnotationInvalidError: it is no such file.
    """
    root = parse(data, name, VIEWER)
    collector = Collector(name, VIEWER)
    for layer in root.iterfind("Annotation"):
        _take_layer(layer, collector)
    return collector.file("level0")


def _take_layer(layer: Element, collector: Collector) -> None:
    drawn: list[tuple[Element, BaseGeometry]] = []
    for region in layer.iterfind("Regions/Region"):
        kind = region.get("Type") or _FREEHAND
        corners = points(region.iterfind("Vertices/Vertex"), collector)
        if kind in _NOT_AREAS:
            collector.ignore(f"{_NOT_AREAS[kind]}, not an area")
        elif len(corners) < (3 if kind == _FREEHAND else 2):
            collector.ignore("without area")
        else:
            drawn.append((region, _shape(kind, corners)))
    holes = shapely.union_all([shapely.make_valid(shape) for region, shape in drawn if _is_hole(region)])
    for region, shape in drawn:
        if not _is_hole(region):
            collector.add(_class_name(layer, region), shape, holes)


def _shape(kind: str, corners: list[tuple[float, float]]) -> BaseGeometry:
    if kind == _ELLIPSE or len(corners) == 2:
        (left, top), (right, bottom) = np.min(corners, axis=0), np.max(corners, axis=0)
        if kind == _RECTANGLE:
            return Polygon([(left, top), (right, top), (right, bottom), (left, bottom)])
        circle = Point((left + right) / 2, (top + bottom) / 2).buffer(1, quad_segs=_QUARTER_SEGMENTS)
        ellipse: BaseGeometry = affinity.scale(circle, (right - left) / 2, (bottom - top) / 2)
        return ellipse
    return Polygon(corners)


def _is_hole(region: Element) -> bool:
    return region.get("NegativeROA") == "1"


def _class_name(layer: Element, region: Element) -> str | None:
    described = (
        attribute.get("Value")
        for attribute in layer.iterfind("Attributes/Attribute")
        if (attribute.get("Name") or "").lower() == "description"
    )
    for name in (layer.get("Name"), *described, region.get("Text")):
        if name and name.strip():
            return name.strip()
    return None
