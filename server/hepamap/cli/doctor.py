"""`hepamap doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hepamap.settings import Settings

_MARKS = {"ok": "ok     ", "warning": "WARNING", "broken": "BROKEN "}


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Folder for jobs, results and uploads.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of the model packs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look at folders, models, database, access, GPU and clock; every finding has a cure. Status 1 if something is broken."""
    from hepamap.operations.doctor import examine
    from hepamap.operations.findings import Level

    given: dict[str, Any] = {"data_dir": data_dir, "models_dir": models_dir}
    findings = []
    for finding in examine(Settings(**{name: value for name, value in given.items() if value is not None})):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{_MARKS[finding.level]} {finding.check}: {finding.detail}")
            if finding.cure is not None:
                typer.echo(f"        {finding.cure}")
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.level is Level.BROKEN for finding in findings):
        raise typer.Exit(1)
