"""Under which names the server finds a slide, and whether it is the one that the client has open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from hepamap.api.app import create_app
from hepamap.api.client_paths import parse_client_path
from hepamap.api.errors import SlideNotAllowedError
from hepamap.api.slide_paths import SlideFolders
from hepamap.settings import Settings
from tests.api.conftest import post
from tests.api.test_bad_input import check_problem
from tests.conftest import write_tiff_slide


def resolve(client: TestClient, path: Path | str, **view: Any) -> Any:
    response = client.post("/api/v1/slides/resolve", json={"path": str(path), **view})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def mapping_client(settings: Settings, root: Path) -> Any:
    (root / "deep").mkdir()
    table = {r"S:\Slides": root, "smb://NAS/path ology": root, "/Volumes/slides": root, r"S:\Slides\old": root / "deep"}
    with TestClient(create_app(settings.model_copy(update={"path_mappings": table}))) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        r"S:\Slides\slide.tif",
        r"s:\SLIDES\.\slide.tif",
        "S:/Slides/slide.tif",
        "file:///S:/Slides/slide.tif",
        "file:/S:/Slides/slide%2Etif",
        r"\\?\S:\Slides\slide.tif",
        r"\\nas\path ology\slide.tif",
        r"\\NAS\Path Ology\SLIDE.TIF",
        r"\\?\UNC\nas\path ology\slide.tif",
        "smb://nas/path%20ology/slide.tif",
        "smb://jane@nas/path%20ology/slide.tif",
        "file://nas/path%20ology/slide.tif",
        "file:////nas/path%20ology/slide.tif",
        "/Volumes/slides/slide.tif",
        "file:///Volumes/slides/slide.tif",
    ],
)
def test_a_client_path_leads_to_the_slide(mapping_client: TestClient, slide: Path, path: str) -> None:
    answer = resolve(mapping_client, path)
    assert (answer["visible"], answer["same_slide"], answer["reason"]) == (True, None, None)
    assert answer["slide"]["path"] == str(slide)
    assert post(mapping_client, path)["state"] == "queued"


def test_the_servers_own_path_needs_no_table(client: TestClient, slide: Path) -> None:
    for path in (str(slide), slide.as_uri(), f"{slide.parent}/x/../{slide.name}"):
        assert resolve(client, path)["slide"]["path"] == str(slide)


def test_the_longest_prefix_counts(mapping_client: TestClient, root: Path, slide: Path) -> None:
    deep = root / "deep" / "slide.tif"
    deep.write_bytes(slide.read_bytes())
    assert resolve(mapping_client, r"S:\slides\OLD\slide.tif")["slide"]["path"] == str(deep)
    assert resolve(mapping_client, r"S:\slides\older\slide.tif")["reason"]["code"] == "slide_not_found"


def test_case_counts_where_it_does_for_the_client_and_where_two_names_fit(
    mapping_client: TestClient, root: Path, slide: Path
) -> None:
    assert resolve(mapping_client, "/Volumes/slides/SLIDE.TIF")["reason"]["code"] == "slide_not_found"
    assert resolve(mapping_client, "/volumes/slides/slide.tif")["reason"]["code"] == "outside_roots"
    (root / "Slide.TIF").write_bytes(slide.read_bytes())
    assert resolve(mapping_client, r"S:\Slides\SLIDE.TIF")["reason"]["code"] == "slide_not_found"
    assert resolve(mapping_client, r"S:\Slides\Slide.TIF")["slide"]["path"] == str(root / "Slide.TIF")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (r"T:\case\a.svs", "t:/case"),
        (r"\\other\pathology\case\a.svs", "//other/pathology"),
        ("smb://other/pathology/a.svs", "//other/pathology"),
        ("T:", "t:/"),
    ],
)
def test_a_prefix_that_is_missing_from_the_table_is_named(mapping_client: TestClient, path: str, named: str) -> None:
    answer = resolve(mapping_client, path)
    assert (answer["visible"], answer["slide"], answer["reason"]["code"]) == (False, None, "path_not_mapped")
    assert repr(named) in answer["reason"]["cure"]
    check_problem(mapping_client.post("/api/v1/analyses", json={"slide": {"path": path}}), 403, "slide_not_allowed")


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/Volumes/pathology/2026/case/a.svs", "/Volumes/pathology"),
        ("file:///Volumes/path%20ology/a.svs", "/Volumes/path ology"),
        ("/lab/a.svs", "/lab"),
        ("/home/jane/a.svs", "/home/jane"),
    ],
)
def test_a_folder_of_a_mac_or_linux_that_no_root_covers_is_named(mapping_client: TestClient, path: str, named: str) -> None:
    with capture_logs() as logs:
        reason = resolve(mapping_client, path)["reason"]
        refused = mapping_client.post("/api/v1/analyses", json={"slide": {"path": path}})
    assert reason["code"] == "outside_roots"
    assert f"ask the operator to map {named!r} to a slide folder (HEPAMAP_PATH_MAPPINGS)" in reason["cure"]
    assert refused.json()["cure"] == reason["cure"]
    # A folder may have a patient's name: the client knows it, a log need not.
    assert named not in repr(logs)
    assert "case" not in reason["cure"]


@pytest.mark.parametrize("path", ["/a.svs", "/Volumes/other/../a.svs", "ROOT/link.tif", "/Volumes/slides/link.tif"])
def test_no_folder_is_named_where_mapping_would_not_help(mapping_client: TestClient, root: Path, slide: Path, path: str) -> None:
    slide.rename(root.parent / "private.tif")
    (root / "link.tif").symlink_to(root.parent / "private.tif")
    reason = resolve(mapping_client, path.replace("ROOT", str(root)))["reason"]
    assert (reason["code"], "HEPAMAP_PATH_MAPPINGS" in reason["cure"]) == ("outside_roots", False)


@pytest.mark.parametrize(
    "path",
    [
        r"S:\Slides\..\private.tif",
        r"S:\Slides\..\..\etc\passwd",
        "smb://nas/path%20ology/%2e%2e/private.tif",
        "/Volumes/slides/../private.tif",
        "file:///etc/passwd",
        "/etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_roots(mapping_client: TestClient, root: Path, slide: Path, path: str) -> None:
    (root.parent / "private.tif").write_bytes(slide.read_bytes())
    answer = resolve(mapping_client, path)
    assert (answer["visible"], answer["reason"]["code"]) == (False, "outside_roots")
    assert str(root.parent / "private") not in json.dumps(answer)


def test_a_link_out_of_the_roots_is_not_followed(mapping_client: TestClient, root: Path, slide: Path) -> None:
    outside = root.parent / "private.tif"
    slide.rename(outside)
    (root / "link.tif").symlink_to(outside)
    answers = [resolve(mapping_client, path) for path in (root / "link.tif", r"S:\Slides\LINK.tif")]
    assert [answer["reason"]["code"] for answer in answers] == ["outside_roots"] * 2
    assert str(outside) not in json.dumps(answers)


def test_a_mapping_that_leads_out_of_the_roots_is_of_no_use(settings: Settings, root: Path, slide: Path) -> None:
    outside = root.parent / "private"
    outside.mkdir()
    (outside / "a.tif").write_bytes(slide.read_bytes())
    with TestClient(create_app(settings.model_copy(update={"path_mappings": {"S:": outside}}))) as client:
        answer = resolve(client, r"S:\a.tif")
    assert (answer["visible"], answer["reason"]["code"]) == (False, "outside_roots")
    assert str(outside) not in json.dumps(answer)


def test_whether_it_is_the_clients_slide(client: TestClient, slide: Path) -> None:
    same = resolve(client, slide, width=1200, height=900, pixel_width_um=0.46, pixel_height_um=0.46)
    assert (same["visible"], same["same_slide"], same["reason"]) == (True, True, None)
    found = same["slide"]
    assert (found["width"], found["height"], found["frame"]["name"]) == (1200, 900, "level0")
    assert found["pixel_width_um"] == pytest.approx(0.46, rel=1e-3)
    assert found["fingerprint"].startswith("sha256:")
    other_size = resolve(client, slide, width=1199, height=900)
    other_scale = resolve(client, slide, width=1200, height=900, pixel_width_um=0.23, pixel_height_um=0.23)
    for other in (other_size, other_scale):
        assert (other["visible"], other["same_slide"], other["reason"]["code"]) == (True, False, "slide_mismatch")
        assert other["slide"]["frame"] is None


def test_a_copy_under_another_name_has_the_same_fingerprint(client: TestClient, root: Path, slide: Path) -> None:
    copy = root / "copy.tif"
    copy.write_bytes(slide.read_bytes())
    other = write_tiff_slide(root / "other.tif", np.full((300, 300, 3), 7, np.uint8), 0.46)
    first, second, third = (resolve(client, path)["slide"]["fingerprint"] for path in (slide, copy, other))
    assert first == second != third


def test_a_slide_without_a_pixel_size_takes_the_clients(client: TestClient, root: Path) -> None:
    path = write_tiff_slide(root / "bare.tif", np.full((300, 400, 3), 90, np.uint8), None)
    assert resolve(client, path, width=400, height=300)["slide"]["pixel_width_um"] is None
    given = resolve(client, path, width=400, height=300, pixel_width_um=0.5, pixel_height_um=0.5)
    assert (given["same_slide"], given["slide"]["pixel_width_um"]) == (True, 0.5)


@pytest.mark.parametrize("stated", [25_400 / 72, None])
def test_a_senseless_pixel_size_is_as_good_as_none(client: TestClient, root: Path, stated: float | None) -> None:
    path = write_tiff_slide(root / "scan.tif", np.full((300, 400, 3), 90, np.uint8), stated)
    shown = {"width": 400, "height": 300, "pixel_width_um": 25_400 / 72, "pixel_height_um": 25_400 / 72}
    answers = [resolve(client, path), resolve(client, path, width=400, height=300), resolve(client, path, **shown)]
    assert [(answer["visible"], answer["same_slide"], answer["reason"]) for answer in answers] == [
        (True, None, None),
        (True, True, None),
        (True, True, None),
    ]
    assert [answer["slide"]["pixel_width_um"] for answer in answers] == [None] * 3
    assert answers[2]["slide"]["frame"]["name"] == "level0"
    other = resolve(client, path, width=399, height=300)
    assert (other["visible"], other["same_slide"], other["reason"]["code"]) == (True, False, "slide_mismatch")
    given = resolve(client, path, width=400, height=300, pixel_width_um=0.5, pixel_height_um=0.5)
    assert (given["same_slide"], given["slide"]["pixel_width_um"]) == (True, 0.5)


def test_a_file_that_is_no_slide_is_said_to_be_none(client: TestClient, root: Path) -> None:
    (root / "notes.svs").write_text("These are notes.")
    answer = resolve(client, root / "notes.svs")
    assert (answer["visible"], answer["reason"]["code"]) == (False, "not_a_slide")
    assert str(root) not in answer["reason"]["message"]


def test_mappings_come_from_the_environment_and_reach_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEPAMAP_PATH_MAPPINGS", json.dumps({"S:\\slides": str(tmp_path / "x" / "..")}))
    settings = Settings()
    assert settings.path_mappings == {"S:\\slides": tmp_path}
    assert json.loads(settings.environment()["HEPAMAP_PATH_MAPPINGS"]) == {"S:\\slides": str(tmp_path)}


@given(st.text(max_size=60), st.sampled_from(["", "S:\\", "\\\\a\\b\\", "smb://", "file:///", "/", "//", "file:"]))
def test_any_text_is_a_path_or_is_refused(text: str, start: str) -> None:
    folders = SlideFolders((Path("/nowhere/slides"),), {"S:": Path("/nowhere/slides"), r"\\a\b": Path("/nowhere")})
    parse_client_path(start + text)
    try:
        found = folders.find(start + text)
    except SlideNotAllowedError:
        return
    assert found.is_relative_to("/nowhere/slides")
