"""`hepamap study …`: many trainings or slides, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepamap.cli.console import progress_bar, report_remarks
from hepamap.cli.training import ExcludedClasses, ModelsDir, NonTumourClasses, TumourClasses
from hepamap.pipeline import Progress
from hepamap.settings import Settings

if TYPE_CHECKING:
    from hepamap.training.studies.loop import StudyProgress

study_app = typer.Typer(
    help="What the paper asked: factors of training, number of patches, stride. A study that was stopped goes on.",
    no_args_is_help=True,
)

Datasets = Annotated[list[Path], typer.Argument(help="Folders of data sets made by `hepamap dataset build`.")]
Out = Annotated[Path, typer.Option(help="Folder of the study; runs that are finished there are kept.")]
Repeats = Annotated[int | None, typer.Option(min=1, help="Trainings of each; default: as the study says.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Do runs again that have failed.")]

_EACH = "; may be given several times. Default: all of the study."


@study_app.command("factors")
def factors(
    study: Annotated[Path, typer.Argument(help="A study, e.g. models/recipes/studies/factors.toml.")],
    dataset: Datasets,
    out: Out,
    backbone: Annotated[list[str] | None, typer.Option(help=f"Only this backbone{_EACH}")] = None,
    head: Annotated[list[str] | None, typer.Option(help=f"Only this head{_EACH}")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(help=f"Only this batch size{_EACH}")] = None,
    optimiser: Annotated[list[str] | None, typer.Option(help=f"Only this optimiser{_EACH}")] = None,
    repeats: Repeats = None,
    retry_failed: RetryFailed = False,
    models_dir: ModelsDir = None,
) -> None:
    """Train every combination of backbone, head, batch size and optimiser on the same patches; compare test AUC."""
    from hepamap.training.studies.factors import Selection, study_factors

    selection = Selection(backbone, head, batch_size, optimiser, repeats)
    with _telling("factors") as tell:
        study_factors(
            study,
            dataset,
            out,
            models_dir=models_dir or Settings().models_dir,
            selection=selection,
            retry_failed=retry_failed,
            tell=tell,
        )
    _say_files(out, "factors")


@study_app.command("data-size")
def data_size(
    study: Annotated[Path, typer.Argument(help="A study, e.g. models/recipes/studies/data-size.toml.")],
    dataset: Datasets,
    out: Out,
    patches: Annotated[list[int] | None, typer.Option(help=f"Only this number of training patches{_EACH}")] = None,
    repeats: Repeats = None,
    retry_failed: RetryFailed = False,
    models_dir: ModelsDir = None,
) -> None:
    """Train one network on more and more patches; compare test AUC."""
    from hepamap.training.studies.data_size import study_data_size

    with _telling("data size") as tell:
        study_data_size(
            study,
            dataset,
            out,
            models_dir=models_dir or Settings().models_dir,
            sizes=patches,
            repeats=repeats,
            retry_failed=retry_failed,
            tell=tell,
        )
    _say_files(out, "data-size")


@study_app.command("stride")
def stride(
    table: Annotated[Path, typer.Argument(help="CSV: slide, annotations, group, split, …")],
    model: Annotated[list[str], typer.Option(help="Model pack; may be given several times.")],
    out: Out,
    split: Annotated[str, typer.Option(help="Which rows of the table.")] = "test",
    stride: Annotated[
        list[int] | None,
        typer.Option(help="Step between patches, model px; may be given several times. Default: all that each model allows."),
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="patch or dense; may be given several times. Default: all that each model has.")
    ] = None,
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
    retry_failed: RetryFailed = False,
    models_dir: ModelsDir = None,
) -> None:
    """Run models on annotated slides with several strides; compare scores and time."""
    from hepamap.detection import Detector
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.cohort import read_cohort
    from hepamap.training.remarks import remarks_on
    from hepamap.training.studies.stride import study_stride

    settings = Settings()
    detector = Detector(models_dir or settings.models_dir, settings.precision)
    classes = DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class)
    slides = [row for row in read_cohort(table) if row.split == split]
    report_remarks(remarks_on(slides, classes))
    with _telling("stride") as tell:
        study_stride(
            slides, model, detector, out, strides=stride, modes=mode, classes=classes, retry_failed=retry_failed, tell=tell
        )
    _say_files(out, "stride")


@contextmanager
def _telling(title: str) -> Iterator[Callable[[StudyProgress], None]]:
    """A bar over all runs, and a line for each one that is finished."""
    with progress_bar(title) as show:

        def tell(step: StudyProgress) -> None:
            show(Progress(round(1000 * (step.done + step.fraction)), 1000 * step.total, f"{step.run} ({step.done}/{step.total})"))
            if step.finished is not None:
                row = step.finished
                said = f"AUC {row['auc'] or 'none'}" if row["status"] == "ok" else f"failed: {row['message']}"
                typer.echo(f"{step.done}/{step.total} {step.run}: {said}, {row['seconds'] or '–'} s", err=True)

        yield tell


def _say_files(out: Path, name: str) -> None:
    typer.echo((out / f"{name}.md").read_text(encoding="utf-8"), nl=False)
    for path in (out / "runs.csv", out / f"{name}.csv", out / f"{name}.png"):
        if path.exists():
            typer.echo(f"{path.suffix[1:]}: {path}", err=True)
