"""Annotations: what a pathologist drew, as (class name, polygon) in level-0 px.

A reader turns one file format into `AnnotationFile`; the rest of training knows no format. QuPath's GeoJSON is read in
every form that its versions wrote: a FeatureCollection, a bare list, one feature; the class as an object with name or
names, as a plain string, or none. Readers for NDP.view, ASAP and ImageScope belong beside `read_geojson`, in `_READERS`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from hepamap.training.errors import AnnotationInvalidError, AnnotationNotFoundError

_NOT_ANNOTATIONS = ("cell", "detection", "root", "tile", "tmaCore")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One drawn area."""

    class_name: str | None
    """As the file says; None where the object has neither a class nor a name."""
    polygon_l0: BaseGeometry
    """Valid polygon or multipolygon, level-0 px of the frame that the file was drawn in."""


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """What one file held."""

    annotations: tuple[Annotation, ...]
    repaired: int = 0
    """Polygons that crossed themselves and were made valid."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Objects passed over, by reason."""


def read_annotations(path: Path) -> AnnotationFile:
    """Read an annotation file; its format goes by its ending.

    Raises:
        AnnotationNotFoundError: there is no such file, or it cannot be read.
        AnnotationInvalidError: the content is not what the ending says.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise AnnotationInvalidError(
            f"Annotations of the kind “{path.suffix or 'without ending'}” cannot be read ({path.name}).",
            cure="Export them from QuPath as GeoJSON (File > Export objects as GeoJSON).",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnnotationNotFoundError(
            f"The annotation file {path.name} cannot be read ({error.strerror}).",
            cure="Check the path; in a cohort table it is relative to the table's folder.",
        ) from error
    except UnicodeDecodeError as error:
        raise _invalid(path.name, "is not a text file in UTF-8") from error
    return reader(text, path.name)


def read_geojson(text: str, name: str) -> AnnotationFile:
    """Read QuPath's GeoJSON.

    Args:
        text: the file's content.
        name: the file's name, for messages.
    """
    annotations: list[Annotation] = []
    ignored: Counter[str] = Counter()
    repaired = 0
    for feature in _features(text, name):
        reason = _reason_to_ignore(feature)
        if reason is not None:
            ignored[reason] += 1
            continue
        polygon, was_valid = _polygon(feature["geometry"], name)
        if polygon.is_empty:
            ignored["without area"] += 1
            continue
        repaired += not was_valid
        annotations.append(Annotation(_class_name(feature.get("properties") or {}), polygon))
    return AnnotationFile(tuple(annotations), repaired, dict(sorted(ignored.items())))


def _invalid(name: str, what: str) -> AnnotationInvalidError:
    return AnnotationInvalidError(
        f"The annotation file {name} {what}.", cure="Export the annotations again from QuPath as GeoJSON."
    )


def _features(text: str, name: str) -> list[Mapping[str, Any]]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _invalid(name, f"is no JSON ({error})") from error
    if isinstance(data, dict):
        data = data.get("features") if data.get("type") == "FeatureCollection" else [data]
    if not isinstance(data, list):
        raise _invalid(name, "holds no list of features")
    for feature in data:
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            kind = feature.get("type") if isinstance(feature, dict) else type(feature).__name__
            raise _invalid(name, f"is not GeoJSON as QuPath writes it: it holds a “{kind}” where a Feature should stand")
        if not isinstance(feature.get("properties") or {}, dict):
            raise _invalid(name, "has a feature whose properties are no object")
    return data


def _reason_to_ignore(feature: Mapping[str, Any]) -> str | None:
    properties = feature.get("properties") or {}
    # Older versions wrote "object_type" or kept the kind in the feature's id ("PathDetectionObject").
    kind = str(properties.get("objectType") or properties.get("object_type") or "annotation")
    if kind in _NOT_ANNOTATIONS or feature.get("id") in ("PathDetectionObject", "PathCellObject", "PathTileObject"):
        return f"{kind if kind != 'annotation' else 'detection'} object"
    geometry = feature.get("geometry") or {}
    geometry_kind = geometry.get("type") if isinstance(geometry, dict) else None
    return None if geometry_kind in ("Polygon", "MultiPolygon") else f"{geometry_kind or 'no geometry'}, not an area"


def _class_name(properties: Mapping[str, Any]) -> str | None:
    """The class in any of QuPath's spellings; where there is none, the object's own name."""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = ": ".join(map(str, names)) if isinstance(names, list) else classification.get("name")
    chosen = classification or properties.get("name")
    return str(chosen).strip() or None if chosen is not None else None


def _polygon(geometry: Mapping[str, Any], name: str) -> tuple[BaseGeometry, bool]:
    """The valid polygonal part of a geometry, and whether it was valid as it stood."""
    try:
        # QuPath adds members of its own ("plane", "isEllipse"): only type and coordinates matter.
        with np.errstate(invalid="ignore"):  # NaN is refused below, in our words
            drawn = shape({"type": geometry["type"], "coordinates": geometry["coordinates"]})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ShapelyError) as error:
        raise _invalid(name, f"has a {geometry.get('type')} with unreadable coordinates") from error
    if not np.isfinite(shapely.get_coordinates(drawn)).all():
        raise _invalid(name, f"has a {geometry.get('type')} with coordinates that are no numbers")
    return polygonal(drawn if drawn.is_valid else shapely.make_valid(drawn)), bool(drawn.is_valid)


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The parts of a geometry that have an area (make_valid and intersections leave lines and points behind)."""
    parts = [part for part in shapely.get_parts(geometry, return_index=False) if isinstance(part, Polygon | MultiPolygon)]
    return shapely.union_all([part for part in parts if part.area > 0])


def _normalised(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which class names mean tumour, non-tumour, or “leave this area out”; letter case, - and _ do not matter."""

    tumour: frozenset[str]
    non_tumour: frozenset[str]
    excluded: frozenset[str]

    @classmethod
    def of(cls, tumour: Iterable[str], non_tumour: Iterable[str], excluded: Iterable[str] = ()) -> ClassMap:
        """Build it from names as people write them."""
        return cls(*(frozenset(map(_normalised, names)) for names in (tumour, non_tumour, excluded)))

    def meaning(self, class_name: str | None) -> str | None:
        """`tumour`, `non_tumour`, `excluded`, or None where the name is none of them.

        A derived class such as “Tumor: Positive” means what its first part means, unless it is named itself.
        """
        if class_name is None:
            return None
        for name in (_normalised(class_name), _normalised(class_name.split(":")[0])):
            for meaning in ("tumour", "non_tumour", "excluded"):
                if name in getattr(self, meaning):
                    return meaning
        return None


DEFAULT_CLASSES = ClassMap.of(
    tumour=("Tumor", "Tumour", "Tumeur", "HCC", "CHC", "Carcinoma", "Hepatocellular carcinoma", "Malignant"),
    non_tumour=(
        *("Non-tumor", "Non-tumour", "Non tumoral", "Non-tumoral", "Nontumor", "Nontumour", "Non-tumeur", "Not tumor"),
        *("Normal", "Normal liver", "Liver", "Benign", "Parenchyma", "Foie"),
    ),
    excluded=("Ignore*", "Ignore", "Exclude", "Excluded", "Artefact", "Artifact"),
)


@dataclass(frozen=True, slots=True)
class LabelledAreas:
    """The areas of a slide by meaning, level-0 px; they do not overlap."""

    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    left_out_l0: BaseGeometry
    """Excluded by the annotator, or drawn as both classes."""
    conflict_area_l0: float
    """Area drawn as both, in level-0 px²: belongs to neither."""
    ignored: dict[str, int]
    """Annotations of no known class, by name."""


def areas_by_meaning(annotations: Iterable[Annotation], classes: ClassMap = DEFAULT_CLASSES) -> LabelledAreas:
    """Unite annotations by what their class means.

    An area drawn as both tumour and non-tumour belongs to neither, because nobody can say which was meant.
    """
    drawn: dict[str, list[BaseGeometry]] = {"tumour": [], "non_tumour": [], "excluded": []}
    ignored: Counter[str] = Counter()
    for annotation in annotations:
        meaning = classes.meaning(annotation.class_name)
        if meaning is None:
            ignored[annotation.class_name or "no class"] += 1
        else:
            drawn[meaning].append(annotation.polygon_l0)
    tumour, non_tumour, excluded = (shapely.union_all(drawn[key]) for key in ("tumour", "non_tumour", "excluded"))
    conflict = tumour.intersection(non_tumour)
    left_out = shapely.union_all([excluded, conflict])
    return LabelledAreas(
        polygonal(tumour.difference(left_out)),
        polygonal(non_tumour.difference(left_out)),
        polygonal(left_out),
        float(conflict.area),
        dict(sorted(ignored.items())),
    )


_READERS: dict[str, Callable[[str, str], AnnotationFile]] = {".geojson": read_geojson, ".json": read_geojson}
