"""What was annotated on a slide, as areas in level-0 px."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from hepamap.slide import Slide
from hepamap.training.annotations import (
    DEFAULT_CLASSES,
    AnnotationFile,
    ClassMap,
    LabelledAreas,
    areas_by_meaning,
    read_annotations,
)
from hepamap.training.cohort import CohortSlide


@dataclass(frozen=True, slots=True)
class SlideAreas:
    """Tumour and non-tumour on one slide, level-0 px, and what they were made from."""

    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    file: AnnotationFile
    drawn: LabelledAreas
    """As in the file, in the file's own frame."""


def labelled_areas(slide: Slide, row: CohortSlide, classes: ClassMap = DEFAULT_CLASSES) -> SlideAreas:
    """Read the annotations of a slide and bring them into level-0 px.

    Args:
        slide: the open slide.
        row: its row in the cohort's table: annotations, their frame, and what unannotated tissue means.
        classes: which names mean tumour, which non-tumour.

    Raises:
        AnnotationError: the file cannot be read.
    """
    file = read_annotations(row.annotations)
    drawn = areas_by_meaning(file.annotations, classes)
    bounds = slide.bounds_l0
    # QuPath shows a slide cropped to its bounds and counts from their corner.
    offset = np.array((bounds.x, bounds.y) if row.frame == "qupath" else (0.0, 0.0))
    tumour, non_tumour, left_out = (
        shapely.transform(area, lambda points: points + offset)
        for area in (drawn.tumour_l0, drawn.non_tumour_l0, drawn.left_out_l0)
    )
    if row.unannotated == "non_tumour":
        whole = shapely.box(bounds.x, bounds.y, bounds.right, bounds.bottom)
        non_tumour = whole.difference(tumour).difference(left_out)
    return SlideAreas(tumour, non_tumour, file, drawn)
