"""Around every request: an id, the notice, a line in the log, and the last resort."""

from __future__ import annotations

import re
import time
import uuid
from http import HTTPStatus

import structlog
from anyio import move_on_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hepamap import RESEARCH_USE_ONLY
from hepamap.api.errors import internal_error
from hepamap.api.metrics import RequestMetrics
from hepamap.api.views import API_PREFIX

_log = structlog.stdlib.get_logger(__name__)

# Only what machines make (UUIDs, with dashes and without, ULIDs, traceparents): the id goes into logs, the audit trail and jobs,
# and anything else might be an accession number.
_USABLE_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"
    r"|[0-7][0-9a-hjkmnp-tv-z]{25}"
    r"|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    re.IGNORECASE | re.ASCII,
)


class RequestFrame:
    """Plain ASGI and not starlette's BaseHTTPMiddleware, which would buffer streams and hide disconnects."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, silence_s: float) -> None:
        self._app = app
        self._silence_s = silence_s
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _usable_request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status: int | None = None

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                # Also on pictures and arrays, which have no other place for it.
                headers["X-Notice"] = RESEARCH_USE_ONLY
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, _impatient(receive, self._silence_s), send_framed)
            except ClientDisconnect:
                _log.info("client_disconnected", route=route_of(scope))
            except Exception:
                _log.exception("request_crashed", method=scope["method"], route=route_of(scope))
                if status is None:
                    await internal_error(scope["path"], request_id)(scope, receive, send_framed)
            duration_s = time.perf_counter() - started
            self._metrics.observe(scope["method"], route_of(scope), status, duration_s)
            # Clients that wait ask again and again; what went well and changed nothing is of no interest later.
            quiet = scope["method"] in ("GET", "HEAD") and status is not None and status < 400
            (_log.debug if quiet else _log.info)(
                "request",
                method=scope["method"],
                route=route_of(scope),
                status=status,
                caller=scope["state"].get("caller"),
                duration_ms=round(duration_s * 1000, 1),
            )


def _impatient(receive: Receive, silence_s: float) -> Receive:
    """The same, but a body that stops coming is a failed request; after its end only the client's going is waited for."""
    whole = False

    async def receive_in_time() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        with move_on_after(silence_s):
            message = await receive()
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT)

    return receive_in_time


def route_of(scope: Scope) -> str:
    """The route that answers, such as `/api/v1/analyses/{analysis_id}`; never the address itself, which may say anything."""
    route = scope.get("route")
    path: str = getattr(route, "path", "")
    if route is None:
        return "none"
    # Routers that are included keep the paths that they were made with.
    return API_PREFIX + path if scope["path"].startswith(API_PREFIX) and not path.startswith(API_PREFIX) else path


def request_id_of(scope: Scope) -> str | None:
    """The id that `RequestFrame` gave the request."""
    found: str | None = scope.get("state", {}).get("request_id")
    return found


def _usable_request_id(scope: Scope) -> str:
    """The caller's own id where it can be nothing else than one, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _USABLE_ID.fullmatch(given) else str(uuid.uuid4())
