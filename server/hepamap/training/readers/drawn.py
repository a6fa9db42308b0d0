"""What every reader gives: areas with a class name, and a count of what was no area."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from hepamap.regions import polygonal
from hepamap.training.errors import AnnotationInvalidError

Frame = Literal["table", "level0", "slide_centre_nm"]
"""Where coordinates count from.

- table: level-0 px, from the corner that the cohort's table says (QuPath's bounds, or level 0).
- level0: level-0 px from the corner of level 0, whatever the table says.
- slide_centre_nm: nanometres from the middle of the glass slide (NDP.view).
"""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One drawn area."""

    class_name: str | None
    """As the file says; None where the object has neither a class nor a name."""
    polygon: BaseGeometry
    """Valid polygon or multipolygon in the file's frame."""


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """What one file held."""

    annotations: tuple[Annotation, ...]
    repaired: int = 0
    """Polygons that crossed themselves and were made valid."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Objects passed over, by reason."""
    frame: Frame = "table"
    enclosed: BaseGeometry = field(default_factory=Polygon)
    """What open lines go around, in the file's frame: an outline may be meant that nobody closed, and nobody can say."""


class Collector:
    """Takes what a reader finds, one object after the other."""

    def __init__(self, name: str, viewer: str) -> None:
        self._name, self._viewer = name, viewer
        self._annotations: list[Annotation] = []
        self._ignored: Counter[str] = Counter()
        self._repaired = 0
        self._enclosed: list[BaseGeometry] = []

    def add(self, class_name: str | None, geometry: BaseGeometry, holes: BaseGeometry | None = None) -> None:
        """Take a polygon or multipolygon, less its holes; repairs it, refuses coordinates that are no numbers."""
        if not np.isfinite(shapely.get_coordinates(geometry)).all():
            raise self.invalid(f"has a {geometry.geom_type} with coordinates that are no numbers")
        polygon = polygonal(geometry if geometry.is_valid else shapely.make_valid(geometry))
        if holes is not None:
            polygon = polygonal(polygon.difference(holes))
        if polygon.is_empty:
            self.ignore("without area")
            return
        self._repaired += not geometry.is_valid
        self._annotations.append(Annotation(class_name, polygon))

    def add_ring(self, class_name: str | None, points: Sequence[tuple[float, float]]) -> None:
        """Take the outline of an area; fewer than three points enclose none."""
        if len(points) < 3:
            self.ignore("without area")
        else:
            self.add(class_name, Polygon(points))

    def ignore_line(self, points: Sequence[tuple[float, float]]) -> None:
        """Count an open line that is passed over, and remember what it goes around."""
        self.ignore("open line, not an area")
        if len(points) > 2 and np.isfinite(points).all():
            self._enclosed.append(polygonal(shapely.make_valid(Polygon(points))))

    def ignore(self, reason: str) -> None:
        """Count an object that is passed over."""
        self._ignored[reason] += 1

    def file(self, frame: Frame) -> AnnotationFile:
        """All that was taken."""
        ignored = dict(sorted(self._ignored.items()))
        return AnnotationFile(tuple(self._annotations), self._repaired, ignored, frame, shapely.union_all(self._enclosed))

    def invalid(self, what: str) -> AnnotationInvalidError:
        """The error for a file that is not what it should be."""
        return invalid(self._name, self._viewer, what)


def invalid(name: str, viewer: str, what: str) -> AnnotationInvalidError:
    """The error for a file that is not what it should be."""
    return AnnotationInvalidError(f"The annotation file {name} {what}.", cure=f"Export the annotations again from {viewer}.")
