from __future__ import annotations

from pathlib import Path

import pytest

from hepamap.networks import BACKBONES
from hepamap.training.build import DatasetSpec, build_dataset
from tests.training.studies.tiny import TINY


@pytest.fixture(scope="session")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy patches: 40 of each class to train on, 10 to validate, 10 to test."""
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 10}))
    return folder


@pytest.fixture
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, build in TINY.items():
        monkeypatch.setitem(BACKBONES, name, build)
