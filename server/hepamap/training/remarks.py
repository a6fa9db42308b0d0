"""What a reader must know of a slide's annotations before trusting what was made of them."""

from __future__ import annotations

from collections.abc import Mapping


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
