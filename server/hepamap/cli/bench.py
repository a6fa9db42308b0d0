"""`hepamap bench`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from hepamap.cli.console import progress_bar, report_warnings
from hepamap.cli.detect import read_region_file
from hepamap.settings import Settings


def bench(
    slide: Annotated[Path, typer.Argument(help="A slide with much tissue.")],
    model: Annotated[str, typer.Option(help="Model pack: id or id@version.")] = "hcc-5x",
    region: Annotated[Path | None, typer.Option(help="GeoJSON file with the region to look at, in level-0 px.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step between patches, model px; default: as the model says.")] = None,
    precision: Annotated[Literal["auto", "float32", "mixed"], typer.Option(help="Arithmetic of the network.")] = "auto",
    loop_patches: Annotated[int, typer.Option(min=1, help="Patches of the authors' loop that are timed.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of the model packs.")] = None,
) -> None:
    """Compare the authors' loop, patch mode and dense mode on one slide: patches a second, where the time goes, ratios."""
    from hepamap.benchmark import markdown, run_benchmark
    from hepamap.model_pack import find_pack

    pack = find_pack(models_dir or Settings().models_dir, model)
    shape = None if region is None else read_region_file(region)
    with progress_bar("bench") as show:
        report = run_benchmark(
            slide, pack, region=shape, stride_m=stride, precision=precision, loop_patches=loop_patches, progress=show
        )
    report_warnings(report.warnings)
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else markdown(report), nl=as_json)


def bench_memory(
    model: Annotated[str, typer.Option(help="Model pack: id or id@version.")] = "hcc-5x",
    mode: Annotated[Literal["patch", "dense"], typer.Option(help="Way to compute the map.")] = "dense",
    models_dir: Annotated[Path | None, typer.Option(help="Folder of the model packs.")] = None,
) -> None:
    """Peak memory of `hepamap detect` on slides of 20,000 × 14,000 and 100,000 × 70,000 px, tissue from edge to edge."""
    from hepamap.benchmark.memory import measure_memory

    reports = measure_memory(
        model, models_dir or Settings().models_dir, mode=mode, tell=lambda size: typer.echo(f"{size} …", err=True)
    )
    typer.echo("| slide (px) | peak memory (MB) | s |\n|---|---|---|")
    for report in reports:
        typer.echo(f"| {report.size.width} × {report.size.height} | {report.peak_mb:.0f} | {report.seconds:.0f} |")
    typer.echo(f"\nLargest over smallest slide: {reports[-1].peak_mb / reports[0].peak_mb:.3f}")


def bench_threshold() -> None:
    """Contours at a new threshold on the stored map of a whole resection, over REST: median and longest time."""
    from hepamap.benchmark.thresholds import markdown, measure_thresholds
    from hepamap.jobs.processes import configure_logging

    configure_logging(logging.WARNING)
    typer.echo(markdown(measure_thresholds()), nl=False)
