"""What holds for the server as a whole: health, models, OpenAPI, request ids, the last resort, and no keras."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

import hepamap
from hepamap.api.app import create_app
from hepamap.api.routes import health
from hepamap.api.routes.health import Readiness
from hepamap.api.schemas import ReadyAnswer
from hepamap.api.services import Services
from hepamap.jobs.errors import JobStoreError
from hepamap.jobs.job import WorkerSeen
from hepamap.operations.doctor import examine
from hepamap.operations.findings import Level
from hepamap.settings import Settings
from tests.api.conftest import MODEL, REQUEST_ID, services_of
from tests.api.test_bad_input import check_problem


def test_alive_and_which_version(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    version = client.get("/version").json()
    assert (version["name"], version["version"], version["api"]) == ("hepamap", hepamap.__version__, "v1")


def test_ready_when_there_is_a_worker(client: TestClient) -> None:
    before = client.get("/health/ready")
    assert before.status_code == 503
    assert {name for name, check in before.json()["checks"].items() if not check["ok"]} == {"worker"}
    now = datetime.now(UTC)
    services_of(client).store.report_worker(WorkerSeen("w", "host", 1, now, now))
    started = time.perf_counter()
    after = client.get("/health/ready")
    assert time.perf_counter() - started < 0.1
    assert (after.status_code, after.json()["status"]) == (200, "ready")
    assert MODEL in after.json()["checks"]["models"]["detail"]


def test_readiness_is_looked_at_once_however_many_ask(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Services] = []
    freed = threading.Event()

    def look(services: Services) -> ReadyAnswer:
        looks.append(services)
        freed.wait(20)
        return ReadyAnswer(status="ready", checks={})

    async def ask(services: Services) -> list[ReadyAnswer]:
        readiness = Readiness()
        waiting = [asyncio.create_task(readiness.of(services)) for _ in range(100)]
        await asyncio.sleep(0.05)
        waiting.pop().cancel()
        freed.set()
        return [*await asyncio.gather(*waiting), await readiness.of(services)]

    monkeypatch.setattr(health, "_look", look)
    for reuse_s, count in ((60, 1), (0, 2)):
        looks.clear()
        services = cast(Services, SimpleNamespace(settings=settings.model_copy(update={"ready_reuse_s": reuse_s})))
        assert len(asyncio.run(ask(services))) == 100
        assert len(looks) == count


def test_not_ready_where_no_worker_could_load_the_model(client: TestClient) -> None:
    now = datetime.now(UTC)
    store = services_of(client).store
    store.report_worker(WorkerSeen("w", "host", 1, now, now, "the model m could not be loaded (out_of_memory)"))
    check = client.get("/health/ready").json()["checks"]["worker"]
    assert check == {"ok": False, "detail": "1 worker process(es), but the model m could not be loaded (out_of_memory)"}
    store.report_worker(WorkerSeen("v", "host", 2, now, now))
    assert client.get("/health/ready").status_code == 200


def test_not_ready_without_models_or_room(settings: Settings, tmp_path: Path) -> None:
    poor = settings.model_copy(update={"models_dir": tmp_path / "none", "min_free_bytes": 2**60})
    with TestClient(create_app(poor)) as client:
        checks = client.get("/health/ready").json()["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} == {"worker", "models", "disk"}


def test_models_have_hashes_and_say_which_is_the_default(client: TestClient) -> None:
    (model,) = client.get("/api/v1/models").json()["items"]
    assert (model["name"], model["default"]) == ("tiny-5x@1.0.0", True)
    assert len(model["manifest"]["weights"]["sha256"]) == 64
    assert client.get("/api/v1/models/tiny-5x").json() == client.get("/api/v1/models/tiny-5x@1.0.0").json() == model


def test_a_broken_pack_is_said_and_does_not_hide_the_others(settings: Settings, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(settings.models_dir, models)
    for name in ("other/1.0.0", f"{MODEL}/0.9.0"):
        (models / name).mkdir(parents=True)
        (models / name / "model.json").write_text("{}")
    named = settings.model_copy(update={"models_dir": models, "default_model": f"{MODEL}@1.0.0"})
    with TestClient(create_app(named)) as client:
        check = client.get("/health/ready").json()["checks"]["models"]
        assert check["ok"] is True
        assert "other/1.0.0" in check["detail"]
        answer = client.get("/api/v1/models").json()
        assert [(model["name"], model["default"]) for model in answer["items"]] == [("tiny-5x@1.0.0", True)]
        assert [failure["code"] for failure in answer["broken"]] == ["pack_invalid"] * 2
        # Who names no version might be given another one than the newest.
        assert client.get(f"/api/v1/models/{MODEL}").status_code == 500
    findings = [finding for finding in examine(named) if finding.check == "models"]
    assert [finding.level for finding in findings] == [Level.OK, Level.OK, Level.BROKEN, Level.BROKEN]


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_the_openapi_document_is_whole(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in refs(document)} <= set(schemas)
    assert hepamap.RESEARCH_USE_ONLY in document["info"]["description"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
            if path.startswith("/api"):
                content = operation["responses"]["500"]["content"]
                assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    post = document["paths"]["/api/v1/analyses"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"202", "403", "404", "409", "413", "415", "422", "507"} <= set(post["responses"])
    for name in ("AnalysisRequest", "AnalysisAnswer", "Problem", "ClientView", "Identity"):
        for field, schema in schemas[name]["properties"].items():
            assert "description" in schema, f"{name}.{field}"


def test_the_example_of_the_openapi_document_is_a_request(client: TestClient) -> None:
    (example,) = client.get("/openapi.json").json()["components"]["schemas"]["AnalysisRequest"]["examples"]
    check_problem(client.post("/api/v1/analyses", json=example), 403, "slide_not_allowed")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0E9A3C52-7f0b-4b5e-9a39-0c2a1f5f7d10", True),
        ("4bf92f3577b34da6a3ce929d0e0e4736", True),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        # What might be the number of a case, or a name.
        ("S26-1234", False),
        ("2026001234567890", False),
        ("DOE-JANE-1970", False),
        ("order-17.a", False),
        ("4bf92f3577b34da6a3ce929d0e0e4736-S26", False),
        ("81ARZ3NDEKTSV4RRFFQ69G5FAV", False),
        ("a b", False),
    ],
)
def test_requests_have_an_id(client: TestClient, given: str, kept: bool) -> None:
    answered = client.get("/health/live", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert (answered == given) is kept
    assert given not in answered or kept
    assert len(answered) >= 26


def test_what_nobody_foresaw_is_logged_whole_and_answered_without_its_inside(app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("secret of the inside")

    with capture_logs() as logs, TestClient(app) as client:
        response = client.get("/broken", headers={"X-Request-ID": REQUEST_ID})
    problem = check_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert problem["request_id"] == REQUEST_ID
    assert REQUEST_ID in problem["cure"]
    assert [entry["exc_info"] for entry in logs if entry["event"] == "request_crashed"] == [True]


def test_a_database_that_does_not_answer_is_a_503(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise JobStoreError("The job database does not answer: disk I/O error.", cure="Try again in a moment.")

    monkeypatch.setattr(services_of(client).store, "page", fail)
    check_problem(client.get("/api/v1/analyses"), 503, "job_store_unavailable")


def test_what_is_logged_names_neither_slide_nor_patient(client: TestClient, slide: Path) -> None:
    with capture_logs() as logs:
        client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, "identity": {"accession": "S26-1234"}})
    assert logs
    assert "S26-1234" not in str(logs)
    assert slide.name not in str(logs)


NO_KERAS = """
import json, sys, warnings
warnings.simplefilter("ignore")
from fastapi.testclient import TestClient
from hepamap.api.app import create_app
from hepamap.operations.doctor import examine
from hepamap.operations.findings import Level
from hepamap.settings import Settings
(slide,) = sys.argv[1:]
with TestClient(create_app(Settings())) as client:
    analysis = client.post("/api/v1/analyses", json={"slide": {"path": slide}}).json()
    statuses = [client.get(url).status_code for url in (
        analysis["links"]["self"], analysis["links"]["contours"], analysis["links"]["probability_map"],
        analysis["links"]["probability_map"] + "?format=color", "/api/v1/models", "/openapi.json", "/health/ready",
    )]
loaded = [name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules]
print(json.dumps({"statuses": statuses, "loaded": loaded}))
"""


def test_the_server_never_imports_keras(settings: Settings, client: TestClient, slide: Path) -> None:
    from tests.api.conftest import post, work

    post(client, slide)
    work(client)
    # The same question in a process of its own: it is answered by what was computed.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NO_KERAS), str(slide)],
        env={**os.environ, **settings.environment()},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer == {"statuses": [200, 200, 200, 200, 200, 200, 503], "loaded": []}
