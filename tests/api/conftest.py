"""A server on an empty folder, a slide, and a way to do its jobs without a network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from hepamap.api.app import create_app
from hepamap.api.services import Services
from hepamap.detection import Detector
from hepamap.errors import HepamapError
from hepamap.jobs.job import Computation, JobFailure
from hepamap.jobs.runner import JobContext
from hepamap.model_pack import ModelPack, write_pack
from hepamap.predictor import Predictor
from hepamap.settings import Settings
from hepamap.worker.handler import DetectionHandler
from tests.conftest import write_tiff_slide
from tests.packs import manifest_body

with warnings.catch_warnings():
    # Starlette would rather have the successor of httpx; both do.
    warnings.filterwarnings("ignore", message="Using `httpx` with")
    from fastapi.testclient import TestClient

MODEL = "tiny-5x"
REQUEST_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class HalfAndHalf:
    """Answers by colour, so that the place of what it finds is known: dark patches are tumour."""

    batch_size = 16
    device = "cpu"
    policy = "float32"
    warnings: tuple[tuple[str, str], ...] = ()

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.where(patches.mean(axis=(1, 2, 3)) < 120, 0.9, 0.1).astype(np.float32)


class FakeDetector(Detector):
    def predictor(self, pack: ModelPack) -> Predictor:
        return cast(Predictor, HalfAndHalf())


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_pack(folder / MODEL / "1.0.0", manifest_body(MODEL), {"layer/kernel": np.zeros(1)}, "# For tests\n")
    return folder


@pytest.fixture(scope="session")
def slide_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """1200 × 900 px at 0.46 µm: glass, pale tissue, and one dark rectangle in it."""
    image = np.full((900, 1200, 3), 245, np.uint8)
    image[100:800, 100:1100] = (200, 150, 190)
    image[300:600, 400:800] = (90, 60, 100)
    return write_tiff_slide(tmp_path_factory.mktemp("slide") / "slide.tif", image, 0.46).read_bytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    return folder


@pytest.fixture
def slide(root: Path, slide_bytes: bytes) -> Path:
    path = root / "slide.tif"
    path.write_bytes(slide_bytes)
    return path


@pytest.fixture
def settings(tmp_path: Path, root: Path, models_dir: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        models_dir=models_dir,
        default_model=MODEL,
        slide_roots=(root,),
        embedded_worker=False,
        ready_reuse_s=0,
        min_free_bytes=0,
        allowed_hosts=("testserver",),
        max_upload_bytes=2 * 1024**2,
        max_request_bytes=64 * 1024,
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def services_of(client: TestClient) -> Services:
    services = cast(FastAPI, client.app).state.services
    assert isinstance(services, Services)
    return services


def result_folder(client: TestClient, analysis: Any) -> Path:
    """Where the result of an analysis that has succeeded lies."""
    services = services_of(client)
    job = services.store.get(analysis["id"])
    assert job is not None
    assert job.result is not None
    return services.settings.results_dir / job.result.location


def work(client: TestClient, detector: type[Detector] = FakeDetector) -> Computation:
    """Do the next computation as a worker would; it is returned as it was claimed."""
    services = services_of(client)
    handler = DetectionHandler(
        detector(services.settings.models_dir), services.settings.results_dir, services.settings.scratch_dir
    )
    job = services.store.claim()
    assert job is not None
    context = JobContext(report=lambda progress: None, cancelled=lambda: False)
    try:
        result = handler(job, context)
    except HepamapError as error:
        services.store.fail(job, JobFailure(error.code, error.message, error.cure))
    else:
        services.store.succeed(job, result)
    return job


def post(client: TestClient, slide: Path | str, **others: Any) -> Any:
    """Ask for an analysis of a slide on the server, and check that it is taken."""
    response = client.post("/api/v1/analyses", json={"slide": {"path": str(slide)}, **others})
    assert response.status_code == 202, response.text
    return response.json()
