"""All trainings of a study, one after the other; what is finished is never done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap.predictor import start_backend
from hepamap.training.dataset import Dataset, PatchSet, combine, open_dataset
from hepamap.training.errors import PatchesTooFewError, ResumeImpossibleError
from hepamap.training.recipe import Recipe
from hepamap.training.run_files import LOG_NAME
from hepamap.training.studies.folder import RUN_FOLDER, RUNS_NAME, study_folder
from hepamap.training.studies.plan import Study
from hepamap.training.studies.table import FAILED, OK, Key, Row, RunTable

if TYPE_CHECKING:
    from hepamap.training.studies.training_run import Outcome

SCORES = ("status", "auc", "accuracy", "sensitivity", "specificity", "val_loss", "best_epoch", "steps", "seconds", "message")
"""Columns of a training in `runs.csv`, after those of its factors."""


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """How far a study is."""

    done: int
    """Finished runs, with those of before."""
    total: int
    run: str
    fraction: float
    """Of the run that is under way."""
    finished: Row | None = None
    """The run that was finished just now."""


Tell = Callable[[StudyProgress], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One training to be done."""

    key: Key
    recipe: Recipe
    splits: Mapping[str, PatchSet]


def study_data(
    study: Study, dataset_dirs: Sequence[Path], least: Mapping[str, int | None]
) -> tuple[list[Dataset], dict[str, PatchSet]]:
    """The data sets of a study, checked before hours are spent.

    Args:
        study: says resolution and patch side.
        dataset_dirs: data sets.
        least: patches of each split that are asked for, both classes together; None: at least one of each class.

    Raises:
        DatasetInvalidError: no data set, or of another resolution or patch side.
        PatchesTooFewError: a split has fewer patches of a class than half of what is asked for.
    """
    datasets = [open_dataset(folder) for folder in dataset_dirs]
    splits = combine(datasets, study.network.mpp, study.network.patch)
    for split, asked in least.items():
        wanted = max(1, (asked or 0) // 2)
        found = [int((splits[split].labels == label).sum()) for label in (0, 1)]
        if min(found) < wanted:
            raise PatchesTooFewError(
                f"The study asks for {wanted} patches of each class in the split “{split}”, but the data sets have {found[1]} of "
                f"tumour and {found[0]} of non-tumour.",
                cure="Ask for fewer in the study file, or build a larger data set with `hepamap dataset build`.",
            )
    return datasets, splits


def drawn(patches: PatchSet, count: int | None, seed: int) -> PatchSet:
    """So many patches, half of each class, drawn at random; a larger count holds all of a smaller one's. All where None."""
    if count is None:
        return patches
    rng = np.random.default_rng([seed, 6])
    chosen: list[NDArray[np.intp]] = [
        rng.permutation(np.flatnonzero(patches.labels == label))[: count // 2].astype(np.intp) for label in (0, 1)
    ]
    return patches.only(np.sort(np.concatenate(chosen)))


def work_of(study: Study, datasets: Sequence[Dataset]) -> dict[str, Any]:
    """What decides the numbers of all runs, apart from their own factors."""
    manifests = json.dumps([dataset.manifest for dataset in datasets], sort_keys=True)
    return {
        **study.model_dump(mode="json", exclude={"factors", "sizes"}),
        "data sets": hashlib.sha256(manifests.encode()).hexdigest(),
    }


def do_runs(
    out: Path,
    factors: Sequence[str],
    runs: Sequence[Run],
    work: dict[str, Any],
    models_dir: Path,
    *,
    report: Callable[[Sequence[Row]], None],
    retry_failed: bool,
    tell: Tell,
) -> None:
    """Do the runs of a study that are missing in its folder, then report on all that are there; also when it is stopped.

    Args:
        out: folder of the study.
        factors: columns of its table that tell runs apart.
        runs: all that are wanted.
        work: see `work_of`.
        models_dir: where packs are.
        report: writes tables and pictures of the rows of the table.
        retry_failed: do failed runs again.
        tell: told after every step.

    Raises:
        StudyBusyError, ResumeImpossibleError, OutputError: the folder does not serve.
    """
    with study_folder(out, work):
        table = _open_table(out, factors)
        try:
            _run_missing(out, table, runs, work, models_dir, retry_failed=retry_failed, tell=tell)
        finally:
            report(table.rows)


def _run_missing(
    out: Path, table: RunTable, runs: Sequence[Run], work: dict[str, Any], models_dir: Path, *, retry_failed: bool, tell: Tell
) -> None:
    """Each run becomes a row as soon as it is finished."""
    if not retry_failed:
        missing = [run for run in runs if table.get(run.key) is None]
    else:
        missing = [run for run in runs if (table.get(run.key) or {}).get("status") != OK]
    if not missing:
        return
    start_backend()  # before anything else imports keras, which would talk
    from hepamap.training.studies.training_run import run_training

    total, done = len(runs), len(runs) - len(missing)
    for run in missing:
        name = " ".join(run.key)
        folder = out / RUN_FOLDER / "-".join(run.key)

        def step(progress: Any, name: str = name, done: int = done) -> None:
            tell(StudyProgress(done, total, name, progress.fraction))

        tell(StudyProgress(done, total, name, 0.0))
        mark = _mark(run, work)
        try:
            outcome = run_training(run.recipe, run.splits, folder, models_dir, work=mark, progress=step)
        except ResumeImpossibleError:  # a state that was cut short or is of a run that failed: begin this run again
            shutil.rmtree(folder)
            outcome = run_training(run.recipe, run.splits, folder, models_dir, work=mark, progress=step)
        row = {**dict(zip(table.key_columns, run.key, strict=True)), **_scores(outcome)}
        table.add(row)
        _tidy(folder)
        done += 1
        tell(StudyProgress(done, total, name, 0.0, row))


def _open_table(out: Path, factors: Sequence[str]) -> RunTable:
    """The table of a study's trainings; states that finished runs have left are removed."""
    table = RunTable(out / RUNS_NAME, factors, SCORES)
    for row in table.rows:
        _tidy(out / RUN_FOLDER / "-".join(row[factor] for factor in factors))
    return table


def _mark(run: Run, work: dict[str, Any]) -> str:
    """Identifies what a run computes."""
    text = json.dumps([work, run.key, run.recipe.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tidy(folder: Path) -> None:
    """Leave the log of a finished run, and not its hundreds of megabytes."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name != LOG_NAME:
                path.unlink()


def _scores(outcome: Outcome) -> Row:
    metrics, history = outcome.metrics or {}, outcome.history
    return {
        "status": OK if outcome.metrics else FAILED,
        **{name: str(metrics.get(name, "")) for name in ("auc", "accuracy", "sensitivity", "specificity")},
        "val_loss": str(history.get("best_val_loss", "")),
        "best_epoch": str(history.get("best_epoch", "")),
        "steps": str(history.get("steps", "")),
        "seconds": f"{outcome.seconds:.1f}",
        "message": outcome.message,
    }
