"""`hepamap models …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hepamap.cli import model_files
from hepamap.cli.console import progress_bar, report_error, report_remarks, report_warnings
from hepamap.cli.training import ExcludedClasses, NonTumourClasses, TumourClasses
from hepamap.errors import ModelError, PackInvalidError
from hepamap.model_pack import find_pack, list_packs, manifest_json, manifest_schema_json, require_writable
from hepamap.settings import Settings

models_app = typer.Typer(help="The model packs that are installed.", no_args_is_help=True)
models_app.command("import")(model_files.import_model)
models_app.command("export")(model_files.export_model)

ModelsDir = Annotated[Path | None, typer.Option(help="Folder of the model packs.")]


@models_app.command("list")
def list_models(models_dir: ModelsDir = None) -> None:
    """List the packs."""
    broken: list[PackInvalidError] = []
    packs = list_packs(models_dir or Settings().models_dir, broken)
    for pack in packs:
        spec = pack.manifest
        typer.echo(
            f"{pack.name:<18} {spec.network.backbone}+{spec.network.head}  {spec.input.mpp:g} µm/px, {spec.input.patch} px, "
            f"stride {spec.default_stride}  {spec.title}"
        )
    if not packs:
        typer.echo("No model pack is installed.")
    _report_broken(broken)


def _report_broken(broken: list[PackInvalidError]) -> None:
    for error in broken:
        report_error(error)
    if broken:
        raise typer.Exit(1)


@models_app.command()
def show(model: Annotated[str, typer.Argument(help="id or id@version")], models_dir: ModelsDir = None) -> None:
    """Print the manifest of a pack."""
    typer.echo(manifest_json(find_pack(models_dir or Settings().models_dir, model).manifest), nl=False)


@models_app.command()
def verify(
    model: Annotated[str | None, typer.Argument(help="id or id@version; all packs where none is given")] = None,
    models_dir: ModelsDir = None,
) -> None:
    """Check the weights of packs against their manifests; status 1 when any differ."""
    folder = models_dir or Settings().models_dir
    failed = False
    broken: list[PackInvalidError] = []
    for pack in [find_pack(folder, model)] if model else list_packs(folder, broken):
        try:
            pack.verify()
            typer.echo(f"{pack.name}: ok, sha256 {pack.manifest.weights.sha256}")
        except ModelError as error:
            report_error(error)
            failed = True
    _report_broken(broken)
    if failed:
        raise typer.Exit(1)


@models_app.command()
def validate(
    model: Annotated[str, typer.Argument(help="id or id@version")],
    table: Annotated[Path, typer.Argument(help="CSV: slide, annotations, group, split, … of slides that were not trained on")],
    split: Annotated[
        str | None, typer.Option(help="Which rows of the table; default: val, or test where the table has no val.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Step between patches, model px; default: as the model says.")] = None,
    write: Annotated[bool, typer.Option(help="Put the outcome into the pack's manifest.")] = True,
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
    models_dir: ModelsDir = None,
) -> None:
    """Compare dense with patch mode on annotated slides, and make dense the model's default where it is as good.

    As good means: AUC lower by at most 0.005, and contours that share at least 95 % of their area.
    """
    from hepamap.detection import Detector
    from hepamap.training import validate as validation
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.remarks import remarks_on

    settings = Settings()
    slides = validation.slides_of(table, split)
    classes = DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class)
    detector = Detector(models_dir or settings.models_dir, settings.precision)
    report_remarks(remarks_on(slides, classes))
    if write:
        require_writable(find_pack(detector.models_dir, model).folder)
    with progress_bar("validate") as tell:
        found = validation.validate(model, slides, detector, stride_m=stride, classes=classes, progress=tell)
    typer.echo(validation.markdown(found), nl=False)
    report_warnings(found.report["warnings"])
    if write:
        validation.write_validation(found)


@models_app.command()
def schema() -> None:
    """Print the JSON schema of model.json (it is published as models/model.schema.json)."""
    typer.echo(manifest_schema_json(), nl=False)
