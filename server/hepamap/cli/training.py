"""`hepamap dataset …`, `hepamap train` and `hepamap compare`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from hepamap.cli.console import progress_bar, report_error
from hepamap.pipeline import Progress
from hepamap.settings import Settings

dataset_app = typer.Typer(help="Patches from annotated slides.", no_args_is_help=True)

ModelsDir = Annotated[Path | None, typer.Option(help="Folder of the model packs.")]

_PER_SPLIT = " if the table has that split and nothing is said, none if 0."
_FEWER_STATUS = 3
"""Of a build whose data set is there, but smaller than was asked for."""

_INSTEAD = "; may be given several times, and then replaces the names that are known."
TumourClasses = Annotated[list[str] | None, typer.Option("--tumour-class", help=f"Class name that means tumour{_INSTEAD}")]
NonTumourClasses = Annotated[
    list[str] | None, typer.Option("--non-tumour-class", help=f"Class name that means non-tumour{_INSTEAD}")
]
ExcludedClasses = Annotated[list[str] | None, typer.Option("--exclude-class", help=f"Class name of areas to leave out{_INSTEAD}")]


@dataset_app.command("phantoms")
def dataset_phantoms(
    folder: Annotated[Path, typer.Argument(help="Folder for the slides and their table.")],
    preset: Annotated[Literal["training", "held-out", "experiment"], typer.Option(help="Which set of slides.")] = "training",
    workers: Annotated[int, typer.Option(min=1, help="Slides that are painted side by side.")] = 2,
) -> None:
    """Make a set of synthetic slides with their truth and table; slides that are there are kept."""
    from hepamap.phantom.cohort import write_cohort

    with progress_bar(preset) as show:
        table = write_cohort(
            folder, preset, workers=workers, progress=lambda done, total: show(Progress(done, total, "painting slides"))
        )
    typer.echo(f"table: {table}")


@dataset_app.command("build")
def dataset_build(
    table: Annotated[Path, typer.Argument(help="CSV: slide, annotations, group, split (train, val or test), …")],
    out: Annotated[Path, typer.Option(help="Folder for the patches.")],
    mpp: Annotated[float, typer.Option(help="Resolution of the patches, µm/px: 1.84 for 5X, 0.92 for 10X.")],
    patch: Annotated[int, typer.Option(help="Patch side, px: 64 for 5X, 128 for 10X.")],
    train: Annotated[int | None, typer.Option(min=0, help=f"Training patches of each class; 20000{_PER_SPLIT}")] = None,
    val: Annotated[int | None, typer.Option(min=0, help=f"Validation patches of each class; 2000{_PER_SPLIT}")] = None,
    test: Annotated[int | None, typer.Option(min=0, help=f"Test patches of each class; 2000{_PER_SPLIT}")] = None,
    fewer: Annotated[
        bool, typer.Option("--fewer", help="Take what there is where slides hold fewer patches; that is an error otherwise.")
    ] = False,
    fields: Annotated[
        int, typer.Option(min=0, help="Fields of each class for training: patches with real surroundings, for dense mode.")
    ] = 0,
    masks: Annotated[bool, typer.Option("--masks", help="Keep the mask of each patch too, for U-Net and FCN.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same patches.")] = 0,
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Slides that are drawn side by side; default: one for each core. Changes no byte.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier data set.")] = False,
) -> None:
    """Draw balanced patches from annotated slides by the paper's rules; goes on where a stopped build was.

    Ends with status 3 where tissue and focus left fewer patches than were asked for, without --fewer; the data set is there.
    """
    from hepamap.training.build import BuildProgress, DatasetSpec, build_dataset
    from hepamap.training.build_spec import numbers_by_split
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.errors import PatchesTooFewError
    from hepamap.training.show import shortfalls

    classes = DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class)
    per_class, remarks = numbers_by_split(table, {"train": train, "val": val, "test": test})
    for remark in remarks:
        typer.echo(remark, err=True)
    spec = DatasetSpec(mpp=mpp, patch_m=patch, per_class=per_class, fields=fields, masks=masks, seed=seed, classes=classes)
    with progress_bar(out.name) as show:

        def tell(step: BuildProgress) -> None:
            show(Progress(step.done, step.total, step.slide))

        cores = workers or os.cpu_count() or 1
        dataset = build_dataset(table, out, spec, fewer=fewer, workers=cores, overwrite=overwrite, progress=tell)
    dataset_show(out)
    short = shortfalls(dataset)
    if short and not fewer:
        cure = "Annotate more slides or areas; with --fewer, what was found will do."
        report_error(PatchesTooFewError(f"The data set was written, but not all was found. {' '.join(short)}", cure=cure))
        raise typer.Exit(_FEWER_STATUS)


@dataset_app.command("show")
def dataset_show(
    dataset: Annotated[Path, typer.Argument(help="Folder of a data set.")],
    sheet: Annotated[Path | None, typer.Option(help="PNG file for a sheet of random patches.")] = None,
    slides: Annotated[bool, typer.Option("--slides", help="Count by slide too.")] = False,
) -> None:
    """Count the patches of a data set by split and class, and say what was left out."""
    from hepamap.training.show import show_dataset

    summary = show_dataset(dataset, sheet)
    typer.echo(f"{summary.patch_m} px patches at {summary.mpp:g} µm/px")
    for split in summary.splits:
        typer.echo(
            f"{split.split}: {split.tumour} tumour, {split.non_tumour} non-tumour, "
            f"of {split.slides} slides in {split.groups} groups" + (f"; {split.fields} fields" if split.fields else "")
        )
    for slide in summary.slides if slides else ():
        typer.echo(f"  {slide.slide} ({slide.split}): {slide.tumour} tumour, {slide.non_tumour} non-tumour")
    for sentence in summary.warnings:
        typer.echo(f"  warning: {sentence}")
    if sheet is not None:
        typer.echo(f"sheet: {sheet}")


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, e.g. models/recipes/hcc-5x.toml.")],
    dataset: Annotated[list[Path], typer.Argument(help="Folders of data sets made by `hepamap dataset build`.")],
    run: Annotated[Path, typer.Option(help="Folder for the log, the best weights so far and the metrics.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run and its pack.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a run that was stopped, after its last finished epoch; begin one otherwise."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write a log for TensorBoard into the run folder too (hepamap[tensorboard]).")
    ] = False,
    models_dir: ModelsDir = None,
) -> None:
    """Train a network by a recipe; ends in a model pack."""
    from hepamap.predictor import start_backend

    start_backend()  # before anything else imports keras, which would talk
    from hepamap.training.callbacks import TrainProgress
    from hepamap.training.train import train as run_recipe

    with progress_bar(recipe.stem) as show:

        def tell(step: TrainProgress) -> None:
            show(Progress(round(1000 * step.fraction), 1000, f"epoch {step.epoch}, loss {step.loss:.3f}"))

        result = run_recipe(
            recipe,
            dataset,
            run,
            models_dir=models_dir or Settings().models_dir,
            overwrite=overwrite,
            resume=resume,
            tensorboard=tensorboard,
            begin=lambda first: typer.echo(f"first weights: {first}", err=True),
            progress=tell,
        )
    for split, measured in result.metrics.items():
        typer.echo(f"{split}: {measured}")
    typer.echo(f"pack: {result.pack.folder}")


def compare(
    result: Annotated[Path, typer.Argument(help="Folder of a result.")],
    annotations: Annotated[Path, typer.Argument(help="GeoJSON with the true tumour, as QuPath exports it.")],
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
) -> None:
    """Measure the contours of a result against annotations of the same slide."""
    from hepamap.plausibility import NOT_EVALUABLE
    from hepamap.results import open_result
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.evaluate import compare as run

    classes = DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class)
    stored = open_result(result)
    iou, shift = run(stored, annotations, classes)
    if stored.summary["outcome"] == NOT_EVALUABLE:
        reasons = " ".join(warning["message"] for warning in stored.summary["warnings"])
        typer.echo(f"not evaluable, nothing to compare: {reasons}")
    elif iou is None:
        typer.echo("no tumour is annotated: there is no intersection over union")
    else:
        typer.echo(f"intersection over union with the annotations: {iou:.3f}")
    if shift is not None:
        typer.echo(f"displacement: {shift.x_cell:+.2f}, {shift.y_cell:+.2f} cells of the map")
