"""The course of an evaluation: `hepamap evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hepamap.detection import Detector
from hepamap.errors import HepamapError, OutputExistsError, OutputNotWritableError
from hepamap.pipeline import Progress, ignore_progress
from hepamap.training.cohort import require_one_split
from hepamap.training.evaluation.both_classes import missing_class, require_both_classes
from hepamap.training.evaluation.choice import Choice, choose, judge_choice
from hepamap.training.evaluation.kept_maps import KeptMaps
from hepamap.training.evaluation.patch_level import PatchOutcome, judge_patches, open_fitting
from hepamap.training.evaluation.plan import AnnotatedSlide, EvaluationSpec, ModelRun, plan_runs, read_slides
from hepamap.training.evaluation.slides import Rule, SlideOutcome, measure
from hepamap.training.evaluation.summary import RunSummary, rules_of, summarise
from hepamap.training.evaluation.writing import ANSWERS_FOLDER, MAPS_FOLDER, REPORT_NAME, Evaluation

Told = Callable[[SlideOutcome, ModelRun], None]


def evaluate(
    spec: EvaluationSpec,
    out: Path,
    detector: Detector,
    *,
    progress: Callable[[Progress], None] = ignore_progress,
    measured: Told = lambda outcome, run: None,
    warn: Callable[[HepamapError], None] = lambda lack: None,
) -> Evaluation:
    """Measure models on patches and slides; writes nothing but maps and answers, which a later call finds again.

    Args:
        spec: what to evaluate, on what.
        out: keeps the maps.
        detector: the loaded models.
        progress: told how far the current slide is.
        measured: told each slide that is finished.
        warn: told, before anything is computed, what the figures will lack.

    Raises:
        ParameterError, ModelError, CohortInvalidError, SplitEmptyError, AnnotationError, DatasetInvalidError, OneClassError:
            before anything is computed.
        OneClassError, NothingMeasuredError: afterwards, the slides do not suffice for what is asked.
    """
    runs = plan_runs(spec, detector.models_dir)
    packs = {run.pack.name: run.pack for run in runs}
    fitting = open_fitting(spec.datasets, list(packs.values()), spec.split)
    slides = read_slides(spec, spec.split, runs) if spec.table else []
    choosing = read_slides(spec, spec.choose_on, runs) if spec.table and spec.choose_on else []
    if spec.choose_on:
        require_both_classes([slide.areas for slide in choosing], f"the slides of the split “{spec.choose_on}”, which choose")
    require_one_split((slide.fingerprint, slide.row.split, slide.row.slide.name) for slide in [*slides, *choosing])
    if slides and (lack := missing_class([slide.areas for slide in slides], f"the slides of the split “{spec.split}”")):
        warn(lack)
    _prepare(out)
    work = _Work(KeptMaps(out / MAPS_FOLDER, detector), progress, measured)
    patches: list[PatchOutcome] = [
        judge_patches(pack, fitting[name], spec.split, detector, out / ANSWERS_FOLDER, spec.bootstrap, progress)
        for name, pack in packs.items()
        if fitting[name]
    ]
    return Evaluation(spec, tuple(_judge_run(run, slides, choosing, spec, work) for run in runs if slides), tuple(patches))


class _Work:
    """Maps, and whom to tell."""

    def __init__(self, maps: KeptMaps, progress: Callable[[Progress], None], measured: Told) -> None:
        self._maps, self._progress, self._measured = maps, progress, measured

    def judge(self, run: ModelRun, slides: Sequence[AnnotatedSlide], rules: Sequence[Rule]) -> list[SlideOutcome]:
        outcomes = []
        for number, slide in enumerate(slides, start=1):
            where = f"{run.name}, slide {number} of {len(slides)}"

            def tell(step: Progress, where: str = where) -> None:
                self._progress(Progress(step.done, step.total, where))

            outcomes.append(measure(slide, run, self._maps.result_of(slide.row, run, tell), rules))
            self._measured(outcomes[-1], run)
        return outcomes


def _judge_run(
    run: ModelRun, slides: Sequence[AnnotatedSlide], choosing: Sequence[AnnotatedSlide], spec: EvaluationSpec, work: _Work
) -> RunSummary:
    choice: Choice | None = None
    thresholds = {point.name: point.threshold for point in run.pack.manifest.operating_points}
    if spec.choose_on is not None:
        choice = choose(work.judge(run, choosing, ()), spec.choose_on)
        thresholds = choice.thresholds
    rules = rules_of(run, thresholds, spec.thresholds)
    outcomes = work.judge(run, slides, rules)
    verdict = None if choice is None else judge_choice(choice, outcomes, spec.split)
    return summarise(run, rules, outcomes, spec.bootstrap, verdict)


def _prepare(out: Path) -> None:
    """A folder that is empty or an evaluation's: nothing of anybody else's lies among the results."""
    ours = (MAPS_FOLDER, ANSWERS_FOLDER, REPORT_NAME)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not any((out / name).exists() for name in ours))):
        raise OutputExistsError(
            f"{out.name} is not empty, and what is in it is no evaluation of hepamap.",
            cure="Give a folder that is not there yet.",
        )
    try:
        (out / MAPS_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritableError(
            f"The folder {out.name} cannot be made ({error.strerror}).", cure="Give a folder that you may write to."
        ) from error
