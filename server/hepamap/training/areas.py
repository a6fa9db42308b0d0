"""What was annotated on a slide, as areas in level-0 px."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.slide import Slide
from hepamap.training.annotations import read_annotations
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap, DrawnAreas, areas_by_meaning
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import (
    AnnotationInvalidError,
    AnnotationOutsideError,
    ClassesUnknownError,
)
from hepamap.training.readers.drawn import AnnotationFile

_LEAST_ON_SLIDE = 0.5  # share of what was drawn: a brush may slip over the edge, but not this far
_NAMES_SHOWN = 5

_CENTRE_KEYS = ("hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre")

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class SlideAreas:
    """Tumour and non-tumour on one slide, level-0 px, and what they were made from."""

    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    conflict_mm2: float
    """Area drawn as both classes: it belongs to neither."""
    file: AnnotationFile
    ignored_classes: dict[str, int]
    """Annotations of no known class, by name."""


def labelled_areas(slide: Slide, row: CohortSlide, classes: ClassMap = DEFAULT_CLASSES) -> SlideAreas:
    """Read the annotations of a slide and bring them into level-0 px.

    Args:
        slide: the open slide.
        row: its row in the cohort's table: annotations, their frame, and what unannotated tissue means.
        classes: which names mean tumour, which non-tumour.

    Raises:
        AnnotationError: the file cannot be read, none of its classes is known, or it belongs to another slide.
    """
    file = read_annotations(row.annotations)
    to_l0 = _to_l0(slide, row, file)
    drawn = areas_by_meaning(file.annotations, classes)
    require_known_classes(row.annotations.name, file, drawn)
    tumour, non_tumour, left_out, unknown = (
        shapely.transform(area, to_l0) for area in (drawn.tumour, drawn.non_tumour, drawn.left_out, drawn.unknown)
    )
    known_l0 = [shapely.transform(it.polygon, to_l0) for it in file.annotations if classes.meaning(it.class_name)]
    _check_place(slide, row, shapely.union_all([tumour, non_tumour]), known_l0)
    if row.unannotated == "non_tumour":
        bounds = slide.bounds_l0
        whole = shapely.box(bounds.x, bounds.y, bounds.right, bounds.bottom)
        # Somebody drew something that is not known here (“HCC grade 2”), or did not close it: it is not “everything else”.
        enclosed = shapely.transform(file.enclosed, to_l0)
        rest = whole.difference(shapely.union_all([tumour, left_out, unknown, enclosed]))
        non_tumour = shapely.union_all([rest, non_tumour])
    unit = to_l0(np.array([[0.0, 0.0], [1.0, 1.0]]))
    conflict_l0 = drawn.conflict_area * float(np.prod(unit[1] - unit[0]))
    return SlideAreas(tumour, non_tumour, conflict_l0 * slide.pixel_size.area_um2 / 1e6, file, drawn.ignored)


def areas_of(row: CohortSlide, classes: ClassMap = DEFAULT_CLASSES) -> SlideAreas:
    """As `labelled_areas`, of a slide that is not open.

    Raises:
        SlideError, AnnotationError: the slide, or what was drawn on it, cannot be used.
    """
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        return labelled_areas(slide, row, classes)


def _to_l0(slide: Slide, row: CohortSlide, file: AnnotationFile) -> Transform:
    """From the frame of an annotation file to level-0 px; points (n, 2)."""
    if file.frame == "slide_centre_nm":
        return _from_slide_centre(slide, row)
    bounds = slide.bounds_l0
    # QuPath shows a slide cropped to its bounds and counts from their corner.
    is_cropped = file.frame == "table" and row.frame == "qupath"
    offset = np.array((bounds.x, bounds.y) if is_cropped else (0.0, 0.0))
    return lambda points: np.asarray(points + offset)


def _from_slide_centre(slide: Slide, row: CohortSlide) -> Transform:
    """From nanometres off the middle of the glass, where NDP.view counts from, to level-0 px."""
    try:
        image_centre_nm = np.array([float(slide.properties[key]) for key in _CENTRE_KEYS])
    except (KeyError, ValueError) as error:
        raise AnnotationInvalidError(
            f"The slide {slide.path.name} does not say where it lies on the glass, so {row.annotations.name} cannot be placed.",
            cure="NDP.view's annotations belong to the .ndpi file; for another copy of the slide export GeoJSON from QuPath.",
        ) from error
    # What the scanner says, even where the user knows better: NDP.view's nanometres come from it too.
    size = slide.metadata_pixel_size or slide.pixel_size
    nm_per_px = 1000 * np.array([size.x_um, size.y_um])
    centre_l0 = np.array([slide.size_l0.width, slide.size_l0.height]) / 2
    return lambda points: np.asarray((points - image_centre_nm) / nm_per_px + centre_l0)


def require_known_classes(name: str, file: AnnotationFile, drawn: DrawnAreas) -> None:
    """All names unknown is a matter of spelling, and would make tumour into “everything else” where only tumour is drawn.

    Raises:
        ClassesUnknownError: there are areas in the file of this name, and nothing says what any of them is.
    """
    unknown = sum(drawn.ignored.values())
    if not unknown or unknown < len(file.annotations):
        return
    names = list(drawn.ignored)
    shown = ", ".join(f"“{known}”" for known in names[:_NAMES_SHOWN]) + (" …" if len(names) > _NAMES_SHOWN else "")
    raise ClassesUnknownError(
        f"None of the class names in {name} is known: {shown}.",
        cure="Say what they mean with --tumour-class, --non-tumour-class and --exclude-class.",
    )


def _check_place(slide: Slide, row: CohortSlide, drawn_l0: BaseGeometry, known_l0: Sequence[BaseGeometry]) -> None:
    """A brush may slip over the edge; a whole annotation beside the slide is of another slide, or in another frame."""
    whole = shapely.box(0, 0, slide.size_l0.width, slide.size_l0.height)
    outside = sum(not area.intersects(whole) for area in known_l0)
    if outside:
        what = f"{outside} of the {len(known_l0)} annotations"
    elif drawn_l0.area > 0 and drawn_l0.intersection(whole).area < _LEAST_ON_SLIDE * drawn_l0.area:
        what = "Most of what is drawn"
    else:
        return
    raise AnnotationOutsideError(
        f"{what} in {row.annotations.name} {'lie' if outside > 1 else 'lies'} outside of the slide {slide.path.name}.",
        cure="Check that they belong together, and the column “frame” of the table (qupath or level0). Delete what is a mistake.",
    )
