"""What a reader must know of a slide's annotations before trusting what was made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hepamap.training.areas import SlideAreas, areas_of
from hepamap.training.class_map import ClassMap
from hepamap.training.cohort import CohortSlide


def remarks_on(rows: Iterable[CohortSlide], classes: ClassMap) -> list[str]:
    """Read the annotations of slides and say what of them was ignored or changed.

    Raises:
        SlideError, AnnotationError: a slide, or what was drawn on it, cannot be used.
    """
    return [sentence for row in rows for sentence in remarks_of(row.slide.stem, areas_of(row, classes))]


def remarks_of(slide: str, areas: SlideAreas) -> list[str]:
    """The same of annotations that were read already."""
    return annotation_remarks(
        slide,
        classes=areas.ignored_classes,
        objects=areas.file.ignored,
        repaired=areas.file.repaired,
        conflict_mm2=areas.conflict_mm2,
    )


def annotation_remarks(
    slide: str, *, classes: Mapping[str, int], objects: Mapping[str, int], repaired: int, conflict_mm2: float
) -> list[str]:
    """Say what was ignored or changed.

    Args:
        slide: its name.
        classes: annotations of no known class, by name.
        objects: objects that are no areas, by kind.
        repaired: polygons that crossed themselves.
        conflict_mm2: area drawn as both classes.
    """
    said = [f"{slide}: {count} annotations of class “{kind}” were left out." for kind, count in classes.items()]
    said += [f"{slide}: {count} objects were left out ({kind})." for kind, count in objects.items()]
    if repaired:
        said.append(f"{slide}: {repaired} polygons crossed themselves and were repaired.")
    if conflict_mm2:
        said.append(f"{slide}: {conflict_mm2:.4g} mm² are drawn as both classes and were left out.")
    return said
