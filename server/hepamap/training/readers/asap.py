"""ASAP's XML: polygons in level-0 px, each part of a group; the class is the group's name, or the object's own."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from hepamap.training.readers.drawn import AnnotationFile, Collector
from hepamap.training.readers.xml_file import parse, points

VIEWER = "ASAP"
ROOT = "ASAP_Annotations"

_AREAS = ("polygon", "rectangle", "spline")  # a spline is taken as the polygon through its points
_NO_GROUP = ("", "none")


def read_asap(data: bytes, name: str) -> AnnotationFile:
    """Read ASAP's annotations.

    Args:
        data: the file's content.
        name: the file's name, for messages.

    Raises:
        AnnotationInvalidError: it is no such file.
    """
    root = parse(data, name, VIEWER)
    collector = Collector(name, VIEWER)
    for annotation in root.iterfind("Annotations/Annotation"):
        kind = (annotation.get("Type") or "").strip()
        if kind.lower() in _AREAS:
            corners = sorted(annotation.iterfind("Coordinates/Coordinate"), key=_order)
            collector.add_ring(_class_name(annotation), points(corners, collector))
        else:
            collector.ignore(f"{kind or 'no type'}, not an area")
    return collector.file("level0")


def _order(coordinate: Element) -> int:
    text = coordinate.get("Order") or ""
    return int(text) if text.isdecimal() else 0


def _class_name(annotation: Element) -> str | None:
    group = (annotation.get("PartOfGroup") or "").strip()
    return group if group.lower() not in _NO_GROUP else (annotation.get("Name") or "").strip() or None
