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


def worker(
    alive: Annotated[
        bool, typer.Option("--alive", help="Start nothing: say whether a worker of this machine works; status 1 if none does.")
    ] = False,
) -> None:
    """Take jobs and analyse slides until stopped; the server starts one by itself."""
    if alive:
        _require_worker(Settings())
        return
    from hepamap.jobs.processes import configure_logging
    from hepamap.worker.main import run_worker

    configure_logging()
    run_worker(Settings())


def _require_worker(settings: Settings) -> None:
    """For the health check of a container: its worker writes into the database that it is there."""
    import socket
    from contextlib import closing

    from hepamap.jobs.database import connect
    from hepamap.jobs.store import JobStore

    with closing(JobStore(connect(settings.database))) as store:
        ours = [seen for seen in store.workers(silent_for_s=settings.worker_stale_s) if seen.host == socket.gethostname()]
    if not ours:
        typer.echo(f"No worker of this machine has given a sign of life in the last {settings.worker_stale_s:g} s.", err=True)
        raise typer.Exit(1)
    typer.echo(f"{len(ours)} worker(s) of this machine, last seen {max(seen.heartbeat_at for seen in ours):%H:%M:%S} UTC.")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only say what would go.")] = False,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Remove also what the database does not know: look at it first, with --dry-run."),
    ] = False,
) -> None:
    """Remove expired analyses and uploads, and files that a crash left; the server does the same once an hour.

    HEPAMAP_KEEP_RESULTS_DAYS and HEPAMAP_KEEP_UPLOADS_DAYS say how long they are kept. What an analysis that waits or runs
    needs is never removed; what the database does not know, because it may be another one's, only where you say so.
    """
    from contextlib import closing

    from hepamap.access.audit import AuditTrail
    from hepamap.cli.keys import account
    from hepamap.errors import OutputNotWritableError, reason_of
    from hepamap.jobs.database import open_existing
    from hepamap.jobs.retention import UNKNOWN_CURE, collect_garbage
    from hepamap.jobs.store import JobStore
    from hepamap.operations.keeping import keeping_of, noted_in

    settings = Settings()
    with closing(JobStore(open_existing(settings.database))) as store:
        noted = noted_in(AuditTrail(store.engine), account())
        try:
            removed = collect_garbage(store, keeping_of(settings), unknown=unknown, dry_run=dry_run, on_removed=noted)
        except OSError as error:
            raise OutputNotWritableError(
                f"The data folder {settings.data_dir} cannot be tidied ({reason_of(error)}).",
                cure="Run it as the server's account, where the data folder is.",
            ) from error
    for job in removed.jobs:
        typer.echo(f"analysis {job}")
    for folder in removed.folders:
        typer.echo(f"folder {folder}")
    if removed.unknown:
        typer.echo(f"{len(removed.unknown)} files or folders stay that the database does not know.", err=True)
        typer.echo(f"  {UNKNOWN_CURE}", err=True)
    done = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(removed.jobs)} analyses, {len(removed.folders)} folders, {removed.bytes / 1e6:.1f} MB {done}.")
