from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine, MetaData, select

from hepamap.access.errors import CredentialsInvalidError, KeyExpiredError, KeyInvalidError, KeyNotFoundError
from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from tests.clock import Clock

YEAR = timedelta(days=365)
READ = frozenset({Scope.READ})


@pytest.fixture
def keys(engine: Engine, clock: Clock) -> KeyStore:
    return KeyStore(engine, clock=clock)


def test_a_key_opens_what_it_was_made_for(keys: KeyStore) -> None:
    made = keys.create("LIS", [Scope.READ, Scope.ANALYSE], YEAR)
    caller = keys.caller_of(made.secret)
    assert caller.id == f"key:{made.key.id}"
    assert caller.scopes == {Scope.READ, Scope.ANALYSE}


def test_the_secret_is_stored_nowhere(keys: KeyStore, engine: Engine) -> None:
    made = keys.create("LIS", READ, YEAR)
    keys.caller_of(made.secret)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        dump = str([connection.execute(select(table)).all() for table in tables.sorted_tables])
    assert made.key.id in dump
    assert made.secret.removeprefix(f"hm_{made.key.id}_") not in dump


def test_secrets_are_256_bits_each_and_differ(keys: KeyStore) -> None:
    secrets = [keys.create("LIS", READ, YEAR).secret for _ in range(20)]
    assert len({secret[-43:] for secret in secrets}) == 20
    assert all(secret.startswith("hm_") and len(secret) == 3 + 12 + 1 + 43 for secret in secrets)


def test_nothing_else_opens(keys: KeyStore) -> None:
    secret = keys.create("LIS", READ, YEAR).secret
    last = "A" if secret[-1] != "A" else "B"
    other_id = f"hm_{'0' * 12}_{secret[-43:]}"
    for wrong in ("", "hm_", secret[:-1], secret[:-1] + last, secret + "A", secret.upper(), other_id, secret + "\n", "hm_é"):
        with pytest.raises(CredentialsInvalidError):
            keys.caller_of(wrong)


def test_a_key_expires_at_its_time_and_not_before(keys: KeyStore, clock: Clock) -> None:
    secret = keys.create("LIS", READ, timedelta(days=1)).secret
    clock.advance(days=1, microseconds=-1)
    assert keys.caller_of(secret).scopes == READ
    clock.advance(microseconds=1)
    with pytest.raises(KeyExpiredError, match="2026-01-02 00:00"):
        keys.caller_of(secret)


def test_a_key_without_an_end_does_not_expire(keys: KeyStore, clock: Clock) -> None:
    secret = keys.create("LIS", READ, None).secret
    clock.advance(days=100_000)
    assert keys.caller_of(secret).scopes == READ


def test_a_revoked_key_opens_nothing_and_stays_on_the_list(keys: KeyStore, clock: Clock) -> None:
    made = keys.create("LIS", READ, YEAR)
    first = keys.revoke(made.key.id)
    clock.advance(hours=1)
    assert keys.revoke(made.key.id) == first
    with pytest.raises(CredentialsInvalidError):
        keys.caller_of(made.secret)
    assert [key.revoked_at for key in keys.list()] == [first.revoked_at]
    with pytest.raises(KeyNotFoundError):
        keys.revoke("nobody")


def test_rotation_leaves_the_old_key_open_for_the_grace_time(keys: KeyStore, clock: Clock) -> None:
    old = keys.create("LIS", [Scope.READ, Scope.ANALYSE], YEAR)
    new = keys.rotate(old.key.id, grace=timedelta(hours=24), lifetime=YEAR)
    assert (new.key.name, new.key.scopes) == (old.key.name, old.key.scopes)
    assert new.key.id != old.key.id
    clock.advance(hours=23)
    assert keys.caller_of(old.secret).id == f"key:{old.key.id}"
    clock.advance(hours=1)
    with pytest.raises(KeyExpiredError):
        keys.caller_of(old.secret)
    assert keys.caller_of(new.secret).id == f"key:{new.key.id}"
    with pytest.raises(KeyInvalidError, match="no longer valid"):
        keys.rotate(old.key.id, grace=timedelta(0), lifetime=YEAR)


def test_rotation_never_prolongs_the_old_key(keys: KeyStore, clock: Clock) -> None:
    old = keys.create("LIS", READ, timedelta(hours=1))
    keys.rotate(old.key.id, grace=timedelta(hours=24), lifetime=YEAR)
    clock.advance(hours=1)
    with pytest.raises(KeyExpiredError):
        keys.caller_of(old.secret)


def test_use_is_noted_by_the_minute(keys: KeyStore, clock: Clock) -> None:
    secret = keys.create("LIS", READ, YEAR).secret
    start = clock.now
    for _ in range(3):  # at 0, 40 and 80 s; the second is within the minute of the first
        keys.caller_of(secret)
        noted = keys.list()[0].last_used_at
        clock.advance(seconds=40)
    assert noted == start + timedelta(seconds=80)


@pytest.mark.parametrize(
    ("name", "scopes", "lifetime"),
    [("", READ, YEAR), ("x" * 101, READ, YEAR), ("a\nb", READ, YEAR), ("LIS", (), YEAR), ("LIS", READ, timedelta(0))],
)
def test_keys_that_cannot_be_made(keys: KeyStore, name: str, scopes: frozenset[Scope], lifetime: timedelta) -> None:
    with pytest.raises(KeyInvalidError):
        keys.create(name, scopes, lifetime)
    assert keys.list() == ()
