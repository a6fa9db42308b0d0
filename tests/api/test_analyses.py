from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from fastapi.testclient import TestClient

from hepamap import RESEARCH_USE_ONLY
from hepamap.api.app import create_app
from hepamap.detection import Detector
from hepamap.errors import SlideDamagedError
from hepamap.jobs.job import JobFailure, JobProgress
from hepamap.settings import Settings
from tests.api.conftest import MODEL, post, result_folder, services_of, work
from tests.api.test_bad_input import check_problem
from tests.conftest import write_tiff_slide

IDENTITY = {"accession": "S26-1234", "specimen": "A", "block": "A1", "slide_barcode": "Ü|1"}
DARK = (400, 300, 800, 600)
CELL = 64
"""Side of a map cell of the tiny model, level-0 px."""


def now(client: TestClient, analysis: Any) -> Any:
    response = client.get(analysis["links"]["self"])
    assert response.status_code == 200
    return response.json()


def bounds_of(collection: Any) -> tuple[float, ...]:
    (feature,) = collection["features"]
    return shapely.geometry.shape(feature["geometry"]).bounds


def test_from_request_to_contours(client: TestClient, slide: Path) -> None:
    response = client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, "identity": IDENTITY, "min_area_um2": 0})
    assert response.status_code == 202
    queued = response.json()
    assert response.headers["location"] == queued["links"]["self"] == f"/api/v1/analyses/{queued['id']}"
    assert queued["state"] == "queued"
    assert queued["progress"] == {"done": 0, "total": None, "stage": "queued", "fraction": 0.0, "eta_s": None}
    assert queued["frame"] == {"name": "level0", "offset_x": 0, "offset_y": 0}
    assert queued["identity"] == IDENTITY
    assert queued["request"] == {"slide": {"path": str(slide)}, "min_area_um2": 0}
    assert queued["notice"] == RESEARCH_USE_ONLY
    assert queued["outcome"] is queued["error"] is queued["started_at"] is queued["finished_at"] is None
    work(client)
    done = now(client, queued)
    assert (done["state"], done["error"]) == ("succeeded", None)
    assert done["outcome"] in ("ok", "ok_with_warnings")
    assert (done["progress"]["fraction"], done["progress"]["stage"]) == (1.0, "finished")
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["created_at"].endswith("Z")
    contours = client.get(done["links"]["contours"])
    assert contours.headers["content-type"] == "application/geo+json"
    assert all(abs(seen - true) <= CELL for seen, true in zip(bounds_of(contours.json()), DARK, strict=True))
    folder = result_folder(client, done)
    assert contours.text == (folder / "contours.geojson").read_text()


@pytest.fixture
def done(client: TestClient, slide: Path) -> Any:
    analysis = post(client, slide, min_area_um2=0)
    work(client)
    return now(client, analysis)


def test_contours_at_another_threshold_and_area(client: TestClient, done: Any) -> None:
    url = done["links"]["contours"]
    assert client.get(url, params={"threshold": 0.95}).json()["features"] == []
    low = client.get(url, params={"threshold": 0.05}).json()
    left, top, right, bottom = bounds_of(low)
    assert right - left > 900
    assert bottom - top > 600
    assert low["properties"]["threshold"] == 0.05
    assert client.get(url, params={"min_area_um2": 1e9}).json()["features"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("threshold=1.5", "threshold_invalid"),
        ("threshold=0", "threshold_invalid"),
        ("threshold=nan", "request_invalid"),
        ("threshold=low", "request_invalid"),
        ("min_area_um2=-1", "parameter_invalid"),
        ("min_area_um2=inf", "request_invalid"),
        ("frame=mirror", "request_invalid"),
    ],
)
def test_contours_refuse_what_makes_no_sense(client: TestClient, done: Any, query: str, code: str) -> None:
    check_problem(client.get(f"{done['links']['contours']}?{query}"), 422, code)


def test_the_map_in_each_format(client: TestClient, done: Any) -> None:
    def get(name: str) -> Any:
        response = client.get(done["links"]["probability_map"], params={"format": name})
        assert response.status_code == 200
        assert response.headers["x-notice"] == RESEARCH_USE_ONLY
        return response

    values = np.load(io.BytesIO(get("npy").content))
    assert values.dtype == np.float32
    assert {round(float(value), 3) for value in values[np.isfinite(values)]} == {0.1, 0.9}
    assert get("png").headers["content-type"] == get("color").headers["content-type"] == "image/png"
    assert get("png").content[:4] == get("color").content[:4] == b"\x89PNG"
    assert get("png").content != get("color").content
    with tifffile.TiffFile(io.BytesIO(get("ome-tiff").content)) as tiff:
        assert tiff.is_ome


def test_a_slide_that_the_client_sees_cropped_to_its_bounds(
    shared_data: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QuPath shows this slide tens of thousands of pixels away from level 0's corner."""
    monkeypatch.setattr("hepamap.plausibility._MIN_HE_SHARE", 0.0)  # it shows fluorescence, and would get no contours
    folder = shared_data / "slides/slaid"
    square = {"type": "Polygon", "coordinates": [[[3000, 3000], [3300, 3000], [3300, 3300], [3000, 3300], [3000, 3000]]]}
    view = {"width": 10439, "height": 7641, "pixel_width_um": 0.3225, "pixel_height_um": 0.3225}
    with TestClient(create_app(settings.model_copy(update={"slide_roots": (folder.resolve(),)}))) as client:
        analysis = post(
            client, folder / "Mirax2-Fluorescence-2.mrxs", region=square, client_view=view, min_area_um2=0, threshold=0.05
        )
        assert analysis["frame"] == {"name": "bounds", "offset_x": 9153, "offset_y": 102664}
        work(client)
        url = analysis["links"]["contours"]
        own, level0, bounds = (client.get(url, params={"frame": name}).json() for name in ("client", "level0", "bounds"))
    assert own["properties"]["frame"] == bounds["properties"]["frame"] == analysis["frame"]
    assert bounds_of(own) == bounds_of(bounds)
    left, top, right, bottom = bounds_of(own)
    assert shapely.box(left, top, right, bottom).covers(shapely.box(3000, 3000, 3300, 3300))
    assert max(right - left, bottom - top) < 1000
    assert bounds_of(level0) == pytest.approx((left + 9153, top + 102664, right + 9153, bottom + 102664), abs=0.02)


def test_results_are_not_there_before_the_end(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    for link in ("contours", "probability_map"):
        assert "queued" in check_problem(client.get(analysis["links"][link]), 409, "analysis_not_finished")["detail"]


def test_a_failure_says_why(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    store = services_of(client).store
    job = store.claim()
    assert job is not None
    error = SlideDamagedError("Level 0 of slide.tif is damaged.", cure="Copy it again.")
    store.fail(job, JobFailure(error.code, error.message, error.cure))
    failed = now(client, analysis)
    assert failed["state"] == "failed"
    assert failed["error"] == {"code": "slide_damaged", "message": error.message, "cure": error.cure}
    problem = check_problem(client.get(analysis["links"]["contours"]), 409, "analysis_not_finished")
    assert "slide_damaged" in problem["detail"]
    assert problem["cure"] == error.cure


def test_a_white_slide_is_an_empty_result_that_says_so(client: TestClient, root: Path) -> None:
    path = write_tiff_slide(root / "white.tif", np.full((300, 400, 3), 255, np.uint8), 0.46)
    links = post(client, path)["links"]
    work(client)
    answer = client.get(links["self"]).json()
    assert (answer["state"], answer["outcome"]) == ("succeeded", "not_evaluable")
    assert [warning["code"] for warning in answer["warnings"]] == ["no_tissue"]
    assert client.get(links["contours"]).json()["features"] == []


def test_another_stain_gets_no_contours_at_any_threshold(client: TestClient, root: Path) -> None:
    green = np.full((600, 800, 3), (40, 90, 40), np.uint8)  # dark, so that the network of these tests calls it tumour
    links = post(client, write_tiff_slide(root / "green.tif", green, 0.46))["links"]
    work(client)
    assert client.get(links["self"]).json()["outcome"] == "not_evaluable"
    for query in ("", "?threshold=0.3", "?threshold=0.3&min_area_um2=0"):
        answer = client.get(links["contours"] + query).json()
        assert answer["features"] == []
        properties = answer["properties"]
        assert (properties["outcome"], properties["warning_codes"]) == ("not_evaluable", ["not_h_and_e"])
        assert properties["tumour_area_mm2"] is None
        assert properties["tissue_area_mm2"] > 0
    verdicts = f"{links['self']}/verdicts"
    # Accepted, it would say that there is no tumour, and be exported for training as such.
    check_problem(client.post(verdicts, json={"decision": "accepted", "user": "x"}), 409, "nothing_to_accept")
    assert client.get(verdicts).json()["items"] == []
    assert client.post(verdicts, json={"decision": "rejected", "user": "x", "reason": "green"}).status_code == 201


def test_a_pack_with_one_byte_changed_fails_in_words(settings: Settings, slide: Path, tmp_path: Path) -> None:
    packs = Path(shutil.copytree(settings.models_dir, tmp_path / "packs"))
    weights = next(packs.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with TestClient(create_app(settings.model_copy(update={"models_dir": packs}))) as client:
        analysis = post(client, slide)
        work(client, Detector)
        answer = now(client, analysis)
    assert (answer["state"], answer["error"]["code"]) == ("failed", "pack_damaged")


def test_a_slide_that_goes_away_while_it_waits_fails_in_words(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    slide.unlink()
    work(client)
    assert now(client, analysis)["error"]["code"] == "slide_not_found"


def test_progress_has_a_fraction_and_a_time(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    store = services_of(client).store
    job = store.claim()
    assert job is not None
    store.beat(job, JobProgress(25, 100, "classifying"))
    progress = now(client, analysis)["progress"]
    assert (progress["done"], progress["total"], progress["stage"], progress["fraction"]) == (25, 100, "classifying", 0.25)
    assert 0 <= progress["eta_s"] < 60


def test_cancelling_one_that_waits(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    response = client.delete(analysis["links"]["self"])
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert "cancelled" in check_problem(client.get(analysis["links"]["contours"]), 409, "analysis_not_finished")["detail"]


def test_cancelling_one_that_runs_ends_it_at_once_and_tells_its_worker(client: TestClient, slide: Path) -> None:
    analysis = post(client, slide)
    store = services_of(client).store
    running = store.claim()
    assert running is not None
    response = client.delete(analysis["links"]["self"])
    assert response.status_code == 202
    assert (response.json()["state"], response.json()["cancel_requested"]) == ("cancelled", True)
    assert store.beat(running, running.progress).cancel_requested
    assert client.delete(analysis["links"]["self"]).status_code == 204
    check_problem(client.get(analysis["links"]["self"]), 404, "analysis_not_found")


def test_deleting_a_finished_one_removes_its_result(client: TestClient, done: Any) -> None:
    folder = result_folder(client, done)
    assert folder.is_dir()
    response = client.delete(done["links"]["self"])
    assert (response.status_code, response.content) == (204, b"")
    assert not folder.exists()
    check_problem(client.get(done["links"]["self"]), 404, "analysis_not_found")


def test_a_result_that_was_lost_is_said_to_be_damaged(client: TestClient, done: Any) -> None:
    folder = result_folder(client, done)
    (folder / "result.json").unlink()
    check_problem(client.get(done["links"]["contours"]), 500, "result_damaged")


def test_lists_are_paged_and_filtered(client: TestClient, slide: Path) -> None:
    region = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
    ids = [post(client, slide, region=region)["id"] for _ in range(5)]
    client.delete(f"/api/v1/analyses/{ids[2]}")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = client.get("/api/v1/analyses", params={"limit": 2, **cursor}).json()
        assert page["notice"] == RESEARCH_USE_ONLY
        assert all("region" not in item["request"] for item in page["items"])
        seen += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids[::-1]
    assert page["next_cursor"] is None
    cancelled = client.get("/api/v1/analyses", params={"state": "cancelled"}).json()["items"]
    assert [item["id"] for item in cancelled] == [ids[2]]


def test_equal_questions_have_equal_keys(client: TestClient, slide: Path) -> None:
    store = services_of(client).store
    one, same, other = (post(client, slide, **values) for values in ({}, {"model": MODEL}, {"threshold": 0.7}))
    keys = [job.key for job in map(store.get, (one["id"], same["id"], other["id"])) if job is not None]
    assert keys[0] == keys[1] != keys[2]


def test_the_pixel_size_of_the_client_fills_in(client: TestClient, root: Path) -> None:
    path = write_tiff_slide(root / "no-mpp.tif", np.full((600, 600, 3), 150, np.uint8), None)
    view = {"width": 600, "height": 600, "pixel_width_um": 0.5, "pixel_height_um": 0.5}
    assert post(client, path, client_view=view)["frame"]["name"] == "level0"
    assert post(client, path, mpp_um=0.5)["state"] == "queued"


def test_a_slightly_rounded_pixel_size_is_the_same(client: TestClient, slide: Path) -> None:
    view = {"width": 1200, "height": 900, "pixel_width_um": 0.4605, "pixel_height_um": 0.4596}
    assert post(client, slide, client_view=view)["state"] == "queued"


def test_a_payload_survives_the_way_to_the_worker(client: TestClient, slide: Path) -> None:
    region = {"type": "Polygon", "coordinates": [[[350, 250], [1000, 250], [1000, 700], [350, 700], [350, 250]]]}
    view = {"width": 1200, "height": 900, "pixel_width_um": 0.46, "pixel_height_um": 0.46}
    analysis = post(client, slide, region=region, client_view=view, threshold=0.4, stride=32, mode="patch", priority=3)
    assert work(client).priority == 3
    result = json.loads((result_folder(client, analysis) / "result.json").read_text())
    assert (result["parameters"]["threshold"], result["parameters"]["stride"]) == (0.4, 32)
    assert result["parameters"]["region_l0"] is not None


def test_settings_of_the_server_are_those_of_its_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
