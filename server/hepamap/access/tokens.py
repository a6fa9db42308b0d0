"""Bearer tokens of an identity provider (OpenID Connect): signed JWTs, checked against the provider's public keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import structlog

from hepamap.access.errors import CredentialsInvalidError, IdentityProviderError, TokenExpiredError
from hepamap.access.scopes import Caller, Scope

_log = structlog.stdlib.get_logger(__name__)

# Only signatures with a public key: with HS256 whoever knows the public key could sign.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_ALGORITHMS = (*_RSA, "ES256", "ES384", "ES512", "EdDSA")
# How far the provider's clock may differ from this one's, seconds.
_LEEWAY_S = 30.0
_FETCH_TIMEOUT_S = 5.0
# How long a token with an unknown key waits for the keys that somebody else fetches, seconds.
_WAIT_S = 2.0
# Keys are fetched anew after this time, seconds, so that one that the provider withdrew stops opening anything;
_FRESH_S = 300.0
# they are used for so long where the provider does not answer meanwhile;
_USABLE_S = 3600.0
# and a token with an unknown key makes the server ask again at most so often, whoever sends how many of them.
_RETRY_S = 10.0
_ID_MAX = 255

_ASK = "Sign in again, or ask the operator whether this server takes tokens of that provider."


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must be like."""

    issuer: str
    """Its `iss`."""
    audience: str
    """Must be in its `aud`."""
    jwks: str
    """The provider's public keys: URL, or path of a file."""
    scope_claim: str
    """The claim that says what the caller may do: a list, or words in a text; `a.b` also means member b of claim a."""
    scopes: Mapping[str, Scope]
    """What a word in that claim means."""


class TokenVerifier:
    """Checks tokens; may be used by many threads."""

    def __init__(self, rules: TokenRules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._keys = _KeySet(rules.jwks, clock)

    def caller_of(self, token: str) -> Caller:
        """Who sends this token.

        Raises:
            TokenExpiredError: its time is over.
            CredentialsInvalidError: it is no token, or none for this server.
            IdentityProviderError: the provider's keys cannot be had.
        """
        rules = self._rules
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in _ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            claims = jwt.decode(
                token,
                self._keys.find(header.get("kid")).meant_by(header["alg"]),
                algorithms=list(_ALGORITHMS),
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenExpiredError("The token has expired.", cure="Sign in again.") from error
        except jwt.PyJWTError as error:
            # The class says enough (InvalidAudienceError, …); the text may repeat what was sent.
            _log.info("token_refused", reason=type(error).__name__)
            raise CredentialsInvalidError("The token is none that this server takes.", cure=_ASK) from error
        words = set(_words(_claim(claims, rules.scope_claim)))
        # It goes into logs and the audit trail, and nobody promises what characters it has.
        subject = "".join(letter if letter.isprintable() else "?" for letter in claims["sub"])
        return Caller(f"oidc:{subject}"[:_ID_MAX], frozenset(rules.scopes[word] for word in words & set(rules.scopes)))


@dataclass(frozen=True, slots=True)
class _ProviderKey:
    """A public key of the provider."""

    data: Mapping[str, Any]
    """As the provider publishes it."""
    jwk: jwt.PyJWK

    def meant_by(self, algorithm: str) -> jwt.PyJWK:
        """The key for a token that names this algorithm: one of RSA that names none itself is good for all of RSA.

        The library takes it for one of RS256 alone. An algorithm of another kind gets the key as it is, which refuses it.
        """
        if self.jwk.key_type != "RSA" or self.data.get("alg") or algorithm not in _RSA:
            return self.jwk
        return jwt.PyJWK(dict(self.data), algorithm)


class _KeySet:
    """The provider's public keys, fetched when they are needed and kept for a while."""

    def __init__(self, place: str, clock: Callable[[], float]) -> None:
        self._place = place
        self._clock = clock
        self._changed = threading.Condition()
        self._refreshing = False
        self._keys: dict[str | None, _ProviderKey] = {}
        self._fetched_at = self._tried_at = -float("inf")

    def find(self, key_id: str | None) -> _ProviderKey:
        """The key of an id.

        Raises:
            jwt.InvalidKeyError: the provider has none of that id.
            IdentityProviderError: the keys cannot be had.
        """
        now = self._clock()
        with self._changed:
            known = now - self._fetched_at <= _FRESH_S and key_id in self._keys
            mine = not known and not self._refreshing and now - self._tried_at >= _RETRY_S
            if mine:
                self._refreshing, self._tried_at = True, now
            elif not known and not self._has(key_id, now):
                # Who has no key to go by needs what the one that asks gets; all others use what they have meanwhile.
                self._changed.wait_for(lambda: not self._refreshing, timeout=_WAIT_S)
        if mine:
            self._refresh(now)
        with self._changed:
            if now - self._fetched_at > _USABLE_S or (key_id not in self._keys and self._refreshing):
                raise IdentityProviderError(
                    "The public keys of the identity provider cannot be fetched.",
                    cure="Try again in a moment. If it stays so, the operator should check HEPAMAP_OIDC_JWKS and the network.",
                )
            if key_id not in self._keys:
                raise jwt.InvalidKeyError("unknown key")
            return self._keys[key_id]

    def _has(self, key_id: str | None, now: float) -> bool:
        return key_id in self._keys and now - self._fetched_at <= _USABLE_S

    def _refresh(self, now: float) -> None:
        """Ask the provider, without holding up those who know their key."""
        keys: dict[str | None, _ProviderKey] | None = None
        try:
            keys = {key.jwk.key_id: key for key in _usable(_fetch(self._place)) if key.jwk.public_key_use in (None, "sig")}
            if len(keys) == 1:
                # A token that names no key can only mean the only one.
                keys[None] = next(iter(keys.values()))
        except (jwt.PyJWTError, OSError, ValueError) as error:
            _log.warning("identity_provider_unavailable", reason=f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._refreshing = False
                if keys is not None:
                    self._keys, self._fetched_at = keys, now
                self._changed.notify_all()


def _fetch(place: str) -> Any:
    if place.startswith(("http://", "https://")):
        return jwt.PyJWKClient(place, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_S).fetch_data()
    return json.loads(Path(place).read_text(encoding="utf-8"))


def _usable(content: Any) -> list[_ProviderKey]:
    """The keys of a key set, without those of kinds that nobody here knows.

    Raises:
        ValueError: it is no key set.
        jwt.PyJWKSetError: there is none in it.
    """
    if not isinstance(content, dict) or not isinstance(content.get("keys", []), list):
        raise ValueError("it is no set of keys")
    found = []
    for data in content.get("keys", []):
        # A set of one, as the library skips what it does not know in sets alone.
        with suppress(jwt.PyJWKSetError):
            found += [_ProviderKey(data, jwk) for jwk in jwt.PyJWKSet([data]).keys]
    if not found:
        raise jwt.PyJWKSetError("there is no usable key in it")
    return found


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its whole name (some are URLs, with dots), else by the way to it."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))
