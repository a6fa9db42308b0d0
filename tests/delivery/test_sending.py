"""Callbacks to real HTTP servers that fail, hang, redirect and lie."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from hepamap.delivery.dispatcher import Dispatcher
from hepamap.delivery.outbox import Attempt, Delivery, DeliveryState, Outbox
from hepamap.delivery.sender import Sender
from hepamap.delivery.signature import Secrets, signature_of
from hepamap.delivery.targets import TargetPolicy, resolve_by_system
from hepamap.jobs.errors import JobStoreError
from tests.delivery.conftest import SECRET, Clock, only, put
from tests.delivery.receiver import receiving

LOOPBACK = TargetPolicy(("127.0.0.0/8",))


def try_once(sender: Sender, delivery: Delivery) -> Attempt:
    async def send() -> Attempt:
        async with sender:
            return await sender.send(delivery)

    return anyio.run(send)


def attempt_at(
    url: str,
    secrets: Secrets,
    engine: Engine,
    outbox: Outbox,
    *,
    policy: TargetPolicy = LOOPBACK,
    timeout_s: float = 10,
    **callback: str,
) -> Attempt:
    put(engine, url, **callback)
    return try_once(Sender(policy, secrets, timeout_s=timeout_s), only(outbox.take(1)))


def test_a_callback_is_signed(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving(204) as receiver:
        attempt = attempt_at(receiver.url, secrets, engine, outbox)
        assert (attempt.status, attempt.error) == (204, None)
        ((path, headers, body),) = receiver.requests
    assert path == "/hook?case=7"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["hepamap-signature"] == signature_of(SECRET, int(headers["hepamap-timestamp"]), body)
    assert json.loads(body)["delivery"] == headers["hepamap-delivery"]
    assert (headers["hepamap-event"], headers["content-type"]) == ("analysis.finished", "application/json")


def test_a_callback_is_signed_with_the_secret_that_it_names(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving(200) as receiver:
        attempt_at(receiver.url, secrets, engine, outbox, secret_id="lis")
        ((_, headers, body),) = receiver.requests
    secret = b"another secret that is long enough to be one"
    assert headers["hepamap-signature"] == signature_of(secret, int(headers["hepamap-timestamp"]), body)
    assert headers["hepamap-secret-id"] == "lis"


@pytest.mark.parametrize("status", [400, 404, 410, 500, 503])
def test_another_status_does_not_count(secrets: Secrets, engine: Engine, outbox: Outbox, status: int) -> None:
    with receiving(status) as receiver:
        attempt = attempt_at(receiver.url, secrets, engine, outbox)
    assert (attempt.status, attempt.error) == (status, f"the answer was {status}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(secrets: Secrets, engine: Engine, outbox: Outbox, status: int) -> None:
    with receiving(200) as secret_place, receiving(status) as receiver:
        receiver.location = secret_place.url
        attempt = attempt_at(receiver.url, secrets, engine, outbox)
        assert (attempt.status, attempt.error) == (status, f"the answer was {status}")
        assert len(receiver.requests) == 1
        assert secret_place.requests == []


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_who_does_not_answer_is_given_up(secrets: Secrets, engine: Engine, outbox: Outbox, kind: str) -> None:
    with receiving(kind) as receiver:
        attempt = attempt_at(receiver.url, secrets, engine, outbox, timeout_s=0.4)
    assert (attempt.status, attempt.error) == (None, "no answer within 0.4 s")


def test_an_answer_without_end_is_not_read(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving("endless") as receiver:
        assert attempt_at(receiver.url, secrets, engine, outbox).error is None


def test_a_line_that_is_cut_and_a_port_where_nobody_is(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving("cut") as receiver:
        assert (attempt_at(receiver.url, secrets, engine, outbox).error or "").startswith("RemoteProtocolError")
    assert (attempt_at(receiver.url, secrets, engine, outbox).error or "").startswith("ConnectError")


def test_an_address_is_checked_again_when_it_is_called(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving(200) as receiver:
        attempt = attempt_at(receiver.url, secrets, engine, outbox, policy=TargetPolicy(("10.0.0.0/8",)))
        assert (attempt.status, receiver.requests) == (None, [])
        assert "may not call" in (attempt.error or "")


def test_a_name_that_changes_after_it_was_checked_leads_nowhere_else(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    def resolve(host: str, port: int) -> Sequence[str]:
        assert host == "lis.test"
        return answers.pop(0)

    with receiving(200) as receiver:
        url = f"http://lis.test:{receiver.port}/hook"
        attempt = attempt_at(url, secrets, engine, outbox, policy=TargetPolicy(("127.0.0.0/8",), resolve=resolve))
        assert attempt.status == 200
        assert receiver.requests[0][1]["host"] == f"lis.test:{receiver.port}"
    assert answers == [["10.0.0.1"]]


def test_no_proxy_is_asked(secrets: Secrets, engine: Engine, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(200) as proxy, receiving(200) as receiver:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert attempt_at(receiver.url, secrets, engine, outbox).status == 200
        assert (len(receiver.requests), len(proxy.requests)) == (1, 0)


def certificate_for(name: str, folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(("name", "arrives"), [("lis.test", True), ("other.test", False)])
def test_the_certificate_must_be_that_of_the_name(
    secrets: Secrets, engine: Engine, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arrives: bool
) -> None:
    certificate = certificate_for(name, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    policy = TargetPolicy(("127.0.0.0/8",), resolve=lambda host, port: ["127.0.0.1"])
    with receiving(200, certificate=certificate) as receiver:
        attempt = attempt_at(f"https://lis.test:{receiver.port}/", secrets, engine, outbox, policy=policy)
        assert (attempt.status == 200, len(receiver.requests)) == (arrives, int(arrives))
        assert receiver.names == ["lis.test"]
    if not arrives:
        assert "certificate verify failed" in (attempt.error or "")


def dispatch_until(outbox: Outbox, secrets: Secrets, done: Callable[[], Awaitable[bool]], *, timeout_s: float = 10) -> None:
    async def run() -> None:
        dispatcher = Dispatcher(outbox, Sender(LOOPBACK, secrets, timeout_s=timeout_s), poll_s=0.01)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(dispatcher.run)
                while not await done():
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()

    anyio.run(run)


def test_a_receiver_that_fails_twice_is_told_in_the_end(secrets: Secrets, engine: Engine, outbox: Outbox, clock: Clock) -> None:
    with receiving(500, "cut", 200) as receiver:
        put(engine, receiver.url, "b")

        async def told() -> bool:
            clock.advance(1)  # the waits between the tries are long
            return only(outbox.of_job("b")).state is DeliveryState.DELIVERED

        dispatch_until(outbox, secrets, told)
    log = only(outbox.of_job("b")).log
    assert [attempt.status for attempt in log] == [500, None, 200]
    bodies = {body for _, _, body in receiver.requests}
    signatures = {headers["hepamap-signature"] for _, headers, _ in receiver.requests}
    assert (len(receiver.requests), len(bodies)) == (3, 1)
    assert signatures <= {signature_of(SECRET, int(h["hepamap-timestamp"]), b) for _, h, b in receiver.requests}
    assert len({headers["hepamap-delivery"] for _, headers, _ in receiver.requests}) == 1


def test_one_that_hangs_does_not_hold_up_another(secrets: Secrets, engine: Engine, outbox: Outbox) -> None:
    with receiving("hang") as hanging, receiving(200) as receiver:
        put(engine, hanging.url, "slow")
        put(engine, receiver.url, "quick")

        async def told() -> bool:
            return only(outbox.of_job("quick")).state is DeliveryState.DELIVERED

        dispatch_until(outbox, secrets, told)
        assert only(outbox.of_job("slow")).state is DeliveryState.PENDING


@pytest.mark.parametrize("failure", [JobStoreError("gone", cure="wait"), ZeroDivisionError("not foreseen")])
def test_a_database_that_goes_away_is_waited_for(
    secrets: Secrets, engine: Engine, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    whole, failures = outbox.take, 2

    def take(limit: int) -> list[Delivery]:
        nonlocal failures
        if failures:
            failures -= 1
            raise failure
        return whole(limit)

    monkeypatch.setattr(outbox, "take", take)
    monkeypatch.setattr("hepamap.delivery.dispatcher._AFTER_FAILURE_S", 0.01)
    with receiving(200) as receiver:
        put(engine, receiver.url)

        async def told() -> bool:
            return only(outbox.of_job("a")).state is DeliveryState.DELIVERED

        dispatch_until(outbox, secrets, told)


def test_names_are_resolved_by_the_system() -> None:
    assert "127.0.0.1" in resolve_by_system("localhost", 80)
    with pytest.raises(socket.gaierror):
        resolve_by_system("nobody.invalid", 80)
