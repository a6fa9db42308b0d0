"""What the command line shows: errors, warnings, a progress bar with the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hepamap.errors import HepamapError
from hepamap.pipeline import Progress as Step


def report_error(error: HepamapError, subject: str = "") -> None:
    """Say what went wrong and what helps, on standard error."""
    about = f"{subject}: " if subject else ""
    typer.echo(f"error: {about}{error.message} [{error.code}]\n  {error.cure}", err=True)


def report_warnings(warnings: Iterable[Mapping[str, str]]) -> None:
    """Say what went otherwise than expected, on standard error: a table on standard output stays one."""
    for warning in warnings:
        typer.echo(f"  warning: {warning['message']} [{warning['code']}]", err=True)


def report_remarks(sentences: Iterable[str]) -> None:
    """Say what a reader must know of slides and annotations, on standard error."""
    for sentence in sentences:
        typer.echo(f"  warning: {sentence}", err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Step], None]]:
    """A bar on standard error that is fed with steps; silent where nobody looks at a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(title, total=None)

        def show(step: Step) -> None:
            bar.update(task, completed=step.done, total=step.total, description=f"{title}: {step.stage}")

        yield show
