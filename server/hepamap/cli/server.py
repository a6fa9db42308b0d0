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


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only say what would go.")] = False,
) -> None:
    """Remove expired analyses and uploads, and files that a crash left; the server does the same once an hour.

    HEPAMAP_KEEP_RESULTS_DAYS and HEPAMAP_KEEP_UPLOADS_DAYS say how long they are kept. What an analysis that waits or runs
    needs is never removed.
    """
    from contextlib import closing

    from hepamap.jobs.retention import collect_garbage
    from hepamap.jobs.store import JobStore
    from hepamap.operations.folders import make_folders
    from hepamap.operations.keeping import keeping_of

    settings = Settings()
    make_folders(settings)
    with closing(JobStore.open(settings.database)) as store:
        removed = collect_garbage(store, keeping_of(settings), dry_run=dry_run)
    for job in removed.jobs:
        typer.echo(f"analysis {job}")
    for folder in removed.folders:
        typer.echo(f"folder {folder}")
    done = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(removed.jobs)} analyses, {len(removed.folders)} folders, {removed.bytes / 1e6:.1f} MB {done}.")
