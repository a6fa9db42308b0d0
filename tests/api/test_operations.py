"""What the operator sees: metrics, readiness, logs that belong together."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from hepamap.api.app import create_app
from hepamap.settings import Settings
from tests.api.conftest import REQUEST_ID, post, services_of, work

ANALYSES = "/api/v1/analyses"


def scrape(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_queue_and_outcomes(client: TestClient, slide: Path) -> None:
    before = scrape(client)
    assert {labels: value for (name, labels), value in before.items() if name == "hepamap_analyses"} == {
        (state,): 0.0 for state in ("queued", "running", "succeeded", "failed", "cancelled")
    }
    done = post(client, slide)
    post(client, slide, threshold=0.7)
    client.delete(post(client, slide, threshold=0.8)["links"]["self"])
    work(client)
    after = scrape(client)
    assert after["hepamap_analyses", ("succeeded",)] == 1.0
    assert after["hepamap_analyses", ("queued",)] == 1.0
    assert after["hepamap_analyses", ("cancelled",)] == 1.0
    finished = {labels[0]: value for (name, labels), value in after.items() if name == "hepamap_analyses_finished_total"}
    assert sum(finished.values()) == 2.0
    assert finished["cancelled"] == 1.0
    client.delete(done["links"]["self"])
    assert sum(value for (name, _), value in scrape(client).items() if name == "hepamap_analyses_finished_total") == 2.0


def test_requests_are_counted_by_route(client: TestClient) -> None:
    for name in ("Jane-Doe", "John-Doe"):
        client.get(f"{ANALYSES}/{name}")
    client.get("/nothing/Jane-Doe")
    client.request("HURTS", "/nothing")
    counted = {labels: value for (name, labels), value in scrape(client).items() if name == "hepamap_http_request_seconds_count"}
    assert counted == {
        ("GET", "/api/v1/analyses/{analysis_id}", "404"): 2.0,
        ("GET", "none", "404"): 1.0,
        ("other", "none", "404"): 1.0,
    }


def test_no_label_says_anything_about_slides_or_patients(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide, identity={"accession": "S26-1234"})
    work(client)
    for url in (analysis["links"]["self"], analysis["links"]["contours"], f"{ANALYSES}?state=x&name=S26-1234"):
        client.get(url)
    text = client.get("/metrics").text
    for secret in ("S26-1234", slide.name, str(slide.parent), analysis["id"]):
        assert secret not in text


def test_two_servers_in_one_process_do_not_count_for_each_other(client: TestClient, settings: Settings) -> None:
    client.get("/version")
    with TestClient(create_app(settings)) as other:
        assert not [key for key in scrape(other) if "/version" in key[1]]


def test_not_ready_when_the_weights_are_damaged(settings: Settings, models_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models_dir, copy)
    (weights,) = copy.rglob("weights.safetensors")
    good = weights.read_bytes()
    with TestClient(create_app(settings.model_copy(update={"models_dir": copy}))) as client:

        def models() -> Any:
            return client.get("/health/ready").json()["checks"]["models"]

        assert models()["ok"]
        weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert not models()["ok"]
        assert "sha256" in models()["detail"]
        weights.write_bytes(good)
        assert models()["ok"]
        weights.unlink()
        assert not models()["ok"]


def test_the_request_id_goes_along_to_the_worker(client: TestClient, slide: Path) -> None:
    client.headers["X-Request-ID"] = REQUEST_ID
    post(client, slide)
    claimed = services_of(client).store.claim()
    assert claimed is not None
    assert claimed.payload["request_id"] == REQUEST_ID


def test_the_log_has_routes_and_no_addresses(client: TestClient) -> None:
    with capture_logs() as logs:
        client.get(f"{ANALYSES}/Jane-Doe", headers={"X-Request-ID": REQUEST_ID})
    (entry,) = [entry for entry in logs if entry["event"] == "request"]
    assert (entry["route"], entry["status"], entry["caller"]) == ("/api/v1/analyses/{analysis_id}", 404, "local")
    assert "Jane" not in str(logs)


def test_the_openapi_document_says_which_credentials_are_taken(app: FastAPI) -> None:
    document = app.openapi()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}
    assert document["security"] == [{"bearer": []}, {"key": []}]
    free = {path for path, methods in document["paths"].items() for call in methods.values() if call.get("security") == []}
    assert free == {"/health/live", "/health/ready", "/version", "/qupath/", "/qupath/hepamap.groovy"}
    for path, methods in document["paths"].items():
        for call in methods.values():
            if path.startswith("/api"):
                assert {"401", "403", "421", "429"} <= set(call["responses"]), path


@pytest.mark.parametrize("public", [True, False])
def test_metrics_may_be_opened(settings: Settings, public: bool) -> None:
    changed = settings.model_copy(update={"access": "keys", "metrics_public": public})
    with TestClient(create_app(changed)) as client:
        assert client.get("/metrics").status_code == (200 if public else 401)
        assert client.get(ANALYSES).status_code == 401


def test_names_of_metrics_are_good_ones(client: TestClient) -> None:
    names = {name for name, _ in scrape(client)}
    assert {"hepamap_analyses", "hepamap_workers", "hepamap_data_free_bytes"} <= names
    assert all(re.fullmatch(r"hepamap_[a-z_]+", name) for name in names)
