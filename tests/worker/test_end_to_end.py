"""The whole way with nothing replaced: `hepamap serve`, its worker, a real network, contours over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import shapely

from hepamap.settings import Settings
from tests.packs import write_network_pack
from tests.worker.conftest import ServerFactory, wait_for


@pytest.mark.slow
def test_from_upload_to_contours(start: ServerFactory, settings: Settings, slide: Path) -> None:
    write_network_pack(settings.models_dir, "constant-5x", bias=(0.0, 2.0))
    server = start(settings, [sys.executable, "-m", "hepamap", "serve"])
    region = '{"type": "Polygon", "coordinates": [[[0, 0], [500, 0], [500, 600], [0, 600], [0, 0]]]}'
    with slide.open("rb") as file:
        response = server.http.post(
            "/api/v1/analyses",
            files={"file": ("upload.tif", file)},
            data={"request": f'{{"model": "constant-5x", "min_area_um2": 0, "stride": 32, "region": {region}}}'},
        )
    assert response.status_code == 202, response.text
    analysis = response.json()
    done = wait_for(lambda: (found := server.get(analysis))["state"] in ("succeeded", "failed") and found, seconds=90)
    assert done["error"] is None
    contours = server.http.get(done["links"]["contours"]).json()
    (feature,) = contours["features"]
    left, top, right, bottom = shapely.geometry.shape(feature["geometry"]).bounds
    # Tissue begins at (100, 100) and ends at row 500; the region ends at column 500. A cell has 128 px here.
    for seen, true in ((left, 100), (top, 100), (right, 500), (bottom, 500)):
        assert abs(seen - true) <= 128
    assert contours["properties"]["provenance"]["model"]["id"] == "constant-5x"
    assert server.http.get(done["links"]["probability_map"], params={"format": "ome-tiff"}).status_code == 200
    assert server.http.delete(done["links"]["self"]).status_code == 204
    assert server.stop() == 0
    assert server.statuses_of_stopped_workers() == [0]
    assert "Traceback" not in server.log.read_text()
