"""What an evaluation is asked for, checked before anything is computed. No keras in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from hepamap.errors import ParameterError
from hepamap.maps import require_dense_stride
from hepamap.model_pack import ModelPack, find_pack, require_writable
from hepamap.pipeline import require_stride
from hepamap.results import require_threshold
from hepamap.slide import Slide
from hepamap.training.areas import SlideAreas, labelled_areas
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import CohortSlide, read_cohort
from hepamap.training.evaluation.bootstrap import Bootstrap
from hepamap.training.evaluation.errors import SplitEmptyError


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What is to be evaluated, on what."""

    models: tuple[str, ...]
    """Packs, by id or id@version."""
    table: Path | None = None
    """A cohort's table, for whole slides."""
    split: str = "test"
    """Rows of the table that are reported."""
    choose_on: str | None = None
    """Rows that operating points and temperature are chosen on; None: they are not chosen."""
    modes: tuple[str, ...] = ()
    """None given: as each model says."""
    strides_m: tuple[int, ...] = ()
    """Model px; none given: as each model says."""
    without_overlap: bool = False
    """Each model also with its patches side by side."""
    thresholds: tuple[float, ...] = ()
    """Fixed thresholds beside each model's own."""
    datasets: tuple[Path, ...] = ()
    """Data sets, for patches."""
    classes: ClassMap = DEFAULT_CLASSES
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    write: bool = False
    """Put what was chosen and measured into the packs."""


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One row of the tables: a model in one mode at one stride."""

    pack: ModelPack
    mode: str
    stride_m: int

    @property
    def name(self) -> str:
        """For people and file names: `hcc-5x@1.0.0-patch-16`."""
        return f"{self.pack.name}-{self.mode}-{self.stride_m}"

    @property
    def title(self) -> str:
        """For figures."""
        return f"{self.pack.manifest.id}, {self.mode}, {self.stride_m} px"

    @property
    def overlap(self) -> float | None:
        """Share of a patch's side that its neighbour covers too; None where pixels are labelled, and no patches."""
        manifest = self.pack.manifest
        return None if manifest.network.kind == "segmentation" else 1 - self.stride_m / manifest.input.patch

    @property
    def is_default(self) -> bool:
        """Whether the model runs like this unless told otherwise."""
        manifest = self.pack.manifest
        return self.mode == manifest.default_mode and self.stride_m == manifest.default_stride


@dataclass(frozen=True, slots=True)
class AnnotatedSlide:
    """A row of the table with what was drawn."""

    row: CohortSlide
    areas: SlideAreas
    fingerprint: str

    @property
    def name(self) -> str:
        """For tables."""
        return self.row.slide.stem


def plan_runs(spec: EvaluationSpec, models_dir: Path) -> list[ModelRun]:
    """Every model in every mode at every stride that was asked for.

    Raises:
        ModelError: there is no such model.
        ParameterError: a model lacks a mode or a stride; a threshold is none; thresholds would be chosen on
            the slides that are reported; what is to be written is not measured.
        OutputNotWritableError: a pack that is to be written into cannot be.
    """
    for threshold in spec.thresholds:
        require_threshold(threshold)
    runs = [run for name in dict.fromkeys(spec.models) for run in _runs_of(find_pack(models_dir, name), spec)]
    _check_choosing(spec)
    if spec.write:
        _check_writing(runs, spec)
    return runs


def read_slides(spec: EvaluationSpec, split: str, runs: Sequence[ModelRun]) -> list[AnnotatedSlide]:
    """The slides of a split with their annotations, all of which are read and checked now and not hours later.

    Raises:
        SplitEmptyError: the table has no row of this split.
        CohortInvalidError, SlideError, AnnotationError: see each; a slide may also be too coarse for one of the models.
    """
    assert spec.table is not None
    cohort = read_cohort(spec.table)
    rows = [row for row in cohort if row.split == split]
    if not rows:
        there = ", ".join(f"{name} ({sum(row.split == name for row in cohort)})" for name in sorted({r.split for r in cohort}))
        raise SplitEmptyError(
            f"The table {spec.table.name} has no slide of the split “{split}”; it has {there}.",
            cure="Name one of these splits, or add slides to the table.",
        )
    slides = []
    for row in rows:
        with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
            for mpp in {run.pack.manifest.input.mpp for run in runs}:
                slide.require_resolution(mpp)
            slides.append(AnnotatedSlide(row, labelled_areas(slide, row, spec.classes), slide.fingerprint))
    return slides


def _runs_of(pack: ModelPack, spec: EvaluationSpec) -> list[ModelRun]:
    manifest = pack.manifest
    strides = list(spec.strides_m) or [manifest.default_stride]
    modes = spec.modes or (manifest.default_mode,)
    if manifest.network.kind == "segmentation":
        modes = manifest.modes  # it has one only, and no patches that could lie side by side
    elif spec.without_overlap:
        strides.append(manifest.input.patch)
    runs = [ModelRun(pack, *pair) for pair in product(dict.fromkeys(modes), dict.fromkeys(strides))]
    for run in runs:
        _check_run(run)
    return runs


def _check_run(run: ModelRun) -> None:
    manifest = run.pack.manifest
    if run.mode not in manifest.modes:
        raise ParameterError(
            f"The model {run.pack.name} has no mode {run.mode!r}.",
            cure=f"Evaluate it by itself, with a mode that it has: {', '.join(manifest.modes)}.",
        )
    require_stride(run.stride_m, manifest.strides)
    if run.mode == "dense":
        require_dense_stride(run.stride_m)


def _check_choosing(spec: EvaluationSpec) -> None:
    if spec.choose_on is not None and spec.table is None:
        raise ParameterError(
            "Operating points are chosen on whole slides, but no table of slides is given.", cure="Give a cohort's table."
        )
    if spec.choose_on == spec.split:
        raise ParameterError(
            f"The same slides (“{spec.split}”) cannot choose thresholds and say how good they are.",
            cure="Choose on another split, e.g. --choose-on val.",
        )


def _check_writing(runs: Sequence[ModelRun], spec: EvaluationSpec) -> None:
    if spec.choose_on is None:
        raise ParameterError("What is to be written is not chosen.", cure="Name the slides that choose: --choose-on val.")
    for folder in {run.pack.folder for run in runs}:
        require_writable(folder)
    ready = {run.pack.name for run in runs if run.is_default}
    for run in runs:
        if run.pack.name not in ready:
            manifest = run.pack.manifest
            raise ParameterError(
                f"The operating points of {run.pack.name} belong to its default mode and stride ({manifest.default_mode}, "
                f"{manifest.default_stride} px), which are not evaluated.",
                cure="Leave --mode and --stride away, or name these too.",
            )
