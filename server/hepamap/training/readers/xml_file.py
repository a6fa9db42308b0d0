"""XML as annotation files have it: parsed without ever expanding an entity."""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree.ElementTree import Element, ParseError, fromstring

from hepamap.training.readers.drawn import Collector, invalid


def parse(data: bytes, name: str, viewer: str) -> Element:
    """The root element.

    Raises:
        AnnotationInvalidError: it is no XML, or declares a document type (entities can blow up to any size; no viewer
            writes them).
    """
    if b"<!DOCTYPE" in data.replace(b"\0", b""):  # the zeros of UTF-16
        raise invalid(name, viewer, "declares a document type, which no viewer writes")
    try:
        return fromstring(data)
    except (ParseError, ValueError, LookupError) as error:
        raise invalid(name, viewer, f"is no XML ({error})") from error


def text_of(element: Element, path: str) -> str:
    """Text of a child, or an empty string."""
    return (element.findtext(path) or "").strip()


def number(text: str | None, collector: Collector) -> float:
    """A coordinate."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise collector.invalid(f"says “{text}” where a coordinate should stand")
    return value


def points(elements: Iterable[Element], collector: Collector) -> list[tuple[float, float]]:
    """Points of elements with the attributes X and Y."""
    return [(number(element.get("X"), collector), number(element.get("Y"), collector)) for element in elements]
