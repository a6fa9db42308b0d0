"""`hepamap verdicts export`: what people said about results, as a folder for training and evaluation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from hepamap.cli.keys import DataDir, note, opened

verdicts_app = typer.Typer(help="What people said about results: accepted, edited, rejected.", no_args_is_help=True)


@verdicts_app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    since: Annotated[datetime | None, typer.Option(help="Only verdicts of this time (UTC) or later.")] = None,
    split: Annotated[
        Literal["auto", "train", "val", "test"],
        typer.Option(help="What the slides are for; auto: 70 % training, 15 % validation, 15 % test, by case."),
    ] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write accepted and edited results as annotations with a table for `hepamap dataset build` and `hepamap evaluate`.

    Rejected results stand in verdicts.csv only: that contours are wrong does not say where tumour is.
    """
    from hepamap.verdicts.export import COHORT_NAME
    from hepamap.verdicts.export import export as run
    from hepamap.verdicts.store import VerdictStore

    with opened(data_dir) as engine:
        begin = None if since is None else since.replace(tzinfo=since.tzinfo or UTC)
        done = run(VerdictStore(engine), folder, since=begin, split=split, overwrite=overwrite)
        note(engine, "verdicts.export")
    typer.echo(
        f"{done.verdicts} verdicts; {done.edited} edited and {done.accepted} accepted in the annotations of {done.slides} slides"
    )
    for reason, count in done.left_out.items():
        typer.echo(f"  not in the annotations: {count} {reason}")
    if done.accepted:
        typer.echo("  Accepted contours are the model's own: a model that is measured on them looks better than it is.")
    typer.echo(f"table: {folder / COHORT_NAME}")
