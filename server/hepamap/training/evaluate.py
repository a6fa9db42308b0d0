"""A map beside the truth of its slide: overlap, hit rates, displacement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from sklearn.metrics import roc_auc_score

from hepamap.geometry import Lattice
from hepamap.pipeline import regions_of
from hepamap.plausibility import NOT_EVALUABLE
from hepamap.probability_map import ProbabilityMap
from hepamap.results import StoredResult
from hepamap.training.agreement import Shift, best_shift, intersection_over_union
from hepamap.training.annotations import read_annotations
from hepamap.training.areas import SlideAreas, areas_of, require_known_classes
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap, areas_by_meaning
from hepamap.training.cohort import CohortSlide
from hepamap.training.errors import AnnotationInvalidError
from hepamap.training.evaluation.truth import patch_labels

__all__ = ["Judged", "SlideScore", "compare", "judge_areas", "judge_map", "markdown_table", "patch_labels"]


@dataclass(frozen=True, slots=True)
class SlideScore:
    """What one model reached on one slide; where that is not evaluable, nothing was found and there is nothing to score."""

    slide: str
    mpp: float
    """Pixel size of the slide, µm."""
    model: str
    iou: float
    """Contours against true outlines; NaN where there is no true tumour."""
    sensitivity: float
    specificity: float
    auc: float
    """Over the patches of the slide; NaN where it has one class only."""
    shift: Shift | None
    tumour_true_mm2: float
    tumour_found_mm2: float | None
    """None where the slide is not evaluable: 0 would be a finding."""
    seconds: float

    @property
    def is_evaluable(self) -> bool:
        """Whether there are contours to score, be there none."""
        return self.tumour_found_mm2 is not None

    @property
    def known_iou(self) -> float | None:
        """`iou`, for JSON and tables, which have no NaN."""
        return None if math.isnan(self.iou) else self.iou


@dataclass(frozen=True, slots=True)
class Judged:
    """A map beside the truth."""

    score: SlideScore
    map: ProbabilityMap
    found_l0: BaseGeometry | None
    """The contours; None where the slide is not evaluable."""
    truth: NDArray[np.bool_]
    """(N,) of the patches that have both a label and a probability: whether tumour; none where the slide is not evaluable."""
    answer: NDArray[np.float32]
    """(N,) their probabilities."""


def judge_map(
    row: CohortSlide,
    model: str,
    probability_map: ProbabilityMap,
    parameters: Mapping[str, Any],
    outcome: str,
    seconds: float,
    classes: ClassMap = DEFAULT_CLASSES,
) -> Judged:
    """Compare a map with a slide's annotations.

    Args:
        row: the slide and its annotations.
        model: name for the score.
        probability_map: the map.
        parameters: `threshold`, `min_area_um2`, `min_hole_area_um2` of the contours.
        outcome: of the run; what is not evaluable has no contours, and so no figures.
        seconds: for the score.
        classes: what the class names of the annotations mean.
    """
    return judge_areas(row.slide.stem, areas_of(row, classes), model, probability_map, parameters, outcome, seconds)


def judge_areas(
    slide: str,
    areas: SlideAreas,
    model: str,
    probability_map: ProbabilityMap,
    parameters: Mapping[str, Any],
    outcome: str,
    seconds: float,
) -> Judged:
    """Compare a map with annotations that were read already; else as `judge_map`."""
    um2_per_px = probability_map.lattice.grid.pixel_size.area_um2
    threshold = parameters["threshold"]
    found = _contours(probability_map, parameters, outcome)
    if found is None:
        truth, answer = np.zeros(0, np.bool_), np.zeros(0, np.float32)
    else:
        labels = patch_labels(areas.tumour_l0, shapely.union(areas.tumour_l0, areas.non_tumour_l0), probability_map.lattice)
        truth, answer = _known(labels, probability_map.values)
    iou, shift = _agreement(found, areas.tumour_l0, probability_map.lattice)
    score = SlideScore(
        slide=slide,
        mpp=probability_map.lattice.grid.pixel_size.x_um,
        model=model,
        iou=math.nan if iou is None else iou,
        sensitivity=_rate(answer[truth] >= threshold),
        specificity=_rate(answer[~truth] < threshold),
        auc=float(roc_auc_score(truth, answer)) if 0 < truth.sum() < len(truth) else float("nan"),
        shift=shift,
        tumour_true_mm2=areas.tumour_l0.area * um2_per_px / 1e6,
        tumour_found_mm2=None if found is None else found.area * um2_per_px / 1e6,
        seconds=seconds,
    )
    return Judged(score, probability_map, found, truth, answer)


def compare(stored: StoredResult, annotations: Path, classes: ClassMap = DEFAULT_CLASSES) -> tuple[float | None, Shift | None]:
    """Compare the contours of a result with annotations of its slide, drawn in the frame that the contours are in.

    Args:
        stored: the result.
        annotations: the file.
        classes: what its class names mean.

    Returns:
        Intersection over union of the tumour areas, and the displacement. There is none of either where no tumour is
        annotated, or the result is not evaluable.

    Raises:
        AnnotationError: the annotations cannot be read, or none of their classes is known.
    """
    file = read_annotations(annotations)
    if file.frame == "slide_centre_nm":
        raise AnnotationInvalidError(
            f"The places in {annotations.name} can be told with the slide only.", cure="Use `hepamap evaluate`, or give GeoJSON."
        )
    drawn = areas_by_meaning(file.annotations, classes)
    require_known_classes(annotations.name, file, drawn)
    corner = stored.frame.offset_l0
    offset = np.array([corner.x, corner.y] if file.frame == "table" else [0.0, 0.0])
    truth_l0 = shapely.transform(drawn.tumour, lambda points: points + offset)
    found_l0 = _contours(stored.map, stored.summary["parameters"], stored.summary["outcome"])
    return _agreement(found_l0, truth_l0, stored.map.lattice)


def markdown_table(scores: Sequence[SlideScore]) -> str:
    """Scores as a Markdown table, a row for each slide and model, and the mean displacement below it."""
    lines = [
        "| slide | µm/px | model | IoU | AUC | sensitivity | specificity | shift x, y (cells) | tumour true / found (mm²) | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in scores:
        shift = "none" if row.shift is None else f"{row.shift.x_cell:+.2f}, {row.shift.y_cell:+.2f}"
        found = "not evaluable" if row.tumour_found_mm2 is None else f"{row.tumour_found_mm2:.2f}"
        lines.append(
            f"| {row.slide} | {row.mpp:.4g} | {row.model} | {_text(row.iou)} | {_text(row.auc)} | {_text(row.sensitivity)} | "
            f"{_text(row.specificity)} | {shift} | {row.tumour_true_mm2:.2f} / {found} | {row.seconds:.0f} |"
        )
    shifts = [row.shift for row in scores if row.shift is not None]
    if shifts:
        x_cell, y_cell = (float(np.mean(values)) for values in zip(*[(s.x_cell, s.y_cell) for s in shifts], strict=True))
        lines += ["", f"Mean displacement: {x_cell:+.2f}, {y_cell:+.2f} cells."]
    return "\n".join(lines) + "\n"


def _contours(probability_map: ProbabilityMap, parameters: Mapping[str, Any], outcome: str) -> BaseGeometry | None:
    """The tumour area at the threshold of a run, level-0 px; None, and not empty, where it is not evaluable."""
    if outcome == NOT_EVALUABLE:
        return None
    regions = regions_of(probability_map, parameters["threshold"], parameters["min_area_um2"], parameters["min_hole_area_um2"])
    return shapely.union_all([region.polygon_l0 for region in regions])


def _agreement(found_l0: BaseGeometry | None, truth_l0: BaseGeometry, lattice: Lattice) -> tuple[float | None, Shift | None]:
    """Overlap and displacement; without true tumour there is none: all or nothing by one false region would drown the others."""
    if found_l0 is None or truth_l0.is_empty:
        return None, None
    return intersection_over_union(found_l0, truth_l0), best_shift(found_l0, truth_l0, lattice)


def _known(labels: NDArray[np.int8], values: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels and probabilities of the patches that have both."""
    known = np.isfinite(values) & (labels >= 0)
    return labels[known] == 1, values[known]


def _rate(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else float("nan")


def _text(value: float) -> str:
    """A figure that is undefined, as with one class only, is a dash."""
    return "–" if math.isnan(value) else f"{value:.3f}"
