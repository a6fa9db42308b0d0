"""The client for QuPath is downloaded from the server that it will use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from hepamap import __version__
from hepamap.api.app import create_app
from hepamap.qupath_client.assembly import assemble
from hepamap.qupath_client.sources import read_sources
from hepamap.settings import Settings
from tests.api.test_bad_input import check_problem

SCRIPT = "/qupath/hepamap.groovy"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of our own: the tests of the real ones are elsewhere."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "10_settings.groovy").write_text("// Settings.\nfinal String SERVER_URL = ''  // filled in by the server\n")
    monkeypatch.setattr("hepamap.api.routes.qupath.sources_folder", lambda: folder)
    return folder


@pytest.fixture
def closed(settings: Settings) -> Iterator[TestClient]:
    changes = {"access": "keys", "host": "0.0.0.0", "allowed_hosts": ()}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        yield client


@pytest.mark.usefixtures("sources")
def test_the_script_knows_the_address_under_which_it_was_fetched(closed: TestClient, sources: Path) -> None:
    for host in ("lab", "lab.hospital.org:8000", "10.1.2.3:8000", "[::1]:8000"):
        response = closed.get(SCRIPT, headers={"Host": host})
        assert response.status_code == 200
        assert response.text == assemble(read_sources(sources), f"http://{host}")
        assert f"SERVER_URL = 'http://{host}'" in response.text
    assert response.headers["content-type"] == "text/x-groovy; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="hepamap.groovy"'
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("sources")
def test_it_needs_no_key_under_either_address(closed: TestClient) -> None:
    assert closed.get("/api/v1" + SCRIPT).text == closed.get(SCRIPT).text
    assert closed.get("/api/v1/qupath/").json() == closed.get("/qupath/").json()
    check_problem(closed.get("/qupath/other.groovy"), 401, "credentials_missing")
    check_problem(closed.get("/api/v1/version"), 401, "credentials_missing")


def test_the_list_names_what_there_is(client: TestClient, sources: Path) -> None:
    (item,) = client.get("/qupath/").json()["items"]
    assert (item["name"], item["path"], item["version"]) == ("hepamap.groovy", SCRIPT, __version__)
    assert client.get(item["path"]).headers["content-type"].startswith(item["media_type"])


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("host", ["lab'; evil() //", "lab\\u0027", "user@lab", "lab/x", "lab:port"])
def test_a_host_that_is_none_gets_no_script(closed: TestClient, host: str) -> None:
    check_problem(closed.get(SCRIPT, headers={"Host": host}), 422, "request_invalid")


def test_without_sources_there_is_nothing_to_download(client: TestClient, sources: Path) -> None:
    (sources / "10_settings.groovy").unlink()
    check_problem(client.get(SCRIPT), 404, "client_sources_missing")


def test_https_is_taken_from_the_connection(sources: Path, settings: Settings) -> None:
    with TestClient(create_app(settings), base_url="https://testserver:8443") as client:
        assert "'https://testserver:8443'" in client.get(SCRIPT).text
