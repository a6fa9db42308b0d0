"""Whether a model may answer in dense mode: both modes on the same annotated slides, side by side.

The convolutions are the same in both; they differ in what the border of a patch sees. A network is right in dense mode
only if it was trained to be, so this is measured for each pack and stands in its manifest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from hepamap import __version__
from hepamap.detection import DEFAULT_MIN_AREA_UM2, Detector
from hepamap.errors import ModelError
from hepamap.model_pack import ModelPack, find_pack, reloaded, rewrite_manifest
from hepamap.networks.dense import can_be_dense
from hepamap.pipeline import Analysis, AnalysisParameters, Progress, analyse, ignore_progress
from hepamap.predictor import Predictor
from hepamap.slide import Slide
from hepamap.training.areas import areas_of
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import CohortSlide, read_cohort, require_own_names
from hepamap.training.evaluate import Judged, judge_map
from hepamap.training.evaluation.both_classes import require_both_classes
from hepamap.training.evaluation.errors import NothingMeasuredError, OneClassError, SplitEmptyError
from hepamap.training.model_card import rewrite_card

MODES = ("patch", "dense")
MAX_AUC_LOSS = 0.005
"""By which the AUC may be lower in dense mode, for it to be a model's default."""
MIN_CONTOUR_IOU = 0.95
"""Of the contours of both modes, for the same."""
_OTHER_MODE = "Operating points and figures of slides are of the mode"


class NoDenseModeError(ModelError):
    """The model's network has no dense mode."""

    code = "no_dense_mode"


@dataclass(slots=True)
class _Tally:
    """What both modes said of all slides so far."""

    judged: dict[str, list[Judged]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    differences: list[NDArray[np.float32]] = field(default_factory=list)
    shared_um2: float = 0.0
    united_um2: float = 0.0
    contour_iou: dict[str, float] = field(default_factory=dict)
    not_evaluable: list[str] = field(default_factory=list)
    """Slides that got no contours in one of the modes, and are left out of both."""
    precisions: list[str] = field(default_factory=list)
    """Arithmetic of the runs, each once: a network may have had to leave a GPU on the way."""
    warnings: dict[str, str] = field(default_factory=dict)
    """Of the networks, messages by code."""

    def note(self, predictor: Predictor) -> None:
        """Keep what a network ran in, and what went otherwise than the machine promised."""
        self.warnings.update(predictor.warnings)
        if predictor.policy not in self.precisions:
            self.precisions.append(predictor.policy)


@dataclass(frozen=True, slots=True)
class Validation:
    """A model in both modes."""

    pack: ModelPack
    report: dict[str, Any]
    """As the manifest holds it, under `evaluation.modes`."""

    @property
    def dense_is_as_good(self) -> bool:
        """Whether dense mode may be the default."""
        return bool(self.report["dense_may_be_default"])


def slides_of(table: Path, split: str | None) -> list[CohortSlide]:
    """The slides of a table to validate on.

    Args:
        table: a cohort's table.
        split: its name; None: `val`, because a mode that is chosen on slides is not judged on them too, or `test` in a table
            that has no `val`.

    Raises:
        CohortInvalidError: the table cannot be used.
        SplitEmptyError: it has no slide of that split.
    """
    cohort = read_cohort(table)
    there = sorted({row.split for row in cohort})
    split = split or ("val" if "val" in there else "test")
    slides = [row for row in cohort if row.split == split]
    if not slides:
        raise SplitEmptyError(
            f"The table {table.name} has no slide of the split “{split}”.", cure=f"Name one that it has: {', '.join(there)}."
        )
    return slides


def validate(
    model: str,
    slides: Sequence[CohortSlide],
    detector: Detector,
    *,
    stride_m: int | None = None,
    classes: ClassMap = DEFAULT_CLASSES,
    progress: Callable[[Progress], None] = ignore_progress,
) -> Validation:
    """Run a model in both modes on annotated slides that it was not trained on.

    Args:
        model: id or id@version.
        slides: rows of a cohort's table.
        detector: the loaded models.
        stride_m: stride, model px; None: as the model says.
        classes: what the class names of the annotations mean.
        progress: told how far the current slide is.

    Raises:
        NoDenseModeError: the network has a head that flattens.
        SplitEmptyError: there are no slides.
        CohortInvalidError: two slides have the same name.
        SlideError, AnnotationError: a slide or what was drawn on it cannot be used.
        OneClassError: on all slides together nothing is tumour, or no patch with tissue is, or the same of non-tumour.
        NothingMeasuredError: none of the slides is evaluable.
    """
    if not slides:
        raise SplitEmptyError("There is no slide to validate on.", cure="Give a table of annotated slides.")
    pack = find_pack(detector.models_dir, model)
    if not can_be_dense(pack.manifest.network.head):
        raise NoDenseModeError(
            f"The model {pack.name} has the head {pack.manifest.network.head}, which has no dense mode.",
            cure="Train a network with the GAP head.",
        )
    require_own_names(slides)
    require_both_classes([areas_of(row, classes) for row in slides], "the slides to validate on")
    tally = _Tally()
    stride_m = stride_m or pack.manifest.default_stride
    for row in slides:
        judged = {mode: _run(row, pack, detector, stride_m, mode, classes, progress, tally) for mode in MODES}
        _compare(row.slide.stem, judged, tally)
    return Validation(pack, _report(tally, stride_m))


def write_validation(validation: Validation) -> ModelPack:
    """Put a validation into the pack's manifest: dense mode is allowed, and is the default where it is as good.

    What was measured on slides in the other mode is not the default's: operating points are said to be of that mode, as the
    figures are by themselves; the calibration, which has no place to say it, goes.

    Raises:
        ModelChangedError: the pack was replaced since it was validated.
        OutputNotWritableError: no permission, or the disk is full.
    """
    manifest = reloaded(validation.pack).manifest
    evaluation = {**manifest.evaluation, "modes": validation.report}
    default = "dense" if validation.dense_is_as_good else "patch"
    changes: dict[str, Any] = {"modes": MODES, "default_mode": default}
    slides = manifest.evaluation.get("slides")
    if isinstance(slides, Mapping):
        remarks = [said for said in evaluation.get("operating_points_remarks", ()) if not said.startswith(_OTHER_MODE)]
        if slides["mode"] != default:
            remarks.append(f"{_OTHER_MODE} {slides['mode']}, which is not the default: `hepamap evaluate --write` measures anew.")
            changes["calibration"] = None
        evaluation["operating_points_remarks"] = remarks
    pack = rewrite_manifest(validation.pack, evaluation=evaluation, **changes)
    rewrite_card(pack)
    return pack


def markdown(validation: Validation) -> str:
    """The validation as a Markdown table."""
    report = validation.report
    lines = ["| mode | patch AUC | IoU with the annotations | sensitivity | specificity | s |", "|---|---|---|---|---|---|"]
    for mode in MODES:
        row = report[mode]
        numbers = " | ".join(f"{row[key]:.4f}" for key in ("auc", "iou", "sensitivity", "specificity"))
        lines.append(f"| {mode} | {numbers} | {row['seconds']:.0f} |")
    verdict = "dense mode may be the default" if validation.dense_is_as_good else "patch mode stays the default"
    return "\n".join(
        [
            *lines,
            "",
            f"{validation.pack.name}, {len(report['slides'])} slides: mean absolute difference of the maps "
            f"{report['map_mean_absolute_difference']:.4f}, IoU of the contours {report['contour_iou']:.4f} "
            f"(lowest of a slide {report['contour_iou_lowest']:.4f}): {verdict}.",
            *(f"Not evaluable, and left out: {name}." for name in report["not_evaluable"]),
            "",
        ]
    )


def _run(
    row: CohortSlide,
    pack: ModelPack,
    detector: Detector,
    stride_m: int,
    mode: str,
    classes: ClassMap,
    progress: Callable[[Progress], None],
    tally: _Tally,
) -> Judged:
    """One slide in one mode, through the pipeline that serves."""
    spec = pack.manifest
    area_um2 = DEFAULT_MIN_AREA_UM2
    parameters = AnalysisParameters(
        spec.input.mpp, spec.input.patch, stride_m, spec.default_threshold, area_um2, area_um2, mode=mode
    )

    def look(network: Predictor) -> Analysis:
        with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
            return analyse(slide, network, parameters, {}, progress=progress)

    analysis, predictor = detector.run(pack, look)
    tally.note(predictor)
    seconds = analysis.seconds["map"] + analysis.seconds["contours"]
    return judge_map(row, pack.name, analysis.map, asdict(parameters), analysis.outcome, seconds, classes)


def _compare(name: str, judged: dict[str, Judged], tally: _Tally) -> None:
    patch, dense = judged["patch"], judged["dense"]
    if patch.found_l0 is None or dense.found_l0 is None:
        tally.not_evaluable.append(name)
        return
    for mode in MODES:
        tally.judged[mode].append(judged[mode])
    known = np.isfinite(patch.map.values) & np.isfinite(dense.map.values)
    tally.differences.append(np.abs(dense.map.values[known] - patch.map.values[known]))
    um2_per_px = patch.map.lattice.grid.pixel_size.area_um2
    shared = shapely.intersection(patch.found_l0, dense.found_l0).area * um2_per_px
    united = shapely.union(patch.found_l0, dense.found_l0).area * um2_per_px
    tally.shared_um2 += shared
    tally.united_um2 += united
    tally.contour_iou[name] = round(shared / united, 4) if united else 1.0


def _report(tally: _Tally, stride_m: int) -> dict[str, Any]:
    if not tally.contour_iou:
        raise NothingMeasuredError(
            f"None of the slides is evaluable: {', '.join(tally.not_evaluable)}.",
            cure="Give slides with H&E; `hepamap detect` says of each what is wrong with it.",
        )
    modes = {mode: _of_mode(tally.judged[mode]) for mode in MODES}
    contour_iou = tally.shared_um2 / tally.united_um2 if tally.united_um2 else 1.0
    is_as_good = modes["dense"]["auc"] >= modes["patch"]["auc"] - MAX_AUC_LOSS and contour_iou >= MIN_CONTOUR_IOU
    return {
        "software": f"hepamap {__version__}",
        "slides": list(tally.contour_iou),
        "not_evaluable": tally.not_evaluable,
        "stride": stride_m,
        **modes,
        "map_mean_absolute_difference": round(float(np.concatenate(tally.differences).mean()), 4),
        "contour_iou": round(contour_iou, 4),
        "contour_iou_lowest": min(tally.contour_iou.values()),
        "contour_iou_by_slide": tally.contour_iou,
        "dense_may_be_default": bool(is_as_good),
        "precision": ", ".join(tally.precisions),
        "warnings": [{"code": code, "message": message} for code, message in tally.warnings.items()],
    }


def _of_mode(judged: Sequence[Judged]) -> dict[str, Any]:
    """AUC over the patches of all slides together; the others are means over the slides on which they are defined."""
    truth = np.concatenate([item.truth for item in judged])
    answer = np.concatenate([item.answer for item in judged])
    if not 0 < truth.sum() < len(truth):
        raise OneClassError(
            f"Of the {len(truth)} patches with tissue and a label, {int(truth.sum())} are tumour: nothing to tell apart.",
            cure="Add slides of this split that have what is missing.",
        )
    rates = {name: [getattr(item.score, name) for item in judged] for name in ("iou", "sensitivity", "specificity")}
    defined = {name: [value for value in values if math.isfinite(value)] for name, values in rates.items()}
    return {
        "patches": len(truth),
        "auc": round(float(roc_auc_score(truth, answer)), 4),
        "iou_lowest": round(min(defined["iou"]), 4),
        **{name: round(float(np.mean(values)), 4) for name, values in defined.items()},
        **{f"{name}_slides": len(values) for name, values in defined.items()},
        "seconds": round(sum(item.score.seconds for item in judged), 1),
    }
