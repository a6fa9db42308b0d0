from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.detection import Detector
from hepamap.model_pack import ModelPack, write_pack
from hepamap.predictor import Predictor
from tests.packs import manifest_body


class RedNetwork:
    """Answers 0.9 where a patch is more red than blue, else 0.1; the toy slides are red where tumour is."""

    def __init__(self) -> None:
        self.asked = 0

    def predict_on_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked += len(batch)
        tumour = np.where(batch[..., 0].mean(axis=(1, 2)) > batch[..., 2].mean(axis=(1, 2)), 0.9, 0.1)
        return np.stack([1 - tumour, tumour], axis=1).astype(np.float32)


class RedDetector(Detector):
    """As the real one, with another network in it."""

    def __init__(self, models_dir: Path, precision: str = "auto") -> None:
        super().__init__(models_dir, precision)
        self.network = RedNetwork()

    def predictor(self, pack: ModelPack) -> Predictor:
        return Predictor(self.network, pack.manifest.input.patch)


class GivingWayDetector(RedDetector):
    """Its network leaves the GPU."""

    def predictor(self, pack: ModelPack) -> Predictor:
        predictor = super().predictor(pack)
        predictor.warnings.append(("gpu_failed", "It ran on the CPU."))
        return predictor


def weightless_pack(models_dir: Path, identifier: str = "tiny-5x", **changes: Any) -> ModelPack:
    body = manifest_body(identifier).model_copy(update=changes)
    card = f"# {identifier}\n\nMy own words.\n\n## Measured\n\nold figures\n\n## Contact\n\nMe.\n"
    return write_pack(models_dir / identifier / "1.0.0", body, {"a/kernel": np.zeros(1)}, card)


@pytest.fixture
def detector(tmp_path: Path) -> RedDetector:
    weightless_pack(tmp_path / "models")
    return RedDetector(tmp_path / "models")
