"""`hepamap phantom`: synthetic slides with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hepamap.cli.console import progress_bar
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.pipeline import Progress


def phantom(
    out: Annotated[Path, typer.Argument(help="The slide to write, e.g. slide.tif; its truth goes beside it as .geojson.")],
    kind: Annotated[Literal["resection", "biopsy"], typer.Option(help="A slice of liver, or needle cores.")] = "resection",
    mpp: Annotated[float, typer.Option(help="Pixel size, µm.")] = 0.5,
    width_mm: Annotated[float, typer.Option(help="Width of the slide, mm.")] = 8.0,
    height_mm: Annotated[float, typer.Option(help="Height of the slide, mm.")] = 6.0,
    seed: Annotated[int, typer.Option(help="Another seed is another slide; the same seed is the same tissue.")] = 0,
    content: Annotated[Literal["mixed", "liver", "tumour", "glass"], typer.Option(help="Which tissue lies on it.")] = "mixed",
    artefacts: Annotated[bool, typer.Option(help="Ink, folds, bubbles, blurred and pale areas, black borders.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier slide.")] = False,
) -> None:
    """Make a synthetic H&E slide of liver with tumour, and its exact truth as QuPath GeoJSON."""
    from hepamap.phantom import PhantomSpec, write_phantom

    spec = PhantomSpec(
        kind=kind,
        width_um=width_mm * 1000,
        height_um=height_mm * 1000,
        mpp_x=mpp,
        seed=seed,
        content=content,
        artefacts=artefacts,
    )
    if out.exists() and not overwrite:
        raise OutputExistsError(f"There is a file {out.name} already.", cure="Give another name, or --overwrite.")
    truth = out.with_suffix(".geojson")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar(out.name) as show:
            write_phantom(spec, out, truth, progress=lambda done, total: show(Progress(done, total, "painting")))
    except OSError as error:
        raise OutputNotWritableError(
            f"The slide {out} cannot be written: {error.strerror or error}.",
            cure="Choose a folder that you may write to, with room.",
        ) from error
    size = spec.size_l0
    typer.echo(f"{out} ({size.width} × {size.height} px, {mpp:g} µm/px), truth in {truth}")
