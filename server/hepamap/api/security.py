"""The gate in front of every call: which host is meant, which web page asks, who the caller is, what that caller may do.

It stands before the routes and refuses what it does not know, so that a new route is closed until somebody opens it here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hepamap.access import scopes
from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.access.errors import (
    CredentialsError,
    CredentialsMissingError,
    RateLimitedError,
    ScopeMissingError,
)
from hepamap.access.keys import PREFIX, KeyStore, may_be_key
from hepamap.access.rates import RateLimiter, Recent, origin_of
from hepamap.access.scopes import ANONYMOUS, LOCAL, Caller
from hepamap.access.tokens import TokenRules, TokenVerifier
from hepamap.api.errors import HostNotAllowedError, OriginNotAllowedError, answer_foreseen
from hepamap.api.metrics import METHODS
from hepamap.api.middleware import request_id_of
from hepamap.api.noting import Notes
from hepamap.api.views import API_PREFIX
from hepamap.errors import HepamapError
from hepamap.settings import Settings

PUBLIC = frozenset({"/health/live", "/health/ready", "/version", "/qupath/", "/qupath/hepamap.groovy"})
"""What anybody may ask: load balancers, and QuPath before it has a key. What is for QuPath is under the prefix of the API too."""
METRICS = "/metrics"
CLIENT_GONE = 499
"""In the audit trail, as nginx has it: the client went away before there was an answer."""

_PUBLIC_TOO = frozenset(API_PREFIX + path for path in PUBLIC if path.startswith("/qupath/"))
_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
_READING = ("GET", "HEAD", "OPTIONS")
_CREATED = (HTTPStatus.CREATED, HTTPStatus.ACCEPTED)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def scope_of(method: str, path: str, *, metrics_public: bool = False) -> scopes.Scope | None:
    """What a call demands; None: nothing."""
    if path in PUBLIC or (path == METRICS and metrics_public) or path in _PUBLIC_TOO:
        return None
    if path == METRICS or _within(path, f"{API_PREFIX}/audit"):
        return scopes.Scope.ADMIN
    if _within(path, f"{API_PREFIX}/uploads"):
        return scopes.Scope.ANALYSE
    return scopes.Scope.READ if method in _READING else scopes.Scope.ANALYSE


def _within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")


@dataclass(frozen=True, slots=True)
class Access:
    """What the gate works with; on the app's state while the server runs."""

    keys: KeyStore | None
    """None: nobody is asked for credentials."""
    tokens: TokenVerifier | None
    notes: Notes | None
    limiter: RateLimiter
    known: Recent = field(default_factory=Recent)
    """Credentials that were right lately."""

    @classmethod
    def of(cls, settings: Settings, engine: Engine) -> Access:
        """As the settings say."""
        asked = settings.access == "keys"
        return cls(
            keys=KeyStore(engine) if asked else None,
            tokens=TokenVerifier(_token_rules(settings)) if asked and settings.oidc_issuer else None,
            notes=Notes.of(AuditTrail(engine)) if asked or settings.audit else None,
            limiter=RateLimiter(settings.requests_per_minute if asked else 0),
        )

    def admit(self, credentials: str | None, address: str) -> Caller:
        """Who asks, if it is not too often.

        Raises:
            CredentialsError: nobody that is known.
            RateLimitedError: the caller, or the address that sends wrong credentials, asks too often.
        """
        if self.keys is None:
            return LOCAL
        origin = origin_of(address)
        self._spare_the_database(credentials, origin)
        try:
            caller = self._caller(credentials, self.keys)
        except CredentialsError:
            self.known.forget(credentials or "")
            self.limiter.take(f"address:{origin}")
            raise
        self.known.add(credentials or "")
        self.limiter.take(caller.id)
        return caller

    def _spare_the_database(self, credentials: str | None, origin: str) -> None:
        """Where an address sends wrong credentials all the time, look up only so many more that were not right lately.

        Not none at all: behind the same address may be somebody with a right key that has not been used before.
        """
        if credentials is None or credentials in self.known or not self.limiter.exhausted(f"address:{origin}"):
            return
        if may_be_key(credentials) or (self.tokens is not None and not credentials.startswith(PREFIX)):
            self.limiter.take(f"lookup:{origin}")

    def _caller(self, credentials: str | None, keys: KeyStore) -> Caller:
        if credentials is None:
            raise CredentialsMissingError(
                "This server asks for credentials, and the request has none.",
                cure="Send an API key in the header `Authorization: Bearer hm_…`; the operator makes keys (hepamap keys create).",
            )
        if self.tokens is not None and not credentials.startswith(PREFIX):
            return self.tokens.caller_of(credentials)
        return keys.caller_of(credentials)


def note_slide(request: Request, fingerprint: str) -> None:
    """Have the audit trail name the slide that a request is about."""
    request.state.audit_slide = fingerprint


class AccessGate:
    """Plain ASGI: it decides before the body of a request is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = settings.allowed_hosts or (_OWN_NAMES if settings.access == "off" else ("*",))
        self._origins = frozenset(settings.cors_origins)
        self._metrics_public = settings.metrics_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        # What the routes go by is `scope["path"]`, and so it is here; `request.url` is made with the header Host, which may hold
        # another path.
        access: Access = request.app.state.access
        scope.setdefault("state", {})
        caller = ANONYMOUS
        try:
            self._require_same_site(request.headers)
            demanded = scope_of(request.method, scope["path"], metrics_public=self._metrics_public)
            if demanded is not None:
                caller = await self._admit(request, access)
                _require_scope(caller, demanded)
        except HepamapError as error:
            await self._refuse(request, error, caller, access, send, receive)
            return
        scope["state"]["caller"] = caller.id
        notes = access.notes
        if notes is None or demanded is None or not scope["path"].startswith(f"{API_PREFIX}/"):
            await self._app(scope, receive, send)
            return
        witness = _Witness(request, caller, notes, send)
        if request.method not in _READING and not await witness.saw_it_begin():
            return
        try:
            await self._app(scope, receive, witness)
        except Exception as error:
            # It is answered further out, past the witness.
            await witness.saw_it_fail(error)
            raise

    def _require_same_site(self, headers: Headers) -> None:
        """Keep web pages out: a browser sends them here with its user's reach, but says whose page it is."""
        host = headers.get("host", "")
        if not _matches(_name_of(host), self._hosts):
            raise HostNotAllowedError(
                "This server is not called by that name.",
                cure="Call it by one of its own names; the operator lists them in HEPAMAP_ALLOWED_HOSTS.",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and origin.partition("://")[2] != host:
            raise OriginNotAllowedError(
                "Web pages of another site may not use this server.",
                cure="The operator can allow the page's site in HEPAMAP_CORS_ORIGINS.",
            )

    async def _admit(self, request: Request, access: Access) -> Caller:
        if access.keys is None:
            return LOCAL
        return await run_in_threadpool(access.admit, _credentials(request.headers), _address_of(request))

    async def _refuse(
        self, request: Request, error: HepamapError, caller: Caller, access: Access, send: Send, receive: Receive
    ) -> None:
        response = answer_foreseen(request, error)
        if isinstance(error, RateLimitedError):
            response.headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, CredentialsError):
            detail = "" if isinstance(error, CredentialsMissingError) else ', error="invalid_token"'
            response.headers["WWW-Authenticate"] = f'Bearer realm="hepamap"{detail}'
        if isinstance(error, ScopeMissingError):
            response.headers["WWW-Authenticate"] = 'Bearer realm="hepamap", error="insufficient_scope"'
        if access.notes is not None and response.status_code in _REFUSED:
            send = _Witness(request, caller, access.notes, send)
        await response(request.scope, receive, send)


class _Witness:
    """Writes the audit trail: what nobody could write down is not done or shown.

    The answer is written down before it leaves. Where a request may change something, so is that it was made, before anything is
    done: else a server that is killed in between would leave a change that nobody made.
    """

    def __init__(self, request: Request, caller: Caller, notes: Notes, send: Send) -> None:
        self._request = request
        self._caller = caller
        self._notes = notes
        self._send = send
        self._failed = False
        self._answered = False

    async def saw_it_begin(self) -> bool:
        """Write down that the request was made; where that fails it is answered, and must go no further."""
        # Clients choose their methods freely, of any length.
        method = self._request.method
        name = method.lower() if method in METHODS else "other"
        await self._append(self._event(f"request.{name}", HTTPStatus.PROCESSING))
        return not self._failed

    async def saw_it_fail(self, error: Exception) -> None:
        """Write down that a request has ended without an answer of its own: it crashed, or its client has gone."""
        if not self._answered:
            status = CLIENT_GONE if isinstance(error, ClientDisconnect) else HTTPStatus.INTERNAL_SERVER_ERROR
            await self._append(self._event(self._action(), status))

    async def __call__(self, message: Message) -> None:
        """Pass on a part of the answer."""
        if message["type"] == "http.response.start":
            self._answered = True
            created = Headers(raw=message["headers"]).get("location") if message["status"] in _CREATED else None
            await self._append(self._event(self._action(), int(message["status"]), created))
        if not self._failed:
            await self._send(message)

    async def _append(self, event: AuditEvent) -> None:
        try:
            await run_in_threadpool(self._notes.append, event, _address_of(self._request))
        except HepamapError as error:
            self._failed = True
            await answer_foreseen(self._request, error)(self._request.scope, self._request.receive, self._send)

    def _action(self) -> str:
        name: str = getattr(self._request.scope.get("route"), "name", "refused")
        return name

    def _event(self, action: str, status: int, created: str | None = None) -> AuditEvent:
        request = self._request
        named = _UUID.search(created or request.scope["path"])
        return AuditEvent(
            actor=self._caller.id,
            action=action,
            status=status,
            # Only ids: whatever else a client may put into an address could name a patient.
            object=named[0] if named else None,
            slide=getattr(request.state, "audit_slide", None),
            request_id=request_id_of(request.scope),
        )


def _require_scope(caller: Caller, demanded: scopes.Scope) -> None:
    if demanded not in caller.scopes:
        raise ScopeMissingError(
            f"This call needs the scope {demanded.value!r}, which the caller does not have.",
            cure="Use a key that has it; the operator makes keys (hepamap keys create --scope …).",
        )


def _address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _credentials(headers: Headers) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key")


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _matches(name: str, allowed: Sequence[str]) -> bool:
    return any(
        pattern == "*" or name == pattern.lower() or (pattern.startswith("*.") and name.endswith(pattern[1:].lower()))
        for pattern in allowed
    )


def _token_rules(settings: Settings) -> TokenRules:
    return TokenRules(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        jwks=settings.oidc_jwks,
        scope_claim=settings.oidc_scope_claim,
        scopes={word: scopes.Scope(name) for word, name in settings.oidc_scopes.items()},
    )
