"""What can be wrong with a request, and what the server says to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from hepamap import RESEARCH_USE_ONLY
from tests.api.conftest import services_of
from tests.conftest import write_tiff_slide

MEMBERS = {"type", "title", "status", "detail", "code", "cure", "instance"}
SQUARE = [[0, 0], [500, 0], [500, 500], [0, 500], [0, 0]]
BOW_TIE = [[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]
TISSUE = np.full((600, 600, 3), 150, np.uint8)


def check_problem(response: Any, status: int, code: str, *, body: bool = True) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-notice"] == RESEARCH_USE_ONLY
    if not body:
        return None
    problem = response.json()
    assert set(problem) >= MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:hepamap:problem:{code}"
    assert problem["instance"] == response.request.url.path
    assert len(problem["detail"]) > 10
    assert len(problem["cure"]) > 10
    assert "Traceback" not in response.text
    return problem


def text_named_svs(root: Path, slide: Path) -> Path:
    path = root / "notes.svs"
    path.write_text("These are notes.")
    return path


def truncated(root: Path, slide: Path) -> Path:
    path = root / "cut.tif"
    data = slide.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def missing(root: Path, slide: Path) -> Path:
    return root / "nothing.tif"


def folder(root: Path, slide: Path) -> Path:
    path = root / "folder"
    path.mkdir()
    return path


def empty_file(root: Path, slide: Path) -> Path:
    path = root / "empty.svs"
    path.touch()
    return path


def no_pixel_size(root: Path, slide: Path) -> Path:
    return write_tiff_slide(root / "no-mpp.tif", TISSUE, None)


def overview_of_29_um(root: Path, slide: Path) -> Path:
    return write_tiff_slide(root / "coarse.tif", TISSUE, 29.0)


def outside_the_roots(root: Path, slide: Path) -> Path:
    path = root.parent / "private.tif"
    path.write_bytes(slide.read_bytes())
    return path


def dots_out_of_the_root(root: Path, slide: Path) -> Path:
    outside_the_roots(root, slide)
    return root / ".." / "private.tif"


def link_out_of_the_root(root: Path, slide: Path) -> Path:
    path = root / "link.tif"
    path.symlink_to(outside_the_roots(root, slide))
    return path


def link_in_a_circle(root: Path, slide: Path) -> Path:
    path = root / "circle.tif"
    path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        (text_named_svs, 422, "not_a_slide"),
        (truncated, 422, "slide_damaged"),
        (missing, 404, "slide_not_found"),
        (folder, 422, "not_a_slide"),
        (empty_file, 422, "not_a_slide"),
        (no_pixel_size, 422, "pixel_size_missing"),
        (overview_of_29_um, 422, "resolution_too_coarse"),
        (outside_the_roots, 403, "slide_not_allowed"),
        (dots_out_of_the_root, 403, "slide_not_allowed"),
        (link_out_of_the_root, 403, "slide_not_allowed"),
    ],
)
def test_slides_that_cannot_be_analysed(
    client: TestClient, root: Path, slide: Path, make: Callable[[Path, Path], Path], status: int, code: str
) -> None:
    path = make(root, slide)
    check_problem(client.post("/api/v1/analyses", json={"slide": {"path": str(path)}}), status, code)
    assert client.get("/api/v1/analyses").json()["items"] == []


def test_a_link_in_a_circle_is_no_slide(client: TestClient, root: Path, slide: Path) -> None:
    response = client.post("/api/v1/analyses", json={"slide": {"path": str(link_in_a_circle(root, slide))}})
    assert response.status_code in (403, 404, 422)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_slide_that_the_server_may_not_read(client: TestClient, slide: Path) -> None:
    slide.chmod(0)
    check_problem(client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}}), 403, "slide_not_readable")


def test_a_slide_that_goes_away_while_it_is_looked_at(client: TestClient, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not in a child, which would not have the stand-in.
    monkeypatch.setattr(services_of(client).readers, "run", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr("hepamap.slide_files._require_readable", Path.unlink)
    with capture_logs() as logs:
        response = client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}})
    check_problem(response, 403, "slide_not_readable")
    assert [entry["event"] for entry in logs] == ["request"]


@pytest.mark.parametrize(
    "path", ["slide.tif", "/etc/passwd", r"C:\slides\a.svs", r"\\server\slides\a.svs", "/" + "x" * 4000, "/a\0b"]
)
def test_paths_that_no_root_has(client: TestClient, root: Path, path: str) -> None:
    problem = check_problem(client.post("/api/v1/analyses", json={"slide": {"path": path}}), 403, "slide_not_allowed")
    assert str(root) in problem["cure"]


def test_a_missing_file_outside_the_roots_looks_like_one_that_exists(client: TestClient, root: Path, slide: Path) -> None:
    there = str(outside_the_roots(root, slide))
    said = [
        client.post("/api/v1/analyses", json={"slide": {"path": path}}).json()["detail"].replace(path, "")
        for path in (there, there + "x")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({"region": {"type": "Polygon", "coordinates": []}}, 422, "region_empty"),
        ({"region": {"type": "Polygon", "coordinates": [[[5, 5], [9, 9], [5, 5], [5, 5]]]}}, 422, "region_empty"),
        ({"region": {"type": "Polygon", "coordinates": [[[x + 9000, y] for x, y in SQUARE]]}}, 422, "region_outside_slide"),
        ({"region": {"type": "Polygon", "coordinates": [BOW_TIE]}}, 422, "region_invalid"),
        ({"region": {"type": "Point", "coordinates": [3, 4]}}, 422, "region_invalid"),
        ({"region": {"type": "Polygon", "coordinates": "around here"}}, 422, "region_invalid"),
        ({"region": {}}, 422, "region_invalid"),
        ({"threshold": 1.5}, 422, "threshold_invalid"),
        ({"threshold": 0}, 422, "threshold_invalid"),
        ({"threshold": 1}, 422, "threshold_invalid"),
        ({"threshold": "high"}, 422, "request_invalid"),
        ({"stride": 17}, 422, "stride_invalid"),
        ({"stride": 0}, 422, "stride_invalid"),
        ({"stride": 16.5}, 422, "request_invalid"),
        ({"mode": "dense"}, 422, "parameter_invalid"),
        ({"mode": "quick"}, 422, "request_invalid"),
        ({"min_area_um2": -1}, 422, "parameter_invalid"),
        ({"mpp_um": 0}, 422, "pixel_size_invalid"),
        ({"mpp_um": 5000}, 422, "pixel_size_invalid"),
        ({"mpp_um": 29}, 422, "resolution_too_coarse"),
        ({"model": "hcc-99x"}, 404, "model_not_found"),
        ({"model": "tiny-5x@9.9.9"}, 404, "model_not_found"),
        ({"model": "../../etc"}, 404, "model_not_found"),
        ({"client_view": {"width": 700, "height": 900}}, 409, "slide_mismatch"),
        ({"client_view": {"width": 1200, "height": 900, "pixel_width_um": 0.25, "pixel_height_um": 0.25}}, 409, "slide_mismatch"),
        ({"client_view": {"width": 0, "height": 900}}, 422, "request_invalid"),
        ({"client_view": {"width": 1200}}, 422, "request_invalid"),
        ({"tresholt": 0.5}, 422, "request_invalid"),
        ({"identity": {"patient": "Jane Doe"}}, 422, "request_invalid"),
        ({"identity": {"accession": "x" * 201}}, 422, "request_invalid"),
        ({"priority": 1000}, 422, "request_invalid"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_parameters_that_cannot_be_used(client: TestClient, slide: Path, values: dict[str, Any], status: int, code: str) -> None:
    check_problem(client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, **values}), status, code)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "application/json", 422, "request_invalid"),
        (b"{", "application/json", 422, "request_invalid"),
        (b"[]", "application/json", 422, "request_invalid"),
        (b"{}", "application/json", 422, "request_invalid"),
        (b'{"slide": {}}', "application/json; charset=utf-8", 422, "request_invalid"),
        (b'{"slide": {"path": "/a"}, "threshold": NaN}', "application/json", 422, "request_invalid"),
        (b"\xff\xfe", "application/json", 422, "request_invalid"),
        (b'{"region": ' + b"[" * 5000 + b"]" * 5000 + b"}", "application/json", 422, "request_invalid"),
        (b'{"model": "' + b"x" * 70_000 + b'"}', "application/json", 413, "request_too_large"),
        (b"slide=a", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"slide=a", "multipart/form-data", 415, "unsupported_media_type"),
        (b"slide=a", "", 415, "unsupported_media_type"),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_bodies_that_are_no_request(client: TestClient, body: bytes, kind: str, status: int, code: str) -> None:
    check_problem(client.post("/api/v1/analyses", content=body, headers={"Content-Type": kind}), status, code)


def test_an_invalid_request_names_the_fields_and_repeats_no_value(client: TestClient) -> None:
    body = {"slide": {"path": "/a"}, "threshold": "secret", "identity": {"accession": ["secret"]}}
    problem = check_problem(client.post("/api/v1/analyses", json=body), 422, "request_invalid")
    assert [item["field"] for item in problem["errors"]] == ["threshold", "identity.accession"]
    assert "secret" not in json.dumps(problem)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("PUT", "/api/v1/analyses", 405, "method_not_allowed"),
        ("GET", "/api/v1/analyses/nobody", 404, "analysis_not_found"),
        ("DELETE", "/api/v1/analyses/nobody", 404, "analysis_not_found"),
        ("GET", "/api/v1/analyses/nobody/contours", 404, "analysis_not_found"),
        ("GET", "/api/v1/analyses/nobody/probability-map", 404, "analysis_not_found"),
        ("GET", "/api/v1/analyses/nobody/probability-map?format=jpeg", 422, "request_invalid"),
        ("GET", "/api/v1/analyses?state=sleeping", 422, "request_invalid"),
        ("GET", "/api/v1/analyses?limit=0", 422, "request_invalid"),
        ("GET", "/api/v1/analyses?limit=many", 422, "request_invalid"),
        ("GET", "/api/v1/analyses?cursor=%ff", 422, "request_invalid"),
        ("GET", "/api/v1/analyses?cursor=nonsense", 422, "request_invalid"),
        ("GET", "/api/v1/models/nothing", 404, "model_not_found"),
    ],
)
def test_calls_that_lead_nowhere(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    response = client.request(method, path)
    check_problem(response, status, code)
    if status == 405:
        assert "POST" in response.headers["allow"]
