"""`hepamap serve` and `hepamap worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hepamap.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on.")] = None,
    slide_root: Annotated[
        list[Path] | None, typer.Option(help="Folder from which slides may be analysed; may be given several times.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for jobs, results and uploads.")] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Folder of the model packs.")] = None,
) -> None:
    """Serve the REST interface, with one worker process beside it. What is not given comes from HEPAMAP_… variables."""
    from hepamap.api.serve import serve as run
    from hepamap.jobs.processes import configure_logging

    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "slide_roots": tuple(slide_root) if slide_root else None,
        "data_dir": data_dir,
        "models_dir": models_dir,
    }
    configure_logging()
    run(Settings(**{key: value for key, value in given.items() if value is not None}))


def worker() -> None:
    """Take jobs and analyse slides until stopped; the server starts one by itself."""
    from hepamap.jobs.processes import configure_logging
    from hepamap.worker.main import run_worker

    configure_logging()
    run_worker(Settings())
