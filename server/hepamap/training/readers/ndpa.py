"""NDP.view's .ndpa: one `ndpviewstate` for each object, coordinates in nanometres from the middle of the glass slide.

The class is the object's title (or its details, where it has none).
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from shapely.geometry import Point

from hepamap.training.readers.drawn import AnnotationFile, Collector
from hepamap.training.readers.xml_file import number, parse, text_of

VIEWER = "NDP.view 2 (the .ndpa file beside the .ndpi)"
_QUARTER_SEGMENTS = 32  # a circle becomes 128 corners


def read_ndpa(data: bytes, name: str) -> AnnotationFile:
    """Read NDP.view's annotations.

    Args:
        data: the file's content.
        name: the file's name, for messages.

    Raises:
        AnnotationInvalidError: it is no such file, or its coordinates are in no nanometres.
    """
    root = parse(data, name, VIEWER)
    collector = Collector(name, VIEWER)
    if root.tag != "annotations":
        raise collector.invalid(f"begins with <{root.tag}> where NDP.view writes <annotations>")
    for state in root.iter("ndpviewstate"):
        _take(state, collector)
    return collector.file("slide_centre_nm")


def _take(state: Element, collector: Collector) -> None:
    unit = text_of(state, "coordformat") or "nanometers"
    if unit != "nanometers":
        raise collector.invalid(f"has coordinates in {unit}; NDP.view writes nanometers")
    class_name = text_of(state, "title") or text_of(state, "details") or None
    shape = state.find("annotation")
    if shape is None:
        collector.ignore("no shape")
    elif shape.find("pointlist") is not None:
        found = shape.iterfind("pointlist/point")
        corners = [(number(point.findtext("x"), collector), number(point.findtext("y"), collector)) for point in found]
        if text_of(shape, "closed") == "0":
            collector.ignore_line(corners)
        else:
            collector.add_ring(class_name, corners)
    elif shape.get("type") == "circle":
        x, y, radius = (number(shape.findtext(key), collector) for key in ("x", "y", "radius"))
        collector.add(class_name, Point(x, y).buffer(abs(radius), quad_segs=_QUARTER_SEGMENTS))
    else:
        collector.ignore(f"{shape.get('type') or 'unknown shape'}, not an area")
