"""`hepamap detect`: slides in, result folders out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hepamap.cli.console import progress_bar, report_error
from hepamap.detection import DEFAULT_MIN_AREA_UM2, DetectionRequest, DetectionSummary, Detector
from hepamap.detection import detect as run
from hepamap.errors import HepamapError, NotASlideError, RegionInvalidError
from hepamap.settings import Settings
from hepamap.slide_files import is_dicom_folder, looks_like_slide


def detect(
    slides: Annotated[list[Path], typer.Argument(help="Slide files, folders of slides, or folders of one DICOM slide.")],
    out: Annotated[Path, typer.Option(help="Folder for the result; with several slides, one folder for each in it.")],
    model: Annotated[
        str | None, typer.Option(help="Model pack: id or id@version; from HEPAMAP_DEFAULT_MODEL if not given.")
    ] = None,
    region: Annotated[Path | None, typer.Option(help="GeoJSON file with the region to look at.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step between patches, model px; default: as the model says.")] = None,
    mode: Annotated[
        Literal["patch", "dense", "segment"] | None,
        typer.Option(help="Each patch alone, or the convolutions shared by all patches (faster); default: as the model says."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Tumour probability, between 0 and 1.")] = None,
    min_area_um2: Annotated[float, typer.Option(help="Smaller regions and holes are left out, µm².")] = DEFAULT_MIN_AREA_UM2,
    mpp: Annotated[float | None, typer.Option(help="Pixel size of the slide, µm, where it is missing or wrong.")] = None,
    frame: Annotated[
        Literal["qupath", "level0"],
        typer.Option(help="Coordinates of contours and region: as QuPath shows the slide, or OpenSlide's level 0."),
    ] = "qupath",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    precision: Annotated[
        Literal["auto", "float32", "mixed"] | None,
        typer.Option(help="Arithmetic of the network; auto: mixed on a GPU, else float32."),
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of the model packs.")] = None,
) -> None:
    """Find tumour on slides and write contours, probability map and pictures.

    Ends with status 1 when any slide failed; the others are done all the same.
    """
    settings = Settings()
    detector = Detector(models_dir or settings.models_dir, precision or settings.precision)
    region_json = None if region is None else read_region_file(region)
    found = _slides_in(slides)
    single = len(slides) == 1 and found == slides
    failed = 0
    for slide, folder in zip(found, _folders(found, out, single=single), strict=True):
        request = DetectionRequest(
            slide_path=slide,
            model=model or settings.default_model,
            stride_m=stride,
            mode=mode,
            threshold=threshold,
            min_area_um2=min_area_um2,
            region=region_json,
            mpp_override_um=mpp,
            frame="bounds" if frame == "qupath" else "level0",
        )
        try:
            with progress_bar(slide.name) as show:
                summary = run(request, folder, detector, overwrite=overwrite, progress=show)
            _report(slide, folder, summary)
        except HepamapError as error:
            report_error(error, "" if single else slide.name)
            failed += 1
    if len(found) > 1:
        typer.echo(f"{len(found) - failed} of {len(found)} slides done, {failed} failed.")
    if failed:
        raise typer.Exit(1)


def read_region_file(path: Path) -> Any:
    """The content of a GeoJSON file.

    Raises:
        RegionInvalidError: it cannot be read as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RegionInvalidError(
            f"The region file {path.name} cannot be read as GeoJSON.", cure="Export the region from QuPath as GeoJSON."
        ) from error


def _slides_in(paths: list[Path]) -> list[Path]:
    """The slides that are meant, folders opened up.

    Raises:
        NotASlideError: there is none in any of them.
    """
    slides: list[Path] = []
    for path in paths:
        try:
            is_folder = path.is_dir() and not is_dicom_folder(path)
            slides += [item for item in sorted(path.iterdir()) if looks_like_slide(item)] if is_folder else [path]
        except OSError:
            slides.append(path)  # opening it will say why
    if not slides:
        raise NotASlideError(
            "There is no slide in what was given.", cure="Give slide files, or folders with slides directly in them."
        )
    return slides


def _folders(slides: list[Path], out: Path, *, single: bool) -> list[Path]:
    """Where each result goes; slides that share a stem keep their whole names."""
    if single:
        return [out]
    stems = [slide.stem for slide in slides]
    names = [slide.name if stems.count(slide.stem) > 1 else slide.stem for slide in slides]
    return [out / (name if names.count(name) == 1 else f"{index:03d}-{name}") for index, name in enumerate(names)]


def _report(slide: Path, folder: Path, summary: DetectionSummary) -> None:
    result = summary.result
    typer.echo(
        f"{slide.name}: {summary.outcome}, {_tumour(result)}, tissue {result['tissue_area_mm2']:.2f} mm², "
        f"{result['seconds']['total']:.0f} s -> {folder}"
    )
    for warning in summary.warnings:
        typer.echo(f"  warning: {warning['message']} [{warning['code']}]")


def _tumour(result: Mapping[str, Any]) -> str:
    area_mm2, regions = result["tumour_area_mm2"], result["tumour_regions"]
    if area_mm2 is None:
        return "no contours"
    return f"tumour {area_mm2:.2f} mm² in {regions} {'region' if regions == 1 else 'regions'}"
