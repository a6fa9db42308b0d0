from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from hepamap.access.errors import CredentialsInvalidError, IdentityProviderError, TokenExpiredError
from hepamap.access.scopes import Scope
from hepamap.access.tokens import TokenRules, TokenVerifier
from tests.access.provider import AUDIENCE, ISSUER, Provider, RsaKey, SigningKey, running_provider

SCOPES = {"hepamap.read": Scope.READ, "hepamap.analyse": Scope.ANALYSE}


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey("k1")


@pytest.fixture
def provider(key: SigningKey) -> Iterator[Provider]:
    with running_provider() as provider:
        provider.keys = [key]
        yield provider


def verifier(place: str, claim: str = "scope", clock: Seconds | None = None) -> TokenVerifier:
    return TokenVerifier(TokenRules(ISSUER, AUDIENCE, place, claim, SCOPES), clock=clock or Seconds())


def test_a_token_says_who_and_what(provider: Provider, key: SigningKey) -> None:
    caller = verifier(provider.url).caller_of(key.sign())
    assert caller.id == "oidc:dr-who"
    assert caller.scopes == {Scope.READ}


@pytest.mark.parametrize(
    ("subject", "name"),
    [("Ärztin 7", "oidc:Ärztin 7"), ("a\x00b\nc", "oidc:a?b?c"), ("\ud800", "oidc:?"), ("x" * 999, f"oidc:{'x' * 250}")],
)
def test_names_that_can_be_written_down(provider: Provider, key: SigningKey, subject: str, name: str) -> None:
    assert verifier(provider.url).caller_of(key.sign(sub=subject)).id == name


@pytest.mark.parametrize(
    ("claim", "claims", "scopes"),
    [
        ("scope", {"scope": "hepamap.read hepamap.analyse"}, {Scope.READ, Scope.ANALYSE}),
        ("roles", {"roles": ["hepamap.analyse", 7, "other"]}, {Scope.ANALYSE}),
        ("realm_access.roles", {"realm_access": {"roles": ["hepamap.read"]}}, {Scope.READ}),
        ("https://x.example/roles", {"https://x.example/roles": ["hepamap.read"]}, {Scope.READ}),
        ("roles", {}, set()),
        ("roles.deep", {"roles": "hepamap.read"}, set()),
        ("scope", {"scope": "HEPAMAP.READ hepamap.readx"}, set()),
    ],
)
def test_where_the_scopes_are(
    provider: Provider, key: SigningKey, claim: str, claims: dict[str, Any], scopes: set[Scope]
) -> None:
    assert verifier(provider.url, claim).caller_of(key.sign(**claims)).scopes == scopes


def test_an_expired_token(provider: Provider, key: SigningKey) -> None:
    with pytest.raises(TokenExpiredError):
        verifier(provider.url).caller_of(key.sign(exp=datetime.now(UTC) - timedelta(minutes=1)))


def forged_with_the_public_key(key: SigningKey) -> str:
    """Signed by HMAC with the public key as its secret: what a server falls for that lets the token choose."""
    pem = key.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header, payload, _ = retitled(key.sign(), alg="HS256").split(".")
    signature = hmac.new(pem, f"{header}.{payload}".encode(), hashlib.sha256).digest()
    return f"{header}.{payload}.{_text(signature)}"


def retitled(token: str, **header: Any) -> str:
    """With other words in its header, and the signature that it had."""
    before, rest = token.split(".", 1)
    said = json.loads(base64.urlsafe_b64decode(before + "=="))
    return f"{_text(json.dumps({**said, **header}).encode())}.{rest}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_tokens_that_open_nothing(provider: Provider, key: SigningKey) -> None:
    checked = verifier(provider.url)
    good = key.sign()
    head, payload, signature = good.split(".")
    other_payload = key.sign(sub="somebody-else").split(".")[1]
    unsigned = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 2**40}, "", algorithm="none")
    wrong = {
        "another audience": key.sign(aud="other"),
        "another issuer": key.sign(iss="https://evil.example"),
        "not valid yet": key.sign(nbf=datetime.now(UTC) + timedelta(minutes=5)),
        "no end": key.sign(without="exp"),
        "no subject": key.sign(without="sub"),
        "no audience": key.sign(without="aud"),
        "unsigned": unsigned,
        "no signature": f"{head}.{payload}.",
        "changed": f"{head}.{other_payload}.{signature}",
        "another key of the same id": SigningKey("k1").sign(),
        "an unknown key": SigningKey("k2").sign(),
        "HMAC with the public key": forged_with_the_public_key(key),
        "no token": "abc",
        "nothing": "",
    }
    for how, token in wrong.items():
        with pytest.raises(CredentialsInvalidError):
            assert checked.caller_of(token) is None, how
    assert checked.caller_of(good).id == "oidc:dr-who"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_a_key_of_rsa_that_names_no_algorithm_is_good_for_all_of_rsa(provider: Provider, algorithm: str) -> None:
    key = RsaKey("r", algorithm)
    provider.keys = [key]
    assert verifier(provider.url).caller_of(key.sign()).id == "oidc:dr-who"


def test_a_key_of_rsa_is_good_for_nothing_else(provider: Provider, key: SigningKey) -> None:
    open_to_all, named = RsaKey("r"), RsaKey("n", "RS384", published="RS256")
    provider.keys = [open_to_all, named, key]
    checked = verifier(provider.url)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 2**40}
    wrong = {
        "another algorithm than the key's": named.sign(),
        "HMAC with the public key": forged_with_the_public_key(open_to_all),
        "unsigned": jwt.encode(claims, "", algorithm="none", headers={"kid": "r"}),
        "another kind of key": jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": "r"}),
        "RSA for a key of another kind": jwt.encode(claims, open_to_all.private, algorithm="RS256", headers={"kid": "k1"}),
        "an algorithm that is none": retitled(open_to_all.sign(), alg=["RS256"]),
    }
    for how, token in wrong.items():
        with pytest.raises(CredentialsInvalidError):
            assert checked.caller_of(token) is None, how
    assert checked.caller_of(open_to_all.sign()).id == "oidc:dr-who"


def test_kinds_of_keys_that_nobody_knows_are_passed_over(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    strange: list[Any] = [{"kty": "new", "kid": "k1"}, {"kty": "RSA", "kid": "k1"}, 7, {}]
    path.write_text(json.dumps({"keys": [*strange, key.public]}))
    assert verifier(str(path)).caller_of(key.sign()).id == "oidc:dr-who"
    path.write_text(json.dumps({"keys": strange}))
    with pytest.raises(IdentityProviderError):
        verifier(str(path)).caller_of(key.sign())


def test_a_new_key_is_found_and_unknown_ones_do_not_make_it_ask_all_the_time(provider: Provider, key: SigningKey) -> None:
    clock = Seconds()
    checked = verifier(provider.url, clock=clock)
    checked.caller_of(key.sign())
    new = SigningKey("k2")
    provider.keys = [new]
    for _ in range(50):
        with pytest.raises(CredentialsInvalidError):
            checked.caller_of(SigningKey("k2").sign())
    assert provider.asked == 1
    clock.now = 11.0
    assert checked.caller_of(new.sign()).id == "oidc:dr-who"
    with pytest.raises(CredentialsInvalidError):
        checked.caller_of(key.sign())
    assert provider.asked == 2


def test_known_keys_outlast_the_provider_for_an_hour(provider: Provider, key: SigningKey) -> None:
    clock = Seconds()
    checked = verifier(provider.url, clock=clock)
    checked.caller_of(key.sign())
    provider.down = True
    clock.now = 3599.0
    assert checked.caller_of(key.sign()).id == "oidc:dr-who"
    clock.now = 3601.0
    with pytest.raises(IdentityProviderError):
        checked.caller_of(key.sign())
    provider.down = False
    clock.now = 3612.0
    assert checked.caller_of(key.sign()).id == "oidc:dr-who"


def test_who_knows_the_key_does_not_wait_for_a_provider_that_hangs(provider: Provider, key: SigningKey) -> None:
    clock = Seconds()
    checked = verifier(provider.url, clock=clock)
    checked.caller_of(key.sign())
    provider.answers.clear()
    clock.now = 400.0  # the keys are no longer fresh
    first = threading.Thread(target=lambda: checked.caller_of(key.sign()))
    first.start()
    try:
        while provider.asked < 2:
            time.sleep(0.01)
        started = time.monotonic()
        for _ in range(20):
            assert checked.caller_of(key.sign()).id == "oidc:dr-who"
        assert time.monotonic() - started < 1.0
        with pytest.raises(IdentityProviderError):  # and not: unknown
            checked.caller_of(SigningKey("k2").sign())
        assert provider.asked == 2
    finally:
        provider.answers.set()
        first.join()


def test_many_that_come_first_are_answered_by_one_fetch(provider: Provider, key: SigningKey) -> None:
    checked = verifier(provider.url)
    provider.answers.clear()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(checked.caller_of(key.sign()).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    provider.answers.set()
    for thread in threads:
        thread.join()
    assert found == ["oidc:dr-who"] * 8
    assert provider.asked == 1


def test_a_provider_that_never_answered(provider: Provider, key: SigningKey) -> None:
    provider.down = True
    with pytest.raises(IdentityProviderError):
        verifier(provider.url).caller_of(key.sign())


def test_keys_from_a_file_and_a_token_that_names_none(key: SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.public]}))
    assert verifier(str(path)).caller_of(key.sign(header={})).id == "oidc:dr-who"
    for content in ("not JSON", "[]", "{}"):
        path.write_text(content)
        with pytest.raises(IdentityProviderError):
            verifier(str(path)).caller_of(key.sign())
