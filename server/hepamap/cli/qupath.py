"""`hepamap qupath-script`: the client for QuPath as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def qupath_script(
    out: Annotated[Path, typer.Option(help="File to write, such as hepamap.groovy.")],
    server: Annotated[
        str, typer.Option(help="Address of the server, such as http://pathology-server:8000; else QuPath's user says it.")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write the client for QuPath as one script; a running server gives the same at /qupath/hepamap.groovy."""
    from hepamap.errors import OutputExistsError, OutputNotWritableError
    from hepamap.qupath_client.assembly import assemble
    from hepamap.qupath_client.sources import read_sources, sources_folder

    script = assemble(read_sources(sources_folder()), server)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"There is a file {out.name} already.", cure="Give another name, or add --overwrite.")
    try:
        out.write_text(script, encoding="utf-8")
    except OSError as error:
        raise OutputNotWritableError(
            f"The script cannot be written to {out.name} ({error.strerror}).",
            cure="Give a file in a folder that you may write to.",
        ) from error
    typer.echo(f"script: {out}")
