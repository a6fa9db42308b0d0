"""Runs the server until it is stopped."""

from __future__ import annotations

import structlog
import uvicorn

from hepamap.api.app import create_app, prepare_folders
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings

_log = structlog.stdlib.get_logger(__name__)

# Time that open requests have to end at shutdown, seconds; an upload that takes longer is cut off.
_GRACE_S = 5


def serve(settings: Settings) -> None:
    """Serve HTTP until SIGTERM or SIGINT.

    Raises:
        OutputNotWritableError: the data folder cannot be made.
        JobStoreError: the job database cannot be opened.
    """
    # Once before uvicorn, which would show what goes wrong at the start as a traceback.
    prepare_folders(settings)
    JobStore.open(settings.database).close()
    _log.info("server_starting", url=f"http://{settings.host}:{settings.port}", data=str(settings.data_dir))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        # The caller has set up logging, and the app logs each request itself.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
