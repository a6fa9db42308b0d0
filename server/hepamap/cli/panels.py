"""`hepamap study panels`: the paper's figure 6 of one slide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hepamap.cli.console import progress_bar, report_remarks
from hepamap.cli.training import ExcludedClasses, ModelsDir, NonTumourClasses, TumourClasses
from hepamap.settings import Settings


def panels(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    annotations: Annotated[Path, typer.Option(help="What was drawn on it: GeoJSON, .ndpa or XML.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    model_5x: Annotated[str, typer.Option("--model-5x", help="Pack, id or id@version.")] = "hcc-5x",
    model_10x: Annotated[str, typer.Option("--model-10x", help="Pack, id or id@version.")] = "hcc-10x",
    unet: Annotated[str, typer.Option(help="Pack of a U-Net.")] = "unet-5x",
    fcn: Annotated[str, typer.Option(help="Pack of an FCN.")] = "fcn-5x",
    unannotated: Annotated[
        Literal["ignore", "non_tumour"], typer.Option(help="What tissue outside of all annotations is; see `dataset build`.")
    ] = "ignore",
    frame: Annotated[Literal["qupath", "level0"], typer.Option(help="Where the annotations count from.")] = "qupath",
    mpp: Annotated[float | None, typer.Option(help="Pixel size of the slide, µm, where the file does not say it.")] = None,
    tumour_class: TumourClasses = None,
    non_tumour_class: NonTumourClasses = None,
    exclude_class: ExcludedClasses = None,
    models_dir: ModelsDir = None,
) -> None:
    """Draw six panels of a slide: the annotations, 5X without and with overlap, 10X, U-Net and FCN.

    Keeps the maps in a folder beside the picture, so that a stopped run goes on.
    """
    from hepamap.detection import Detector
    from hepamap.model_pack import find_pack
    from hepamap.training.class_map import DEFAULT_CLASSES
    from hepamap.training.cohort import CohortSlide
    from hepamap.training.evaluation.kept_maps import KeptMaps
    from hepamap.training.panels import compute_panels, draw_panels, looks, prepare_picture
    from hepamap.training.remarks import remarks_on

    settings = Settings()
    folder = models_dir or settings.models_dir
    ways = looks(*(find_pack(folder, name) for name in (model_5x, model_10x, unet, fcn)))
    row = CohortSlide(slide, annotations, "slide", "test", unannotated, frame, mpp)
    classes = DEFAULT_CLASSES.with_names(tumour_class, non_tumour_class, exclude_class)
    report_remarks(remarks_on([row], classes))
    maps = KeptMaps(prepare_picture(out), Detector(folder, settings.precision))
    with progress_bar("panels") as show:
        figure = compute_panels(row, ways, maps, classes=classes, progress=show)
    draw_panels(figure, out)
    for panel in figure.panels:
        if panel.iou is not None:
            typer.echo(f"{panel.title}: intersection over union with the annotations {panel.iou:.3f}")
    typer.echo(f"picture: {out}")
