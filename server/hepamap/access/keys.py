"""API keys: made here, shown once, stored as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from hepamap.access.errors import CredentialsInvalidError, KeyExpiredError, KeyInvalidError, KeyNotFoundError
from hepamap.access.scopes import Caller, Scope
from hepamap.access.tables import KeyRow
from hepamap.jobs.sessions import Sessions

PREFIX = "hm_"
"""How every secret begins, so that scanners for leaked secrets can find it."""

_SECRET_BYTES = 32
_ID_BYTES = 6
_NAME_MAX = 100
# `hm_<id>_<256 bits>`; the id is public and finds the row, the rest is what nobody can guess.
_FORM = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * _ID_BYTES}}})_[A-Za-z0-9_-]{{43}}")
# Written at most so often, so that a busy client does not make every read a write.
_USE_NOTED_EVERY = timedelta(minutes=1)

_UNKNOWN = "The API key is not one of this server, or it has been revoked."
_ASK = "Ask the operator for a new key (hepamap keys create)."


def may_be_key(secret: str) -> bool:
    """Whether it has the form of a key; what has not is refused without a look at the database."""
    return _FORM.fullmatch(secret) is not None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret. All times are UTC."""

    id: str
    name: str
    """Whose it is, in words that the operator chose."""
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""

    def valid_at(self, time: datetime) -> bool:
        """Whether the key opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or time < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and its secret, which is stored nowhere."""

    key: ApiKey
    secret: str


class KeyStore(Sessions):
    """The keys in the database; may be used by many threads."""

    def create(self, name: str, scopes: Iterable[Scope], lifetime: timedelta | None) -> NewKey:
        """Make a key.

        Args:
            name: whose it is, 1 to 100 characters.
            scopes: what it may do, at least one.
            lifetime: how long it is valid; None: until it is revoked.

        Raises:
            KeyInvalidError: one of these is not as it must be.
            JobStoreError: the database does not answer.
        """
        wanted = frozenset(scopes)
        if not name.strip() or len(name) > _NAME_MAX or not name.isprintable():
            raise KeyInvalidError(
                "The name of a key must have 1 to 100 printable characters.", cure="Name the system that will use it."
            )
        if not wanted:
            raise KeyInvalidError("The key would open nothing.", cure=f"Give it a scope: {', '.join(Scope)}.")
        if lifetime is not None and lifetime <= timedelta(0):
            raise KeyInvalidError("The key would have expired already.", cure="Give it a lifetime above zero.")
        with self.writing() as session:
            return self._add(session, name, wanted, None if lifetime is None else self._clock() + lifetime)

    def list(self) -> tuple[ApiKey, ...]:
        """All keys, oldest first; the revoked ones too."""
        with self.reading() as session:
            return tuple(_key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id)))

    def revoke(self, key_id: str) -> ApiKey:
        """End a key at once; one that is revoked stays as it is.

        Raises:
            KeyNotFoundError: there is none of that id.
        """
        with self.writing() as session:
            row = _require(session, key_id)
            row.revoked_at = row.revoked_at or self._clock()
            return _key(row)

    def rotate(self, key_id: str, *, grace: timedelta, lifetime: timedelta | None) -> NewKey:
        """Make a new key with the name and scopes of an old one, which stays valid for a while longer.

        Args:
            key_id: the old key.
            grace: how long the old one is still valid, so that its client can be changed without a gap.
            lifetime: of the new key; None: until it is revoked.

        Raises:
            KeyNotFoundError: there is no old key.
            KeyInvalidError: the old one is no longer valid, or a time is not above zero.
        """
        if grace < timedelta(0) or (lifetime is not None and lifetime <= timedelta(0)):
            raise KeyInvalidError("A time is below zero.", cure="Give times above zero.")
        now = self._clock()
        with self.writing() as session:
            old = _require(session, key_id)
            if not _key(old).valid_at(now):
                raise KeyInvalidError(f"The key {key_id} is no longer valid.", cure="Create a new one instead.")
            end = now + grace
            old.expires_at = end if old.expires_at is None else min(old.expires_at, end)
            expires_at = None if lifetime is None else now + lifetime
            return self._add(session, old.name, frozenset(Scope(scope) for scope in old.scopes), expires_at)

    def caller_of(self, secret: str) -> Caller:
        """Who sends this secret.

        Raises:
            CredentialsInvalidError: nobody of this server.
            KeyExpiredError: somebody whose time is over.
            JobStoreError: the database does not answer.
        """
        form = _FORM.fullmatch(secret)
        if form is None:
            raise CredentialsInvalidError(_UNKNOWN, cure=_ASK)
        now = self._clock()
        with self.reading() as session:
            row = session.get(KeyRow, form[1])
            # Compared also where there is no such key: the time taken must not tell which ids exist.
            same = hmac.compare_digest(_hash(secret), "" if row is None else row.secret_sha256)
            if row is None or not same or row.revoked_at is not None:
                raise CredentialsInvalidError(_UNKNOWN, cure=_ASK)
            key = _key(row)
        if not key.valid_at(now):
            raise KeyExpiredError(f"The API key expired at {key.expires_at:%Y-%m-%d %H:%M} UTC.", cure=_ASK)
        if key.last_used_at is None or key.last_used_at <= now - _USE_NOTED_EVERY:
            with self.writing() as session:
                session.execute(update(KeyRow).where(KeyRow.id == key.id).values(last_used_at=now))
        return Caller(f"key:{key.id}", key.scopes)

    def _add(self, session: Session, name: str, scopes: frozenset[Scope], expires_at: datetime | None) -> NewKey:
        key_id = secrets.token_hex(_ID_BYTES)
        secret = f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        row = KeyRow(
            id=key_id,
            name=name,
            secret_sha256=_hash(secret),
            scopes=sorted(scopes),
            created_at=self._clock(),
            expires_at=expires_at,
        )
        session.add(row)
        session.flush()
        return NewKey(_key(row), secret)


def _hash(secret: str) -> str:
    # One round of SHA-256 is enough: the secret has 256 random bits, so there is no dictionary to try.
    return hashlib.sha256(secret.encode()).hexdigest()


def _require(session: Session, key_id: str) -> KeyRow:
    row = session.get(KeyRow, key_id)
    if row is None:
        raise KeyNotFoundError(f"There is no API key {key_id!r}.", cure="See hepamap keys list for the ids.")
    return row


def _key(row: KeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
