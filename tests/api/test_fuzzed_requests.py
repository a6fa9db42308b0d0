"""Regions, zips and uploads of every shape: a code or an answer, never a 500, and nothing is left behind."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hepamap.api.app import create_app
from hepamap.settings import Settings
from tests.api import test_archives as zips
from tests.api.conftest import MODEL, services_of
from tests.api.tus_client import TUS, UPLOADS

ANALYSES = "/api/v1/analyses"
bounded = effort(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))

NUMBERS = st.one_of(
    st.integers(-3000, 3000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e308, -1e308, 2**70, 0.1, None, "x"]),
)
POINTS = st.lists(NUMBERS, min_size=0, max_size=4)
RINGS = st.lists(st.lists(st.integers(-200, 1400), min_size=2, max_size=2), min_size=0, max_size=8)
GEOMETRIES = st.recursive(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["Polygon", "MultiPolygon", "Point", "LineString", "Feature", "polygon", "", None, 3]),
            "coordinates": st.one_of(
                NUMBERS,
                POINTS,
                RINGS,
                st.lists(RINGS, max_size=3),
                st.lists(st.lists(RINGS, max_size=2), max_size=2),
                st.lists(POINTS),
            ),
        }
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("Feature"), "geometry": inner}),
        st.fixed_dictionaries({"type": st.just("FeatureCollection"), "features": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"type": st.just("GeometryCollection"), "geometries": st.lists(inner, max_size=2)}),
    ),
    max_leaves=4,
)
PRINTABLE = st.text(string.ascii_letters + string.digits + " ,;=+/-_.\t", max_size=40)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, slide_bytes: bytes) -> Iterator[tuple[TestClient, Path]]:
    folder = tmp_path_factory.mktemp("site")
    slide = folder / "slides" / "slide.tif"
    slide.parent.mkdir()
    slide.write_bytes(slide_bytes)
    settings = Settings(
        data_dir=folder / "data",
        models_dir=models_dir,
        default_model=MODEL,
        slide_roots=(slide.parent,),
        embedded_worker=False,
        min_free_bytes=0,
        allowed_hosts=("testserver",),
        max_upload_bytes=64 * 1024,
        max_request_bytes=64 * 1024,
    )
    with TestClient(create_app(settings)) as client:
        yield client, slide


def check(response: Any) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        problem = response.json()
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["code"] not in ("error", "internal_error")
        assert problem["cure"]


@bounded
@given(region=GEOMETRIES)
def test_regions(site: tuple[TestClient, Path], region: Any) -> None:
    client, slide = site
    check(client.post(ANALYSES, json={"slide": {"path": str(slide)}, "region": region}))


@bounded
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["Upload-Length", "Upload-Offset", "Upload-Metadata", "Upload-Checksum", "Upload-Defer-Length", "Content-Type"]
        ),
        st.one_of(
            PRINTABLE,
            st.sampled_from(["0", "5", "-1", "1e3", "99999999999999999999", "sha1 AAAA", "application/offset+octet-stream"]),
        ),
    ),
    body=st.binary(max_size=40),
    method=st.sampled_from(["POST", "PATCH", "HEAD", "GET", "DELETE"]),
)
def test_uploads(site: tuple[TestClient, Path], headers: dict[str, str], body: bytes, method: str) -> None:
    client, _ = site
    path = UPLOADS
    if method != "POST":
        path = client.post(UPLOADS, headers={**TUS, "Upload-Length": "20"}).headers["location"]
    sent = {name: value.strip() for name, value in headers.items()}
    response = client.request(method, path, headers={**TUS, **sent}, content=body)
    if method == "HEAD":
        assert response.status_code < 500
    else:
        check(response)


@bounded
@given(data=st.data(), cut=st.booleans())
def test_zips(site: tuple[TestClient, Path], data: st.DataObject, cut: bool) -> None:
    client, _ = site
    names = data.draw(st.lists(st.text("a./\\:bé", min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
    whole = bytearray(zips.zipped(*[(name, data.draw(st.binary(max_size=60))) for name in names]))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    if cut:
        del whole[data.draw(st.integers(4, len(whole))) :]
    uploads = services_of(client).settings.uploads_dir
    before = {path.name for path in uploads.iterdir()} if uploads.is_dir() else set()
    check(client.post(ANALYSES, files={"file": ("slide.zip", bytes(whole))}))
    assert {path.name for path in uploads.iterdir()} == before
