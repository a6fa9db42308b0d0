"""`hepamap models import|export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hepamap.settings import Settings

ModelsDir = Annotated[Path | None, typer.Option(help="Folder of the model packs.")]


def import_model(
    file: Annotated[Path, typer.Argument(help="Keras .h5, .keras or .weights.h5 file, or the folder of a SavedModel.")],
    identifier: Annotated[str, typer.Option("--id", help="Name of the new pack.")],
    mpp: Annotated[float, typer.Option(help="Resolution that it was trained at, µm/px: 1.84 for 5X, 0.92 for 10X.")],
    tumour_index: Annotated[int | None, typer.Option(help="Which output is tumour: 1 as in the authors' code, or 0.")] = None,
    scaling: Annotated[str | None, typer.Option(help="How colours were scaled for it; only 1/255 is served.")] = None,
    version: Annotated[str, typer.Option(help="Version of the new pack.")] = "1.0.0",
    patch: Annotated[int | None, typer.Option(help="Patch side, px; default: as the file says.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone, such as VGG16DrV2; default: as the file says.")] = None,
    head: Annotated[str | None, typer.Option(help="Head, such as GAP; default: as the file says.")] = None,
    title: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a pack of that id and version.")] = False,
    models_dir: ModelsDir = None,
) -> None:
    """Make a pack of a Keras or TensorFlow model file; nothing in the file is run."""
    from hepamap.exchange.importing import ImportRequest
    from hepamap.exchange.importing import import_model as run

    request = ImportRequest(
        file, identifier, version, mpp, tumour_index, scaling, patch, backbone, head, title=title, licence=licence
    )
    imported = run(request, models_dir or Settings().models_dir, overwrite=overwrite)
    spec = imported.pack.manifest
    typer.echo(f"pack: {imported.pack.folder}")
    typer.echo(f"network: {spec.network.backbone} + {spec.network.head}, {spec.input.patch} px at {spec.input.mpp:g} µm/px")
    report = imported.report
    typer.echo(
        f"largest difference of a probability before and after: {imported.max_abs_difference:.3g}, "
        f"on {report['patches']} patches that the file's weights give {report['lowest']:.4f} to {report['highest']:.4f}"
    )
    for note in imported.notes:
        typer.echo(f"note: {note}")


def export_model(
    model: Annotated[str, typer.Argument(help="id or id@version")],
    file: Annotated[Path, typer.Argument(help="File to write; its name ends in .keras.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    models_dir: ModelsDir = None,
) -> None:
    """Write a pack's network with its weights as a Keras file."""
    from hepamap.exchange.exporting import export_model as run
    from hepamap.model_pack import find_pack

    run(find_pack(models_dir or Settings().models_dir, model), file, overwrite=overwrite)
    typer.echo(f"file: {file}")
