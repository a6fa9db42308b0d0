"""PostgreSQL is killed and comes back under a running server: coded answers meanwhile, all as before afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from tests.api.server_process import serving
from tests.api.tus_client import TUS
from tests.postgres import Postgres, running_postgres
from tests.worker.conftest import wait_for


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """Not the one of the other tests, which nobody may kill."""
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("access", ["off", "keys"])
def test_a_database_that_is_killed_is_a_503_until_it_is_back(
    own_postgres: Postgres, settings: Settings, slide: Path, tmp_path: Path, access: str
) -> None:
    url = own_postgres.new_database()
    there = settings.model_copy(update={"database_url": url, "access": access})
    store = JobStore.open(url)
    secret = KeyStore(store.engine).create("all", Scope, None).secret
    store.close()
    headers = {"Authorization": f"Bearer {secret}"}
    with serving(there, tmp_path / "log") as server:

        def ask(method: str, path: str, **values: Any) -> httpx.Response:
            return server.ask(method, path, headers=headers | values.pop("headers", {}), **values)

        wanted = {"slide": {"path": str(slide)}, "identity": {"accession": "MARKER-S26-77"}}
        first = ask("POST", "/api/v1/analyses", json=wanted).json()
        own = first["links"]["self"]
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", own, {}),
            ("GET", "/api/v1/analyses", {}),
            ("GET", f"{own}/deliveries", {}),
            ("GET", f"{own}/events", {}),
            ("GET", f"{own}/contours", {}),
            ("DELETE", own, {}),
            ("GET", "/api/v1/audit", {}),
            ("GET", "/metrics", {}),
            ("POST", "/api/v1/analyses", {"json": {**wanted, "threshold": 0.7}}),
            # A slide is refused before it has come: nobody could tell later whose it was.
            ("POST", "/api/v1/analyses", {"files": {"file": ("slide.tif", slide.read_bytes())}}),
            ("POST", "/api/v1/uploads", {"headers": {**TUS, "Upload-Length": "10"}}),
        ]
        own_postgres.kill()
        for method, path, values in calls:
            response = ask(method, path, **values)
            assert (response.status_code, response.json()["code"]) == (503, "job_store_unavailable"), path
            assert own_postgres.folder.name not in response.text
        ready = ask("GET", "/health/ready")
        assert ready.status_code == 503
        assert not ready.json()["checks"]["database"]["ok"]
        assert ask("GET", "/health/live").status_code == 200
        own_postgres.start()
        wait_for(lambda: ask("GET", "/health/ready").json()["checks"]["database"]["ok"])
        assert ask("GET", own).json()["state"] == "queued"
        assert list(there.uploads_dir.iterdir()) == []
        assert ask("POST", "/api/v1/analyses", json={**wanted, "threshold": 0.7}).status_code == 202
    log = (tmp_path / "log").read_text()
    assert "MARKER" not in log
    assert "request_crashed" not in log
    assert "Unclosed" not in log
