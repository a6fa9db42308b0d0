"""Who gets in, and what is written down about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.datastructures import URL
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Receive
from structlog.testing import capture_logs

from hepamap.access.audit import AuditEvent, AuditTrail
from hepamap.access.errors import UnprotectedError
from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Caller, Scope
from hepamap.api.app import create_app
from hepamap.api.noting import Notes, noting
from hepamap.api.security import PUBLIC, AccessGate
from hepamap.jobs.states import JobState
from hepamap.settings import Settings
from tests.access.provider import AUDIENCE, ISSUER, SigningKey
from tests.api.conftest import REQUEST_ID, post, services_of, work
from tests.api.test_bad_input import check_problem
from tests.postgres import Postgres

ANALYSES = "/api/v1/analyses"
SOMETHING = "5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"
SIGNING_KEY = SigningKey("k1")


@pytest.fixture
def guarded(settings: Settings, tmp_path: Path) -> Settings:
    """Keys and tokens of an identity provider, on an address that other machines reach."""
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [SIGNING_KEY.public]}))
    changes = {
        "access": "keys",
        "host": "0.0.0.0",
        "allowed_hosts": (),
        "oidc_issuer": ISSUER,
        "oidc_audience": AUDIENCE,
        "oidc_jwks": str(jwks),
    }
    return settings.model_copy(update=changes)


@pytest.fixture
def closed(guarded: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(guarded)) as client:
        yield client


def key_for(client: TestClient, *scopes: Scope, lifetime: timedelta | None = None) -> dict[str, str]:
    secret = KeyStore(services_of(client).store.engine).create("test", scopes, lifetime).secret
    return {"Authorization": f"Bearer {secret}"}


def trail_of(client: TestClient) -> AuditTrail:
    return AuditTrail(services_of(client).store.engine)


def every_call(client: TestClient) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_call_but_three_needs_credentials(client: TestClient, closed: TestClient) -> None:
    calls = every_call(client)
    assert len(calls) > 12
    open_calls = set()
    for method, path in calls:
        response = closed.request(method, path.replace("{analysis_id}", SOMETHING).replace("{model}", "tiny-5x"))
        if response.status_code == 401:
            check_problem(response, 401, "credentials_missing")
            assert response.headers["www-authenticate"] == 'Bearer realm="hepamap"'
        else:
            open_calls.add(path)
    assert open_calls == PUBLIC


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_a_method_that_nobody_knows_is_written_down_as_another_one(
    guarded: Settings, place: str, request: pytest.FixtureRequest
) -> None:
    if place == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        guarded = guarded.model_copy(update={"database_url": server.new_database()})
    with TestClient(create_app(guarded)) as client:
        for method in ("A" * 57, "BREW"):
            answer = client.request(method, ANALYSES, headers=key_for(client, Scope.ANALYSE))
            check_problem(answer, 405, "method_not_allowed")
        actions = [entry.event.action for entry in trail_of(client).entries()]
    assert actions[::2] == ["request.other"] * 2


def test_what_does_not_exist_is_closed_too(closed: TestClient) -> None:
    for path in ("/openapi.json", "/nothing", "/api/v1/../metrics", "//metrics", "/metrics/", "/Metrics"):
        assert closed.get(path).status_code == 401
    assert closed.get("/nothing", headers=key_for(closed, Scope.READ)).status_code == 404


def test_a_path_in_the_host_header_opens_nothing(closed: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    # As releases of Starlette before 1.10 make it: whoever writes "x/health/live?" as the host chooses the path of the URL.
    monkeypatch.setattr(HTTPConnection, "url", property(lambda self: URL(f"http://{self.headers['host']}{self.scope['path']}")))
    for host in ("x/health/live?", "x/health/live#", "testserver/qupath/?"):
        response = closed.get(f"{ANALYSES}/{SOMETHING}", headers={"Host": host})
        assert check_problem(response, 401, "credentials_missing")["instance"] == f"{ANALYSES}/{SOMETHING}"
        refused = closed.get(f"{ANALYSES}/{SOMETHING}", headers={"Host": host, **key_for(closed, Scope.ANALYSE)})
        check_problem(refused, 403, "scope_missing")
        assert trail_of(closed).page()[-1].event.object == SOMETHING


@pytest.mark.parametrize(
    ("method", "path", "scope", "status"),
    [
        ("GET", ANALYSES, Scope.READ, 200),
        ("GET", f"{ANALYSES}/{SOMETHING}/contours", Scope.READ, 404),
        ("HEAD", "/api/v1/models", Scope.READ, 405),
        ("POST", ANALYSES, Scope.ANALYSE, 415),
        ("DELETE", f"{ANALYSES}/{SOMETHING}", Scope.ANALYSE, 404),
        ("GET", "/api/v1/audit", Scope.ADMIN, 200),
        ("GET", "/metrics", Scope.ADMIN, 200),
    ],
)
def test_each_call_needs_its_scope_and_no_other_helps(
    closed: TestClient, method: str, path: str, scope: Scope, status: int
) -> None:
    others = [other for other in Scope if other is not scope]
    refused = closed.request(method, path, headers=key_for(closed, *others))
    assert refused.status_code == 403
    assert refused.headers["www-authenticate"] == 'Bearer realm="hepamap", error="insufficient_scope"'
    if method != "HEAD":
        assert f"'{scope}'" in check_problem(refused, 403, "scope_missing")["detail"]
    assert closed.request(method, path, headers=key_for(closed, scope)).status_code == status


def test_wrong_revoked_and_expired_keys(closed: TestClient) -> None:
    store = KeyStore(services_of(closed).store.engine)
    revoked = store.create("test", [Scope.READ], None)
    store.revoke(revoked.key.id)
    for secret in ("hm_nonsense", "nonsense", revoked.secret, revoked.secret + "x", "é"):
        headers = {"Authorization": f"Bearer {secret}".encode()}
        response = closed.get(ANALYSES, headers=headers)
        check_problem(response, 401, "credentials_invalid")
        assert response.headers["www-authenticate"] == 'Bearer realm="hepamap", error="invalid_token"'
        assert secret not in response.text
    old = store.create("test", [Scope.READ], timedelta(microseconds=1)).secret
    check_problem(closed.get(ANALYSES, headers={"Authorization": f"Bearer {old}"}), 401, "key_expired")


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Basic dXNlcjpwYXNz"}]
)
def test_no_credentials(closed: TestClient, headers: dict[str, str]) -> None:
    check_problem(closed.get(ANALYSES, headers=headers), 401, "credentials_missing")


def test_a_key_is_taken_from_either_header_and_never_from_the_address(closed: TestClient) -> None:
    secret = key_for(closed, Scope.READ)["Authorization"].removeprefix("Bearer ")
    for headers in ({"Authorization": f"bearer {secret}"}, {"X-API-Key": secret}):
        assert closed.get(ANALYSES, headers=headers).status_code == 200
    check_problem(closed.get(ANALYSES, params={"access_token": secret, "key": secret}), 401, "credentials_missing")


def test_a_revoked_key_stops_at_once(closed: TestClient) -> None:
    store = KeyStore(services_of(closed).store.engine)
    made = store.create("test", [Scope.READ], None)
    headers = {"X-API-Key": made.secret}
    assert closed.get(ANALYSES, headers=headers).status_code == 200
    store.revoke(made.key.id)
    check_problem(closed.get(ANALYSES, headers=headers), 401, "credentials_invalid")


def test_a_token_of_the_identity_provider(closed: TestClient) -> None:
    def ask(**claims: Any) -> Any:
        return closed.get(ANALYSES, headers={"Authorization": f"Bearer {SIGNING_KEY.sign(**claims)}"})

    assert ask().status_code == 200
    check_problem(ask(scope="openid"), 403, "scope_missing")
    check_problem(ask(exp=1), 401, "token_expired")
    check_problem(ask(aud="other"), 401, "credentials_invalid")
    assert next(iter(trail_of(closed).entries())).event.actor == "oidc:dr-who"


def test_a_provider_that_cannot_be_asked_is_a_503(guarded: Settings) -> None:
    with TestClient(create_app(guarded.model_copy(update={"oidc_jwks": "http://127.0.0.1:1/jwks"}))) as client:
        response = client.get(ANALYSES, headers={"Authorization": f"Bearer {SIGNING_KEY.sign()}"})
    check_problem(response, 503, "identity_provider_unavailable")


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "192.168.1.7"},
        {"host": "hospital.example"},
        {"host": ""},
        {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": "x"},
        {"access": "keys", "oidc_issuer": ISSUER},
    ],
)
def test_a_server_that_would_let_anybody_in_does_not_start(settings: Settings, changes: dict[str, str]) -> None:
    with pytest.raises(UnprotectedError) as refused:
        create_app(settings.model_copy(update=changes))
    assert "HEPAMAP_ACCESS=keys" in refused.value.cure


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_alone_needs_no_keys(settings: Settings, host: str) -> None:
    create_app(settings.model_copy(update={"host": host}))


# ---- web pages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed", "status"),
    [
        ("127.0.0.1:8000", (), 200),
        ("localhost", (), 200),
        ("LOCALHOST:1", (), 200),
        ("[::1]:8000", (), 200),
        ("evil.example", (), 421),
        ("127.0.0.1.evil.example", (), 421),
        ("localhost.evil.example:8000", (), 421),
        ("", (), 421),
        ("server", ("server", "*.hospital.org"), 200),
        ("a.hospital.org:8000", ("server", "*.hospital.org"), 200),
        ("hospital.org", ("server", "*.hospital.org"), 421),
        ("evilhospital.org", ("server", "*.hospital.org"), 421),
        ("localhost", ("server",), 421),
        ("anything", ("*",), 200),
    ],
)
def test_only_a_name_of_its_own_reaches_the_server(settings: Settings, host: str, allowed: tuple[str, ...], status: int) -> None:
    """A page of evil.example whose name suddenly means 127.0.0.1 still sends its own name."""
    with TestClient(create_app(settings.model_copy(update={"allowed_hosts": allowed}))) as client:
        response = client.get(ANALYSES, headers={"Host": host})
    assert response.status_code == status
    if status == 421:
        check_problem(response, 421, "host_not_allowed")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://testserver.evil.example", "http://testserver:81", "", "http://[", "testserver"],
)
def test_pages_of_other_sites_are_refused(client: TestClient, slide: Path, origin: str) -> None:
    """A form of another site can post without asking first; the browser says whose form it is."""
    with slide.open("rb") as file:
        response = client.post(ANALYSES, files={"file": ("slide.tif", file)}, headers={"Origin": origin})
    check_problem(response, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    assert client.get(ANALYSES, headers={"Origin": "http://testserver"}).status_code == 200


def test_a_site_that_the_operator_names_may_ask(settings: Settings) -> None:
    viewer = "https://viewer.hospital.org"
    with TestClient(create_app(settings.model_copy(update={"cors_origins": (viewer,)}))) as client:
        assert client.get(ANALYSES, headers={"Origin": viewer}).headers["access-control-allow-origin"] == viewer
        asked = {"Origin": viewer, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert client.options(ANALYSES, headers=asked).status_code == 200
        check_problem(client.get(ANALYSES, headers={"Origin": "https://evil.example"}), 403, "origin_not_allowed")


# ---- how often -----------------------------------------------------------------------------------------------------------


def test_a_key_that_asks_too_often_has_to_wait(guarded: Settings) -> None:
    with TestClient(create_app(guarded.model_copy(update={"requests_per_minute": 3}))) as client:
        busy, other = key_for(client, Scope.READ), key_for(client, Scope.READ)
        assert [client.get(ANALYSES, headers=busy).status_code for _ in range(3)] == [200] * 3
        refused = client.get(ANALYSES, headers=busy)
        check_problem(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert client.get(ANALYSES, headers=other).status_code == 200
        assert client.get("/health/live").status_code == 200


def test_guessing_is_slowed_down_and_keeps_nobody_out(guarded: Settings) -> None:
    with TestClient(create_app(guarded.model_copy(update={"requests_per_minute": 2}))) as client:
        guesses = [client.get(ANALYSES, headers={"X-API-Key": "hm_guess"}).status_code for _ in range(4)]
        assert guesses == [401, 401, 429, 429]
        assert client.get(ANALYSES, headers=key_for(client, Scope.READ)).status_code == 200
        assert [entry.event.status for entry in trail_of(client).entries()] == [401, 200]


def test_wrong_keys_without_end_cost_no_look_at_the_database(guarded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    caller_of = KeyStore.caller_of

    def counted(store: KeyStore, secret: str) -> Caller:
        looks.append(secret)
        return caller_of(store, secret)

    monkeypatch.setattr(KeyStore, "caller_of", counted)
    with TestClient(create_app(guarded.model_copy(update={"requests_per_minute": 3}))) as client:
        used, fresh = key_for(client, Scope.READ), key_for(client, Scope.READ)
        assert client.get(ANALYSES, headers=used).status_code == 200
        looks.clear()
        guess = {"X-API-Key": f"hm_{'0' * 12}_{'x' * 43}"}
        assert [client.get(ANALYSES, headers=guess).status_code for _ in range(5)] == [401] * 3 + [429] * 2
        # A right key from the same address gets in, also one that was never used; one that was used, whatever the others do.
        assert client.get(ANALYSES, headers=fresh).status_code == 200
        assert {client.get(ANALYSES, headers=guess).status_code for _ in range(20)} == {429}
        assert looks.count(guess["X-API-Key"]) <= 6
        assert client.get(ANALYSES, headers=used).status_code == 200


# ---- the audit trail -----------------------------------------------------------------------------------------------------


def test_what_is_done_and_what_is_read_is_written_down(closed: TestClient, slide: Path) -> None:
    headers = key_for(closed, Scope.READ, Scope.ANALYSE)
    closed.headers.update(headers)
    analysis = post(closed, slide, identity={"accession": "S26-1234"})
    work(closed)
    own = analysis["links"]["self"]
    closed.get(f"{own}/contours", headers={"X-Request-ID": REQUEST_ID})
    closed.get("/api/v1/models")
    closed.delete(own)
    closed.get(own)
    actor = f"key:{headers['Authorization'][10:22]}"
    found = [(e.event.actor, e.event.action, e.event.status, e.event.object) for e in trail_of(closed).entries()]
    assert found == [
        (actor, "request.post", 102, None),
        (actor, "create_analysis", 202, analysis["id"]),
        (actor, "get_contours", 200, analysis["id"]),
        (actor, "list_models", 200, None),
        (actor, "request.delete", 102, analysis["id"]),
        (actor, "delete_analysis", 204, analysis["id"]),
        (actor, "get_analysis", 404, analysis["id"]),
    ]
    assert trail_of(closed).page(after=2)[0].event.request_id == REQUEST_ID


def test_the_trail_names_the_slide_by_its_fingerprint_and_nothing_else(closed: TestClient, slide: Path) -> None:
    closed.headers.update(key_for(closed, Scope.READ, Scope.ANALYSE))
    post(closed, slide, identity={"accession": "S26-1234"})
    closed.get(f"{ANALYSES}/Jane-Doe-1970")
    closed.get("/api/v1/nothing/Jane-Doe-1970?name=Jane-Doe-1970")
    entries = list(trail_of(closed).entries())
    assert [entry.event.object for entry in entries[2:]] == [None, None]
    assert len(entries[1].event.slide or "") >= 32
    written = json.dumps([entry.to_json() for entry in entries])
    for secret in ("S26-1234", slide.name, "Jane"):
        assert secret not in written


def test_refusals_are_written_down(closed: TestClient) -> None:
    reader = key_for(closed, Scope.READ)
    closed.get(ANALYSES)
    closed.delete(f"{ANALYSES}/{SOMETHING}", headers=reader)
    found = [
        (entry.event.actor[:4], entry.event.action, entry.event.status, entry.event.object)
        for entry in trail_of(closed).entries()
    ]
    assert found == [("anon", "refused", 401, None), ("key:", "refused", 403, SOMETHING)]


def test_what_cannot_be_written_down_is_not_shown(closed: TestClient) -> None:
    headers = key_for(closed, Scope.READ)
    with services_of(closed).store.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_head"))
    check_problem(closed.get(ANALYSES, headers=headers), 500, "audit_broken")


def test_what_cannot_be_written_down_is_not_done(closed: TestClient, slide: Path) -> None:
    closed.headers.update(key_for(closed, Scope.READ, Scope.ANALYSE))
    own = post(closed, slide)["links"]["self"]
    work(closed)
    store = services_of(closed).store
    with store.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_head"))
    check_problem(closed.delete(own), 500, "audit_broken")
    assert [job.state for job in store.page().jobs] == [JobState.SUCCEEDED]


def test_what_crashes_is_written_down(closed: TestClient, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    closed.headers.update(key_for(closed, Scope.READ, Scope.ANALYSE))
    monkeypatch.setattr(services_of(closed).store, "page", crash)
    monkeypatch.setattr(services_of(closed).store, "submit", crash)
    with capture_logs():
        check_problem(closed.get(ANALYSES), 500, "internal_error")
        assert closed.post(ANALYSES, json={"slide": {"path": str(slide)}}).status_code == 500
    found = [(entry.event.action, entry.event.status) for entry in trail_of(closed).entries()]
    assert found == [("list_analyses", 500), ("request.post", 102), ("create_analysis", 500)]


def test_clients_that_vanish_are_written_down_once(closed: TestClient) -> None:
    """One goes while its body is awaited, another amid its answer, which was written down when it began."""
    app = cast(FastAPI, closed.app)

    async def goes_before(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ClientDisconnect

    async def goes_amid(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ClientDisconnect

    async def send(_message: Any) -> None:
        pass

    def ask(inner: Any) -> None:
        headers = [(name.encode(), value.encode()) for name, value in (("host", "x"), *key.items())]
        scope = {"type": "http", "app": app, "method": "POST", "path": ANALYSES, "headers": headers, "client": ("10.0.0.1", 1)}

        async def go() -> None:
            await AccessGate(inner, services_of(closed).settings)(scope, cast(Receive, None), send)

        with pytest.raises(ClientDisconnect):
            anyio.run(go)

    key = {name.lower(): value for name, value in key_for(closed, Scope.ANALYSE).items()}
    ask(goes_before)
    ask(goes_amid)
    assert [entry.event.status for entry in trail_of(closed).entries()] == [102, 499, 102, 200]


def test_the_trail_over_rest(closed: TestClient) -> None:
    admin, reader = key_for(closed, Scope.ADMIN), key_for(closed, Scope.READ)
    for _ in range(3):
        closed.get(ANALYSES, headers=reader)
    page = closed.get("/api/v1/audit", params={"after": 1, "limit": 2}, headers=admin).json()
    assert [(item["seq"], item["status"]) for item in page["items"]] == [(2, 200), (3, 200)]
    assert page["head"] == f"3:{page['items'][1]['hash']}"
    assert trail_of(closed).verify().seq == 4


def test_a_server_of_this_machine_keeps_a_trail_where_it_is_told_to(settings: Settings) -> None:
    for audit, count in ((False, 0), (True, 1)):
        with TestClient(create_app(settings.model_copy(update={"audit": audit}))) as client:
            client.get(ANALYSES)
            assert [entry.event.actor for entry in trail_of(client).entries()] == ["local"] * count


def test_what_anybody_can_send_without_end_does_not_fill_the_trail(guarded: Settings) -> None:
    limited = guarded.model_copy(update={"allowed_hosts": ("testserver",), "requests_per_minute": 2})
    with TestClient(create_app(limited)) as client:
        headers = key_for(client, Scope.READ)
        found = [client.get(ANALYSES, headers=headers).status_code for _ in range(4)]
        found += [client.get(ANALYSES, headers={**headers, "Host": "elsewhere"}).status_code]
        assert found == [200, 200, 429, 429, 421]
        assert [entry.event.status for entry in trail_of(client).page()] == [200, 200]


def test_refusals_of_strangers_and_polls_are_counted(guarded: Settings, slide: Path) -> None:
    with TestClient(create_app(guarded)) as client:
        for number in range(5):
            client.get(f"{ANALYSES}/{number}", headers={"X-API-Key": "hm_guess"})
        client.get(ANALYSES, headers={"Origin": "https://evil.example"})
        client.headers.update(key_for(client, Scope.READ, Scope.ANALYSE))
        one, other = post(client, slide), post(client, slide, threshold=0.7)
        work(client)
        for _ in range(4):
            tag = client.get(one["links"]["self"]).headers["etag"]
        client.get(one["links"]["self"], headers={"If-None-Match": tag})
        client.get(other["links"]["self"])
        for _ in range(2):
            client.get(one["links"]["contours"])
        written = [(entry.event.action, entry.event.status, entry.event.object) for entry in trail_of(client).entries()]
    refused, asked, looked = ("refused", 401, None), written[2:6], ("get_analysis", 200, one["id"])
    assert written[:2] == [refused, ("refused", 403, None)]
    assert [action for action, _, _ in asked] == ["request.post", "create_analysis"] * 2
    contours = [("get_contours", 200, one["id"])] * 2
    assert written[6:] == [looked, ("get_analysis", 304, one["id"]), ("get_analysis", 200, other["id"]), *contours]
    # What was counted is written when the server stops.
    trail = AuditTrail.open(guarded.database_path)
    added = [entry.event for entry in trail.page(after=len(written))]
    counted = [(event.action, event.status, event.object, event.request_id) for event in added]
    assert counted == [("refused+4", 401, None, None), ("get_analysis+3", 200, one["id"], None)]
    assert added[1].actor.startswith("key:")
    assert trail.verify().seq == len(written) + 2
    trail.close()


def test_what_is_counted_is_written_each_minute(settings: Settings) -> None:
    settings.data_dir.mkdir()
    trail = AuditTrail.open(settings.database_path)
    notes = Notes.of(trail)
    for _ in range(3):
        notes.append(AuditEvent("anonymous", "refused", 401), "10.0.0.1")

    async def wait() -> None:
        async with noting(notes, every_s=0.01):
            with anyio.fail_after(10):
                while trail.head().seq < 2:
                    await anyio.sleep(0.01)

    anyio.run(wait)
    assert [entry.event.action for entry in trail.entries()] == ["refused", "refused+2"]
    trail.close()
