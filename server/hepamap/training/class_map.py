"""What class names mean, and areas united by meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import shapely
from shapely.geometry.base import BaseGeometry

from hepamap.regions import polygonal
from hepamap.training.readers.drawn import Annotation


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

    def with_names(
        self, tumour: Iterable[str] | None = None, non_tumour: Iterable[str] | None = None, excluded: Iterable[str] | None = None
    ) -> ClassMap:
        """The same, but with other names where some are given; a name means what it was given for last."""
        given = [frozenset(map(_normalised, names or ())) for names in (tumour, non_tumour, excluded)]
        own = (self.tumour, self.non_tumour, self.excluded)
        named = frozenset().union(*given)
        return ClassMap(*(names or known - named for names, known in zip(given, own, strict=True)))

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
class DrawnAreas:
    """The areas of a file by meaning, in one frame; they do not overlap."""

    tumour: BaseGeometry
    non_tumour: BaseGeometry
    left_out: BaseGeometry
    """Excluded by the annotator, or drawn as both classes."""
    unknown: BaseGeometry
    """Of no known class: nobody said what it is. May overlap the others, which were said."""
    conflict_area: float
    """Area drawn as both, in square units of the frame: belongs to neither."""
    ignored: dict[str, int]
    """Annotations of no known class, by name."""


def areas_by_meaning(annotations: Iterable[Annotation], classes: ClassMap = DEFAULT_CLASSES) -> DrawnAreas:
    """Unite annotations by what their class means.

    An area drawn as both tumour and non-tumour belongs to neither, because nobody can say which was meant.
    """
    drawn: dict[str, list[BaseGeometry]] = {"tumour": [], "non_tumour": [], "excluded": []}
    ignored: Counter[str] = Counter()
    unknown: list[BaseGeometry] = []
    for annotation in annotations:
        meaning = classes.meaning(annotation.class_name)
        if meaning is None:
            ignored[annotation.class_name or "no class"] += 1
            unknown.append(annotation.polygon)
        else:
            drawn[meaning].append(annotation.polygon)
    tumour, non_tumour, excluded = (shapely.union_all(drawn[key]) for key in ("tumour", "non_tumour", "excluded"))
    conflict = tumour.intersection(non_tumour)
    left_out = shapely.union_all([excluded, conflict])
    return DrawnAreas(
        polygonal(tumour.difference(left_out)),
        polygonal(non_tumour.difference(left_out)),
        polygonal(left_out),
        shapely.union_all(unknown),
        float(conflict.area),
        dict(sorted(ignored.items())),
    )
