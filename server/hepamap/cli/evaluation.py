"""`hepamap evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hepamap.cli.console import progress_bar, report_remarks, report_warnings
from hepamap.cli.training import ExcludedClasses, ModelsDir, NonTumourClasses, TumourClasses
from hepamap.errors import HepamapError, ParameterError
from hepamap.settings import Settings

if TYPE_CHECKING:
    from hepamap.training.evaluation.plan import EvaluationSpec, ModelRun
    from hepamap.training.evaluation.slides import SlideOutcome

_SEVERAL = "; may be given several times"


def evaluate(
    model: Annotated[list[str], typer.Option(help=f"Model pack{_SEVERAL}.")],
    table: Annotated[Path | None, typer.Argument(help="CSV of whole slides: slide, annotations, group, split, …")] = None,
    dataset: Annotated[
        list[Path] | None, typer.Option(help=f"Data set of `hepamap dataset build`, for patches{_SEVERAL}.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report, tables and figures; keeps the maps, so that a stopped run goes on.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which slides and patches are reported.")] = "test",
    stride: Annotated[
        list[int] | None, typer.Option(help=f"Step between patches, model px{_SEVERAL}; default: as each model says.")
    ] = None,
    without_overlap: Annotated[
        bool, typer.Option("--without-overlap", help="Each model also with its patches side by side.")
    ] = False,
    mode: Annotated[list[str] | None, typer.Option(help=f"patch or dense{_SEVERAL}; default: as each model says.")] = None,
    threshold: Annotated[list[float] | None, typer.Option(help=f"A fixed threshold beside the models' own{_SEVERAL}.")] = None,
    choose_on: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(help="Slides that choose operating points and temperature; default: none, with --write val."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Put operating points, calibration and figures into the packs; not the weights.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of patients for the confidence intervals.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same intervals.")] = 0,
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
    models_dir: ModelsDir = None,
) -> None:
    """Score models on annotated slides, through the pipeline that serves, and on patches; prints Markdown tables."""
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.evaluation.bootstrap import Bootstrap
    from hepamap.training.evaluation.plan import EvaluationSpec

    if table is None and not dataset:
        raise ParameterError("There is nothing to evaluate on.", cure="Give a table of slides, or --dataset.")
    spec = EvaluationSpec(
        models=tuple(model),
        table=table,
        split=split,
        choose_on=choose_on or ("val" if write else None),
        modes=tuple(mode or ()),
        strides_m=tuple(stride or ()),
        without_overlap=without_overlap,
        thresholds=tuple(threshold or ()),
        datasets=tuple(dataset or ()),
        classes=DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class),
        bootstrap=Bootstrap(resamples, seed),
        write=write,
    )
    _evaluate(spec, out, models_dir)


def _evaluate(spec: EvaluationSpec, out: Path | None, models_dir: Path | None) -> None:
    from hepamap.detection import Detector
    from hepamap.training.evaluate import markdown_table
    from hepamap.training.evaluation.run import evaluate as run
    from hepamap.training.evaluation.writing import write_files, write_into_packs

    settings = Settings()
    detector = Detector(models_dir or settings.models_dir, settings.precision)
    with _folder(out) as folder, progress_bar("evaluate") as show:
        found = run(spec, folder, detector, progress=show, measured=_tell, warn=_warn)
        files = [] if out is None else write_files(found, folder)
    if found.runs:
        typer.echo(markdown_table([item.score for summary in found.runs for item in summary.outcomes]))
    typer.echo(found.markdown(), nl=False)
    for item in found.patches:
        report_warnings(item.warnings)
    for pack in write_into_packs(found) if spec.write else ():
        typer.echo(f"written into {pack.name}: {pack.folder}", err=True)
    for path in files:
        typer.echo(str(path), err=True)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder that is given, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def _warn(lack: HepamapError) -> None:
    report_remarks([f"{lack.message} {lack.cure}"])


def _tell(outcome: SlideOutcome, run: ModelRun) -> None:
    auc = "one class only" if outcome.auc is None else f"AUC {outcome.auc:.3f}"
    iou = "no tumour" if outcome.score.known_iou is None else f"IoU {outcome.score.known_iou:.3f}"
    figures = f"{iou}, {auc}" if outcome.score.is_evaluable else "not evaluable"
    typer.echo(f"{outcome.score.slide} {run.name}: {figures}", err=True)
    report_warnings(outcome.warnings)
