"""Whether shapes are ones that QuPath reads: from 0.6 on, one that is not valid makes it refuse all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

Rings = list[list[list[float]]]


def require_valid(polygons: list[Rings]) -> None:
    """Polygons of one object, each its shell and holes: neither crossing nor overlapping, holes inside, an area left.

    Raises:
        AssertionError: it is not so.
    """
    parts = [Polygon(rings[0], rings[1:]) for rings in polygons]
    whole = parts[0] if len(parts) == 1 else MultiPolygon(parts)
    assert whole.is_valid, shapely.is_valid_reason(whole)
    assert all(part.area > 0 for part in parts)
    for part in parts:
        shell = Polygon(part.exterior)
        assert all(shell.covers(Polygon(hole)) for hole in part.interiors), "a hole lies outside its shell"


def sent_shapes(body: Any) -> Iterator[list[Rings]]:
    """Regions and corrected contours in a request."""
    if not isinstance(body, Mapping):
        return
    for collection in (body.get("region"), body.get("geometry")):
        for feature in (collection or {}).get("features", ()):
            geometry = feature["geometry"]
            yield [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
