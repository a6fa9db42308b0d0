"""The stride study: the same slides with other steps between patches, in both modes, through the pipeline that serves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hepamap import __version__
from hepamap.detection import CheckedRequest, DetectionRequest, Detector, check_request
from hepamap.errors import CancelledError, HepamapError, ModelError, ParameterError, StrideInvalidError
from hepamap.maps import require_dense_stride
from hepamap.model_pack import ModelPack, find_pack
from hepamap.pipeline import Analysis, analyse
from hepamap.predictor import Predictor
from hepamap.slide import Slide
from hepamap.training.areas import areas_of
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import CohortSlide, require_own_names
from hepamap.training.errors import CohortInvalidError
from hepamap.training.evaluate import SlideScore, judge_map
from hepamap.training.evaluation.plan import ModelRun
from hepamap.training.studies.folder import RUNS_NAME, study_folder
from hepamap.training.studies.loop import StudyProgress
from hepamap.training.studies.report import write_stride_report
from hepamap.training.studies.table import FAILED, OK, Key, Row, RunTable

KEY = ("model", "mode", "stride", "slide", "inputs")
SCORES = ("status", "stride_um", "overlap", "auc", "sensitivity", "specificity", "iou", "seconds", "device", "message")

_HASH_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Case:
    """One slide, one model, one mode, one stride."""

    row: CohortSlide
    checked: CheckedRequest
    inputs: str
    """Identifies all that decides the scores: slide, annotations, class meanings, weights, threshold, precision, software."""

    @property
    def key(self) -> Key:
        """As in the table."""
        parameters = self.checked.parameters
        return (self.checked.pack.name, parameters.mode, str(parameters.stride_m), self.row.slide.stem, self.inputs)


def study_stride(
    slides: Sequence[CohortSlide],
    models: Sequence[str],
    detector: Detector,
    out: Path,
    *,
    strides: Sequence[int] | None = None,
    modes: Sequence[str] | None = None,
    classes: ClassMap = DEFAULT_CLASSES,
    retry_failed: bool = False,
    tell: Callable[[StudyProgress], None] = lambda _: None,
) -> None:
    """Do what is missing, then write tables and the picture of these slides, with the models of earlier calls too.

    Args:
        slides: rows of a cohort's table.
        models: packs, by id or id@version.
        detector: the loaded models.
        out: folder of the study; a study that was stopped there goes on.
        strides: model px, those of them that a model allows; None: all that it allows.
        modes: `patch`, `dense`, those of them that a model has; None: all.
        classes: what the class names of the annotations mean.
        retry_failed: do failed slides again.
        tell: told after every step.

    Raises:
        CohortInvalidError, AnnotationError, SlideError, ModelError, ParameterError: before anything is computed.
        StudyBusyError, OutputError: the folder does not serve.
    """
    cases = cases_of(slides, models, detector, strides, modes, classes)
    with study_folder(out, {"study": "stride"}):
        table = RunTable(out / RUNS_NAME, KEY, SCORES)
        reported = _current(table.rows, slides, detector, classes) | {(case.key[0], case.key[3], case.inputs) for case in cases}
        try:
            _run_missing(table, cases, detector, classes, retry_failed, tell)
        finally:
            write_stride_report(out, [row for row in table.rows if (row["model"], row["slide"], row["inputs"]) in reported])


def cases_of(
    slides: Sequence[CohortSlide],
    models: Sequence[str],
    detector: Detector,
    strides: Sequence[int] | None = None,
    modes: Sequence[str] | None = None,
    classes: ClassMap = DEFAULT_CLASSES,
) -> list[Case]:
    """All that is to be run, checked: coarse strides first, since they take least.

    Raises:
        CohortInvalidError, AnnotationError, SlideError, ModelError, ParameterError: something cannot be run.
    """
    _check_slides(slides, classes)
    packs = [find_pack(detector.models_dir, model) for model in models]
    settings = [
        (pack, mode, stride) for pack in packs for mode in _modes(pack, modes) for stride in _strides(pack, mode, strides)
    ]
    unused = [stride for stride in strides or () if not any(stride == used for _, _, used in settings)]
    if unused or not settings:
        named = ", ".join(f"{pack.name} has {', '.join(map(str, pack.manifest.strides))}" for pack in packs)
        raise StrideInvalidError(
            f"No model can be run with the stride {', '.join(map(str, unused))} in this mode.", cure=f"The strides: {named}."
        )
    inputs = {(pack.name, row.slide): _inputs(pack, row, classes, detector.precision) for pack in packs for row in slides}
    return [
        Case(
            row,
            check_request(
                DetectionRequest(row.slide, pack.name, stride_m=stride, mode=mode, mpp_override_um=row.mpp_override_um),
                detector.models_dir,
            ),
            inputs[pack.name, row.slide],
        )
        for pack, mode, stride in settings
        for row in slides
    ]


def _check_slides(slides: Sequence[CohortSlide], classes: ClassMap) -> None:
    if not slides:
        raise CohortInvalidError("No slide of the table is in this split.", cure="Name another --split (train, val or test).")
    require_own_names(slides)
    for row in slides:
        areas_of(row, classes)


def _modes(pack: ModelPack, wanted: Sequence[str] | None) -> list[str]:
    modes: list[str] = [mode for mode in pack.manifest.modes if wanted is None or mode in wanted]
    if not modes:
        raise ParameterError(
            f"The model {pack.name} has no mode {' or '.join(wanted or ())}.", cure=f"Use {', '.join(pack.manifest.modes)}."
        )
    return modes


def _strides(pack: ModelPack, mode: str, wanted: Sequence[int] | None) -> list[int]:
    """Strides that the model allows, and dense mode where it is that; the coarsest first."""

    def can(stride: int) -> bool:
        try:
            require_dense_stride(stride)
        except StrideInvalidError:
            return False
        return True

    allowed = [stride for stride in pack.manifest.strides if wanted is None or stride in wanted]
    return sorted((stride for stride in allowed if mode != "dense" or can(stride)), reverse=True)


def _current(
    rows: Sequence[Row], slides: Sequence[CohortSlide], detector: Detector, classes: ClassMap
) -> set[tuple[str, str, str]]:
    """Model, slide and inputs of what would be measured alike now; whatever of its inputs has changed since makes another row."""
    packs = {}
    for name in {row["model"] for row in rows}:
        with suppress(ModelError):  # of an earlier call, and gone since: nothing says that its numbers still hold
            packs[name] = find_pack(detector.models_dir, name)
    return {
        (name, slide.slide.stem, _inputs(pack, slide, classes, detector.precision))
        for name, pack in packs.items()
        for slide in slides
    }


def _inputs(pack: ModelPack, row: CohortSlide, classes: ClassMap, precision: str) -> str:
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        seen = {
            "software": __version__,
            "slide": [slide.fingerprint, slide.pixel_size.x_um, slide.pixel_size.y_um, row.unannotated, row.frame],
            "classes": asdict(classes),
            "weights": pack.manifest.weights.sha256,
            "threshold": pack.manifest.default_threshold,
            "precision": precision,
        }
    # Sets have no order of their own, and another one in every process.
    text = json.dumps(seen, sort_keys=True, default=sorted)
    return hashlib.sha256(text.encode() + row.annotations.read_bytes()).hexdigest()[:_HASH_LENGTH]


def _run_missing(
    table: RunTable,
    cases: Sequence[Case],
    detector: Detector,
    classes: ClassMap,
    retry_failed: bool,
    tell: Callable[[StudyProgress], None],
) -> None:
    def is_finished(case: Case) -> bool:
        row = table.get(case.key)
        return row is not None and not (retry_failed and row["status"] == FAILED)

    missing = [case for case in cases if not is_finished(case)]
    for done, case in enumerate(missing, start=len(cases) - len(missing)):
        name = " ".join(case.key[:-1])
        tell(StudyProgress(done, len(cases), name, 0.0))

        def share(fraction: float, done: int = done, name: str = name) -> None:
            tell(StudyProgress(done, len(cases), name, fraction))

        row = _run(case, detector, classes, share)
        table.add(row)
        tell(StudyProgress(done + 1, len(cases), name, 0.0, row))


def _run(case: Case, detector: Detector, classes: ClassMap, share: Callable[[float], None]) -> Row:
    """One slide; what cannot be computed is a failed row, so that the others get theirs."""
    pack, parameters = case.checked.pack, case.checked.parameters
    overlap = ModelRun(pack, parameters.mode, parameters.stride_m).overlap
    row = dict(zip(KEY, case.key, strict=True)) | dict.fromkeys(SCORES, "")
    row |= {
        "stride_um": f"{parameters.stride_m * parameters.mpp:.2f}",
        "overlap": "" if overlap is None else f"{overlap:.3f}",
    }

    def look(network: Predictor) -> Analysis:
        with Slide.open(case.row.slide, mpp_override_um=case.row.mpp_override_um) as slide:
            return analyse(
                slide, network, parameters, {}, progress=lambda step: share(step.done / step.total if step.total else 0.0)
            )

    try:
        analysis, predictor = detector.run(pack, look)
        seconds = analysis.seconds["map"] + analysis.seconds["contours"]
        score = judge_map(case.row, pack.name, analysis.map, asdict(parameters), analysis.outcome, seconds, classes).score
    except CancelledError:
        raise
    except HepamapError as error:
        return row | {"status": FAILED, "message": error.message}
    if not score.is_evaluable:
        reasons = " ".join(warning.message for warning in analysis.warnings)
        return row | {"status": FAILED, "message": f"Not evaluable. {reasons}"}
    return row | {"status": OK, "device": predictor.device, **_numbers(score)}


def _numbers(score: SlideScore) -> Row:
    """NaN, of a slide with one class only, is left empty."""
    values = {name: getattr(score, name) for name in ("auc", "sensitivity", "specificity", "iou")}
    return {
        **{name: "" if value != value else f"{value:.4f}" for name, value in values.items()},  # noqa: PLR0124  # NaN
        "seconds": f"{score.seconds:.2f}",
    }
