"""Runs the server until it is stopped."""

from __future__ import annotations

import gc
import socket
from contextlib import closing, suppress
from datetime import UTC, datetime
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from hepamap.access.keys import KeyStore
from hepamap.access.protection import require_protected
from hepamap.api.app import create_app
from hepamap.api.lines import protocol_of
from hepamap.jobs.store import JobStore
from hepamap.operations.folders import make_folders
from hepamap.settings import Settings

_log = structlog.stdlib.get_logger(__name__)

# Time that open requests have to end at shutdown, seconds; an upload that takes longer is cut off.
_GRACE_S = 5


def serve(settings: Settings) -> None:
    """Serve HTTP until SIGTERM or SIGINT.

    Raises:
        UnprotectedError: the settings would let anybody in.
        OutputNotWritableError: the data folder cannot be made.
        JobStoreError: the job database cannot be opened.
    """
    # Once before uvicorn, which would show what goes wrong at the start as a traceback.
    require_protected(settings)
    make_folders(settings)
    with closing(JobStore.open(settings.database)) as store:
        _warn_if_closed_to_all(settings, store)
    _log.info("server_starting", url=f"http://{settings.host}:{settings.port}", data=str(settings.data_dir))
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # The caller has set up logging, and the app logs each request itself.
        log_config=None,
        http=protocol_of(settings.upload_silence_s),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, app)
    # Once all is closed, uvicorn raises again the signal that ended it; that the server stopped as asked is no failure.
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise SystemExit(3)  # as uvicorn's own start does


def spare_the_loaded() -> None:
    """Take all that is loaded by now out of the garbage collector's rounds.

    It stays for as long as the server, and walking through it took a tenth of a second, in the middle of answers.
    """
    gc.collect()
    gc.freeze()


class _Server(uvicorn.Server):
    """Lets go of clients that wait when it is told to stop: they would hold it up for all the time of grace."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        spare_the_loaded()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        services = getattr(self._app.state, "services", None)
        if services is not None:
            services.watch.close()
        super().handle_exit(sig, frame)


def _warn_if_closed_to_all(settings: Settings, store: JobStore) -> None:
    """A server that nobody can use is safe, so it starts; but somebody will wonder."""
    if settings.access == "keys" and not settings.oidc_issuer:
        now = datetime.now(UTC)
        if not any(key.valid_at(now) for key in KeyStore(store.engine).list()):
            _log.warning("no_valid_key", cure="Make one: hepamap keys create <name>.")
