"""Ids, times and texts that a database cannot take are refused as what they are, on both databases."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hepamap.api.app import create_app
from hepamap.settings import Settings
from tests.api.conftest import post, work
from tests.api.test_bad_input import check_problem
from tests.postgres import Postgres

ANALYSES = "/api/v1/analyses"


@pytest.fixture(params=["sqlite", "postgresql"])
def client(request: pytest.FixtureRequest, settings: Settings) -> Iterator[TestClient]:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        settings = settings.model_copy(update={"database_url": server.new_database()})
    with TestClient(create_app(settings)) as client:
        yield client


def test_ids_of_another_form_are_of_nothing(client: TestClient) -> None:
    for text in ("%00", "a%00b", "5F0C2B0E-6A55-4C0A-9D0B-0F0F5F3F9A11", "x" * 300):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/contours"), ("GET", "/verdicts"), ("GET", "/deliveries")):
            check_problem(client.request(method, f"{ANALYSES}/{text}{path}"), 404, "analysis_not_found")
        check_problem(client.get(f"/api/v1/verdicts/{text}"), 404, "verdict_not_found")
    cursor = base64.urlsafe_b64encode(b"2026-01-01T00:00:00+00:00|a\0b").decode()
    for path in (ANALYSES, "/api/v1/verdicts"):
        check_problem(client.get(path, params={"cursor": cursor}), 422, "request_invalid")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_times_that_are_none_in_utc(client: TestClient, time: str) -> None:
    check_problem(client.get("/api/v1/verdicts", params={"since": time}), 422, "request_invalid")
    cursor = base64.urlsafe_b64encode(f"{time}|5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11".encode()).decode()
    for path in (ANALYSES, "/api/v1/verdicts"):
        check_problem(client.get(path, params={"cursor": cursor}), 422, "request_invalid")
    assert client.get("/api/v1/verdicts", params={"since": "2026-01-31T08:00:00+02:00"}).status_code == 200


def test_a_nul_in_a_text(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide, min_area_um2=0)
    work(client)
    own = analysis["links"]["self"]
    bodies: list[dict[str, Any]] = [
        {"decision": "accepted", "user": "a\0b"},
        {"decision": "rejected", "user": "a", "reason": "a\0b"},
    ]
    for body in bodies:
        check_problem(client.post(f"{own}/verdicts", json=body), 422, "request_invalid")
    check_problem(client.put(f"{own}/threshold", json={"threshold": 0.5, "user": "\0"}), 422, "request_invalid")
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
    for more in (
        {"identity": {"accession": "a\0b"}},
        {"region": {"type": "Feature", "properties": {"name": "a\0b"}, "geometry": polygon}},
    ):
        response = client.post(ANALYSES, json={"slide": {"path": str(slide)}, **more})
        check_problem(response, 422, "request_invalid")
    written = {"slide": {"path": str(slide)}, "identity": {"accession": "a\\u0000b"}}  # a backslash, and no NUL
    assert client.post(ANALYSES, json=written).json()["identity"] == {"accession": "a\\u0000b"}
    assert len(client.get(ANALYSES).json()["items"]) == 2


@pytest.mark.parametrize("number", ["1e999", "NaN"])
def test_a_region_that_has_a_number_beyond_all_numbers_in_it(
    settings: Settings, postgres: Postgres, slide: Path, number: str
) -> None:
    """Not in its outline, but in what a viewer measured and sends with it: PostgreSQL's JSON has no such number."""
    region = (
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}, '
        f'"properties": {{"name": "DOE-JANE", "measurements": {{"Area": {number}}}}}}}'
    )
    body = f'{{"slide": {{"path": {json.dumps(str(slide))}}}, "min_area_um2": 0, "region": {region}}}'
    there = settings.model_copy(update={"database_url": postgres.new_database()})
    with TestClient(create_app(there)) as client:
        asked = client.post(ANALYSES, content=body, headers={"Content-Type": "application/json"})
        assert asked.status_code == 202, asked.text
        assert "DOE" not in str(work(client).payload)
        done = client.get(asked.json()["links"]["self"]).json()
    assert done["state"] == "succeeded"
