"""A request with a callback: refused where it cannot be called, told when it has finished."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hepamap.api.app import create_app
from hepamap.delivery.signature import signature_of
from hepamap.settings import Settings
from tests.api.conftest import post, services_of, work
from tests.api.test_bad_input import check_problem
from tests.delivery.receiver import receiving

SECRET = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def calling(settings: Settings) -> Iterator[TestClient]:
    changed = settings.model_copy(update={"callback_allow": ("127.0.0.0/8",)})
    changed.callback_secrets_dir.mkdir(parents=True)
    (changed.callback_secrets_dir / "default").write_bytes(SECRET)
    with TestClient(create_app(changed)) as client:
        yield client


def deliveries(client: TestClient, analysis: Any) -> list[Any]:
    response = client.get(f"{analysis['links']['self']}/deliveries")
    assert response.status_code == 200
    items: list[Any] = response.json()["items"]
    return items


def settled(client: TestClient, analysis: Any, state: str) -> Any:
    deadline = time.monotonic() + 30
    while True:
        (delivery,) = deliveries(client, analysis)
        if delivery["state"] == state and delivery["attempts"]:
            return delivery
        assert time.monotonic() < deadline, delivery
        time.sleep(0.05)


def test_who_asked_is_told(calling: TestClient, slide: Path) -> None:
    with receiving(204) as receiver:
        analysis = post(calling, slide, callback={"url": receiver.url}, identity={"accession": "S26-1"})
        assert deliveries(calling, analysis) == []
        work(calling)
        delivery = settled(calling, analysis, "delivered")
    assert [attempt["status"] for attempt in delivery["attempts"]] == [204]
    ((path, headers, body),) = receiver.requests
    assert path == "/hook?case=7"
    assert headers["hepamap-signature"] == signature_of(SECRET, int(headers["hepamap-timestamp"]), body)
    told = json.loads(body)["analysis"]
    assert (told["id"], told["state"], told["error"]) == (analysis["id"], "succeeded", None)
    assert "S26-1" not in body.decode()


def test_who_reads_an_analysis_does_not_see_the_address(calling: TestClient, slide: Path) -> None:
    analysis = post(calling, slide, callback={"url": "http://127.0.0.1:8/hook?token=of-the-receiver", "secret_id": "default"})
    own = calling.get(analysis["links"]["self"])
    listed = calling.get("/api/v1/analyses")
    for response in (own, listed):
        assert "of-the-receiver" not in response.text
    shown = {"host": "127.0.0.1", "secret_id": "default"}
    assert analysis["request"]["callback"] == own.json()["request"]["callback"] == shown
    assert listed.json()["items"][0]["request"]["callback"] == shown


def test_what_a_worker_process_finishes_is_told_by_the_server(settings: Settings, slide: Path) -> None:
    changed = settings.model_copy(update={"callback_allow": ("127.0.0.0/8",), "embedded_worker": True})
    changed.callback_secrets_dir.mkdir(parents=True)
    (changed.callback_secrets_dir / "default").write_bytes(SECRET)
    worker = Path(__file__).parents[1] / "worker" / "counting_worker.py"
    app = create_app(changed, worker_command=[sys.executable, str(worker)])
    with receiving(200) as receiver, TestClient(app) as client:
        analysis = post(client, slide, callback={"url": receiver.url})
        waiting = client.get(analysis["links"]["self"], headers={"Prefer": "wait=60"})
        assert waiting.json()["state"] == "succeeded"
        settled(client, analysis, "delivered")
    assert json.loads(receiver.requests[0][2])["analysis"]["id"] == analysis["id"]


def test_a_cancelled_one_is_told_too(calling: TestClient, slide: Path) -> None:
    with receiving(200) as receiver:
        analysis = post(calling, slide, callback={"url": receiver.url})
        calling.delete(analysis["links"]["self"])
        settled(calling, analysis, "delivered")
    assert json.loads(receiver.requests[0][2])["analysis"]["state"] == "cancelled"


def test_each_who_shares_a_result_is_told(calling: TestClient, slide: Path) -> None:
    with receiving(200) as receiver:
        first = post(calling, slide, callback={"url": receiver.url})
        second = post(calling, slide, callback={"url": receiver.url})
        work(calling)
        third = post(calling, slide, callback={"url": receiver.url})
        for analysis in (first, second, third):
            settled(calling, analysis, "delivered")
    ids = {json.loads(body)["analysis"]["id"] for _, _, body in receiver.requests}
    assert ids == {first["id"], second["id"], third["id"]}


def test_a_receiver_that_fails_is_in_the_log(calling: TestClient, slide: Path) -> None:
    with receiving(500) as receiver:
        analysis = post(calling, slide, callback={"url": receiver.url})
        work(calling)
        delivery = settled(calling, analysis, "pending")
    assert (delivery["attempts"][0]["status"], delivery["attempts"][0]["error"]) == (500, "the answer was 500")
    assert delivery["next_at"] is not None


@pytest.mark.parametrize(
    ("callback", "code"),
    [
        ({"url": "http://10.0.0.1/"}, "callback_not_allowed"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "callback_not_allowed"),
        ({"url": "http://[::1]/"}, "callback_not_allowed"),
        ({"url": "file:///etc/passwd"}, "callback_not_allowed"),
        ({"url": "http://127.0.0.1/", "secret_id": "nobody"}, "callback_secret_unknown"),
        ({"url": "http://127.0.0.1/", "secret_id": "../jobs.sqlite3"}, "callback_secret_unknown"),
        ({"url": ""}, "request_invalid"),
        ({}, "request_invalid"),
        ("http://127.0.0.1/", "request_invalid"),
    ],
)
def test_callbacks_that_are_refused(calling: TestClient, slide: Path, callback: Any, code: str) -> None:
    body = {"slide": {"path": str(slide)}, "callback": callback}
    problem = check_problem(calling.post("/api/v1/analyses", json=body), 422, code)
    assert str(services_of(calling).settings.data_dir) not in json.dumps(problem)
    assert calling.get("/api/v1/analyses").json()["items"] == []


def test_a_server_that_is_not_set_up_to_calls_nobody(client: TestClient, slide: Path) -> None:
    body = {"slide": {"path": str(slide)}, "callback": {"url": "http://127.0.0.1/"}}
    problem = check_problem(client.post("/api/v1/analyses", json=body), 422, "callback_not_allowed")
    assert "HEPAMAP_CALLBACK_ALLOW" in problem["cure"]


def test_deliveries_of_nothing(client: TestClient) -> None:
    check_problem(client.get("/api/v1/analyses/nobody/deliveries"), 404, "analysis_not_found")


def test_the_operator_names_whom_the_server_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEPAMAP_CALLBACK_ALLOW", "*.hospital.org, 10.1.0.0/16")
    settings = Settings(data_dir=tmp_path)
    assert settings.callback_allow == ("*.hospital.org", "10.1.0.0/16")
    assert settings.callback_secrets_dir == tmp_path / "callback-secrets"
    monkeypatch.setenv("HEPAMAP_CALLBACK_ALLOW", settings.environment()["HEPAMAP_CALLBACK_ALLOW"])
    assert Settings(data_dir=tmp_path).callback_allow == settings.callback_allow
