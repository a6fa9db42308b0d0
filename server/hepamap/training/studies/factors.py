"""The factor study (the paper's figure 3): backbones × heads × batch sizes × optimisers, each trained several times."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hepamap.errors import ParameterError
from hepamap.training.room import require_room
from hepamap.training.studies.loop import Run, StudyProgress, do_runs, drawn, study_data, work_of
from hepamap.training.studies.plan import Configuration, FactorStudy, Optimiser, read_study, recipe_of
from hepamap.training.studies.report import write_factor_report

FACTORS = ("backbone", "head", "batch_size", "optimiser")


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a factor study; None: all that the study file names."""

    backbones: Sequence[str] | None = None
    heads: Sequence[str] | None = None
    batch_sizes: Sequence[int] | None = None
    optimisers: Sequence[str] | None = None
    repeats: int | None = None


def study_factors(
    study_path: Path,
    dataset_dirs: Sequence[Path],
    out: Path,
    *,
    models_dir: Path,
    selection: Selection = Selection(),
    retry_failed: bool = False,
    tell: Callable[[StudyProgress], None] = lambda _: None,
) -> None:
    """Do the runs that are missing, then write tables and the picture of all that are there.

    Args:
        study_path: a TOML file.
        dataset_dirs: data sets of the study's resolution and patch side.
        out: folder of the study; a study that was stopped there goes on.
        models_dir: where packs are, if the networks begin with one.
        selection: which of the study's runs.
        retry_failed: do failed runs again.
        tell: told after every step.

    Raises:
        RecipeInvalidError, NetworkInvalidError, ParameterError: the study or the selection is at fault.
        DatasetInvalidError, PatchesTooFewError: the data sets do not serve.
        StudyBusyError, ResumeImpossibleError, OutputError: the folder does not.
    """
    study = read_study(study_path, FactorStudy)
    chosen = chosen_factors(study, selection)
    asked = {"train": study.data.train, "val": study.data.validation, "test": study.data.test}
    datasets, splits = study_data(study, dataset_dirs, asked)
    seed = study.training.seed
    splits = {split: drawn(splits[split], count, seed) for split, count in asked.items()}
    for head in cast("Sequence[str]", chosen["head"]):
        require_room(out, head, study.network.patch)
    repeats = selection.repeats or study.factors.repeats
    runs = [
        Run((*map(str, factors), str(repeat + 1)), recipe_of(study, _configuration(factors), repeat), splits)
        # Every combination once before any comes again: a study that is stopped early has seen all of them.
        for repeat in range(repeats)
        for factors in itertools.product(*chosen.values())
    ]
    do_runs(
        out,
        (*FACTORS, "repeat"),
        runs,
        work_of(study, datasets),
        models_dir,
        report=lambda rows: write_factor_report(out, rows, factor_order(study), FACTORS),
        retry_failed=retry_failed,
        tell=tell,
    )


def chosen_factors(study: FactorStudy, selection: Selection) -> dict[str, Sequence[str | int]]:
    """The values of each factor, in the study's order.

    Raises:
        ParameterError: a value that the study does not have.
    """
    factors = study.factors
    offered: dict[str, tuple[Sequence[str | int], Sequence[str | int] | None]] = {
        "backbone": (factors.backbones, selection.backbones),
        "head": (factors.heads, selection.heads),
        "batch_size": (factors.batch_sizes, selection.batch_sizes),
        "optimiser": (factors.optimisers, selection.optimisers),
    }
    for name, (known, wanted) in offered.items():
        for value in wanted or ():
            if value not in known:
                raise ParameterError(
                    f"The study has no {name.replace('_', ' ')} “{value}”.", cure=f"Use some of {', '.join(map(str, known))}."
                )
    return {name: [value for value in known if not wanted or value in wanted] for name, (known, wanted) in offered.items()}


def factor_order(study: FactorStudy) -> Mapping[str, Sequence[str]]:
    """The values of each factor as they stand in the study, as text."""
    return {name: [str(value) for value in values] for name, values in chosen_factors(study, Selection()).items()}


def _configuration(factors: tuple[str | int, ...]) -> Configuration:
    backbone, head, batch_size, optimiser = factors
    return Configuration(str(backbone), str(head), int(batch_size), cast("Optimiser", optimiser))
