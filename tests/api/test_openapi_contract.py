"""Whatever is asked by the OpenAPI document, and much that is against it, is answered as the document says; never by a 500.

schemathesis makes the requests from the schema of each call, good ones and bad ones; a real server answers them.
HEPAMAP_TEST_CONTRACT_EXAMPLES says how many of each kind for each call (`make contract`: many).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hepamap.access.keys import KeyStore
from hepamap.access.scopes import Scope
from hepamap.api.app import create_app
from hepamap.api.tus import BODY_TYPE
from hepamap.detection import DetectionRequest
from hepamap.jobs.job import JobFailure, WorkerSeen
from hepamap.jobs.runner import JobContext
from hepamap.jobs.store import JobStore
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from tests.api.conftest import MODEL, FakeDetector
from tests.api.server_process import ServerProcess, serving
from tests.api.tus_client import TUS, UPLOADS

EXAMPLES = int(os.environ.get("HEPAMAP_TEST_CONTRACT_EXAMPLES", "5"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
DOCUMENT = create_app(Settings()).openapi()
CALLS = [
    pytest.param(method.upper(), path, mode, id=f"{mode.value}-{method.upper()}-{path}")
    for path, methods in sorted(DOCUMENT["paths"].items())
    for method, call in sorted(methods.items())
    for mode in GenerationMode
    # There is nothing to get wrong in a call that takes nothing.
    if mode is GenerationMode.POSITIVE or "parameters" in call or "requestBody" in call
]


@schemathesis.serializer(BODY_TYPE)
def _piece(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass(frozen=True, slots=True)
class Site:
    """A server with something of everything."""

    server: ServerProcess
    slide: Path
    data_dir: Path
    log: Path
    analyses: dict[str, str]
    """Ids by the state that each is in."""
    keys: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        headers = values.pop("headers", {})
        if "all" in self.keys:
            headers = {**headers, "Authorization": f"Bearer {self.keys['all']}"}
        return self.server.ask(method, path, headers=headers, **values)


@pytest.fixture(scope="module", params=["off", "keys"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models_dir: Path, slide_bytes: bytes
) -> Iterator[Site]:
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
        max_upload_bytes=2 * 1024**2,
        max_request_bytes=64 * 1024,
        access=request.param,
        requests_per_minute=0,
        worker_stale_s=3600,
        wait_max_s=0.2,
    )
    with serving(settings, folder / "log") as process, closing(JobStore.open(settings.database)) as store:
        keys = {}
        if request.param == "keys":
            all_keys = KeyStore(store.engine)
            keys = {"all": all_keys.create("all", Scope, None).secret, "read": all_keys.create("r", [Scope.READ], None).secret}
        now = datetime.now(UTC)
        store.report_worker(WorkerSeen("w", "here", 1, now, now))
        site = Site(process, slide, settings.data_dir, folder / "log", {}, keys)
        site.analyses.update(_analyses(site, store, settings))
        yield site


def _analyses(site: Site, store: JobStore, settings: Settings) -> dict[str, str]:
    def ask(threshold: float) -> str:
        response = site.ask("POST", "/api/v1/analyses", json={"slide": {"path": str(site.slide)}, "threshold": threshold})
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    succeeded, failed = ask(0.5), ask(0.6)
    handler = DetectionHandler(FakeDetector(settings.models_dir), settings.results_dir, settings.scratch_dir)
    work = store.claim()
    assert work is not None
    assert DetectionRequest.from_json(work.payload["detection"]).threshold == 0.5
    store.succeed(work, handler(work, JobContext(report=lambda progress: None, cancelled=lambda: False)))
    work = store.claim()
    assert work is not None
    store.fail(work, JobFailure("slide_damaged", "It is damaged.", "Copy it again."))
    cancelled, queued = ask(0.7), ask(0.8)
    site.ask("DELETE", f"/api/v1/analyses/{cancelled}")
    return {"succeeded": succeeded, "failed": failed, "cancelled": cancelled, "queued": queued}


def _named(case: Any, data: st.DataObject, site: Site) -> None:
    """Have the request be about something that there is, most of the time."""
    if "analysis_id" in case.path_parameters:
        # Followed to its end, what waits would hold up the test; what is deleted would be missed by the others.
        followed, deleted = case.path.endswith("/events"), case.method == "DELETE"
        ids = [site.analyses[state] for state in ("succeeded", "failed", "cancelled")] if not deleted else []
        ids += [] if followed or deleted else [site.analyses["queued"]]
        case.path_parameters["analysis_id"] = data.draw(st.sampled_from([*ids, str(uuid.uuid4())]))
    if "upload_id" in case.path_parameters and data.draw(st.booleans()):
        begun = site.ask("POST", UPLOADS, headers={**TUS, "Upload-Length": "10"})
        case.path_parameters["upload_id"] = begun.headers["location"].rpartition("/")[2]
    if "model" in case.path_parameters and data.draw(st.booleans()):
        case.path_parameters["model"] = MODEL
    if isinstance(case.body, dict) and data.draw(st.booleans()):
        if "slide" in case.body or case.path.endswith("/analyses"):
            case.body["slide"] = {"path": str(site.slide)}
        elif "path" in case.body:
            case.body["path"] = str(site.slide)


def _credentials(data: st.DataObject, site: Site) -> dict[str, str]:
    if not site.keys:
        return {}
    kinds = [f"Bearer {site.keys['all']}"] * 5 + [f"Bearer {site.keys['read']}", "Bearer hm_none", None]
    chosen = data.draw(st.sampled_from(kinds))
    return {} if chosen is None else {"Authorization": chosen}


@pytest.mark.parametrize(("method", "path", "mode"), CALLS)
def test_answers_are_as_documented(site: Site, method: str, path: str, mode: GenerationMode) -> None:
    strategy = schemathesis.openapi.from_dict(DOCUMENT)[path][method].as_strategy(generation_mode=mode)

    @effort(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, data=st.data())
    def ask(case: Any, data: st.DataObject) -> None:
        if mode is GenerationMode.POSITIVE or data.draw(st.booleans()):
            _named(case, data, site)
        headers = {**(TUS if "/uploads" in path else {}), **_credentials(data, site)}
        response = case.call(base_url=site.server.url, headers=headers, timeout=60)
        case.validate_response(response, checks=CHECKS)
        assert response.headers["x-request-id"]

    ask()
    assert site.ask("GET", "/health/live").status_code == 200
    assert "Traceback" not in site.log.read_text()
