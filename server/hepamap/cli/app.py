"""The command `hepamap`: its verbs, and how errors reach the user."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from hepamap import RESEARCH_USE_ONLY, __version__
from hepamap.cli import (
    audit,
    bench,
    detect,
    doctor,
    evaluation,
    keys,
    models,
    panels,
    phantom,
    qupath,
    server,
    study,
    training,
    verdicts,
)
from hepamap.cli.console import report_error
from hepamap.errors import HepamapError
from hepamap.settings import settings_failure

_INTERRUPTED = 130

app = typer.Typer(
    name="hepamap",
    help=f"Find hepatocellular carcinoma on H&E whole-slide images. {RESEARCH_USE_ONLY}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("detect")(detect.detect)
app.command("bench")(bench.bench)
app.command("bench-memory")(bench.bench_memory)
app.command("bench-threshold")(bench.bench_threshold)
app.command("serve")(server.serve)
app.command("worker")(server.worker)
app.command("gc")(server.gc)
app.command("phantom")(phantom.phantom)
app.command("train")(training.train)
app.command("evaluate")(evaluation.evaluate)
app.command("compare")(training.compare)
app.add_typer(training.dataset_app, name="dataset")
study.study_app.command("panels")(panels.panels)
app.add_typer(study.study_app, name="study")
app.add_typer(models.models_app, name="models")
app.command("qupath-script")(qupath.qupath_script)
app.command("doctor")(doctor.doctor)
app.add_typer(keys.keys_app, name="keys")
app.add_typer(audit.audit_app, name="audit")
app.add_typer(verdicts.verdicts_app, name="verdicts")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hepamap {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; foreseen errors become one sentence with its cure, and exit status 1."""
    # A polite kill ends as Ctrl-C does: half-written results are removed on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except HepamapError as error:
        report_error(error)
        sys.exit(1)
    except (ValidationError, SettingsError) as error:
        failure = settings_failure(error)
        if failure is None:
            raise
        report_error(failure)
        sys.exit(1)
    except SystemExit as ended:  # typer makes one of a KeyboardInterrupt, without a word
        if ended.code == _INTERRUPTED:
            _say_stopped()
        raise
    except KeyboardInterrupt:
        _say_stopped()
        sys.exit(_INTERRUPTED)


def _say_stopped() -> None:
    typer.echo("Stopped. No result is half-written. What can go on will, when given again (train: --resume).", err=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
