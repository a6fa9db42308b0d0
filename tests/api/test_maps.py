"""The map for programs: 8 bits a cell, and where the cells lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from hepamap.model_pack import OperatingPoint, write_pack
from hepamap.settings import Settings
from tests.api.conftest import MODEL, post, work
from tests.packs import manifest_body

POINT = {"name": "specific", "threshold": 0.8, "sensitivity": 0.75, "specificity": None}


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """A model with an operating point."""
    body = manifest_body(MODEL).model_copy(update={"operating_points": (OperatingPoint(**POINT),)})
    write_pack(tmp_path / "models" / MODEL / "1.0.0", body, {"layer/kernel": np.zeros(1)}, "# For tests\n")
    return settings.model_copy(update={"models_dir": tmp_path / "models"})


@pytest.fixture
def analysis(client: TestClient, slide: Path) -> Any:
    answer = post(client, slide, min_area_um2=0)
    work(client)
    return answer


def get(client: TestClient, analysis: Any, **parameters: str) -> Any:
    response = client.get(analysis["links"]["probability_map"], params=parameters)
    assert response.status_code == 200, response.text
    return response


def test_a_byte_of_the_map_is_a_probability_or_no_data(client: TestClient, analysis: Any) -> None:
    response = get(client, analysis, format="index8")
    assert response.headers["content-type"] == "image/png"
    bytes_ = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert bytes_ is not None
    values = np.load(io.BytesIO(get(client, analysis, format="npy").content))
    assert bytes_.dtype == np.uint8
    assert bytes_.shape == values.shape
    assert np.array_equal(bytes_ == 0, np.isnan(values))
    # The stand-in of a network answers 0.1 and 0.9: 0.1 · 254 + 1 = 26.4 and 0.9 · 254 + 1 = 229.6.
    assert set(np.unique(bytes_)) == {0, 26, 230}
    known = bytes_ > 0
    assert np.abs((bytes_[known] - 1.0) / 254 - values[known]).max() <= 0.5 / 254 + 1e-7


def test_where_the_cells_lie(client: TestClient, analysis: Any) -> None:
    place = get(client, analysis, format="json").json()
    # Cells of 16 px at 1.84 µm are 64 px at 0.46 µm; the first one's patch begins at level 0 minus as many strides as are
    # needed, and its cell lies (64 - 16) / 2 model px further.
    assert (place["cell_width"], place["cell_height"]) == (64.0, 64.0)
    assert (place["x"], place["y"]) == (-32.0, -32.0)
    assert (place["columns"], place["rows"]) == (20, 15)
    assert (place["width"], place["height"]) == (20 * 64.0, 15 * 64.0)
    assert place["x"] + place["width"] >= 1200
    assert place["frame"] == {"name": "level0", "offset_x": 0, "offset_y": 0}
    assert (place["no_data"], place["threshold"], place["operating_points"]) == (0, 0.5, [POINT])
    assert (place["model"]["id"], place["model"]["version"]) == (MODEL, "1.0.0")
    client.put(f"{analysis['links']['self']}/threshold", json={"threshold": 0.7, "user": "x"})
    assert get(client, analysis, format="json").json() == {**place, "threshold": 0.7}


def test_the_client_that_has_it_is_told_so(client: TestClient, analysis: Any) -> None:
    tags = {form: get(client, analysis, format=form).headers["etag"] for form in ("json", "index8")}

    def again(form: str) -> int:
        url = f"{analysis['links']['probability_map']}?format={form}"
        return int(client.get(url, headers={"If-None-Match": tags[form]}).status_code)

    assert (again("json"), again("index8")) == (304, 304)
    client.put(f"{analysis['links']['self']}/threshold", json={"threshold": 0.7, "user": "x"})
    assert (again("json"), again("index8")) == (200, 304)


def test_a_model_that_was_replaced_says_nothing_about_the_map(client: TestClient, analysis: Any, settings: Settings) -> None:
    folder = settings.models_dir / MODEL
    body = manifest_body(MODEL).model_copy(update={"operating_points": (OperatingPoint(**POINT),)})
    for file in (folder / "1.0.0").iterdir():
        file.unlink()
    (folder / "1.0.0").rmdir()
    assert get(client, analysis, format="json").json()["operating_points"] == []
    write_pack(folder / "1.0.0", body, {"layer/kernel": np.ones(1)}, "# Others\n")
    assert get(client, analysis, format="json").json()["operating_points"] == []
