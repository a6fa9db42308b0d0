"""Numbers of a network that are too large for 16 bits: whoever looks at slides or patches with it does so again in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.model_pack import ModelPack, find_pack
from hepamap.pipeline import ignore_progress
from hepamap.predictor import Predictor
from hepamap.training import validate as validation
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.class_map import DEFAULT_CLASSES
from hepamap.training.cohort import read_cohort
from hepamap.training.evaluation.plan import EvaluationSpec
from hepamap.training.evaluation.run import evaluate
from hepamap.training.studies.stride import study_stride
from tests.training.evaluation.conftest import RedDetector, weightless_pack


class Overflowing:
    """Its numbers are none."""

    def predict_on_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(batch), 2), np.nan, np.float32)


class OverflowingDetector(RedDetector):
    """Right in float32 alone."""

    def predictor(self, pack: ModelPack) -> Predictor:
        return Predictor(Overflowing(), pack.manifest.input.patch, policy="mixed_float16")

    def exact_predictor(self, pack: ModelPack) -> Predictor:
        predictor = Predictor(self.network, pack.manifest.input.patch, policy="float32")
        predictor.warnings.append(("precision_not_used", "It ran in float32."))
        return predictor


@pytest.fixture
def detector(tmp_path: Path) -> OverflowingDetector:
    weightless_pack(tmp_path / "models")
    return OverflowingDetector(tmp_path / "models")


def test_patches_of_an_evaluation(cohort: Path, detector: OverflowingDetector, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "set", DatasetSpec(mpp=1.84, patch_m=64, per_class={"test": 4}))
    spec = EvaluationSpec(models=("tiny-5x",), datasets=(tmp_path / "set",))
    (patches,) = evaluate(spec, tmp_path / "out", detector).patches
    assert patches.auc is not None
    assert patches.auc.value == 1.0
    assert [warning["code"] for warning in patches.warnings] == ["precision_not_used"]


def test_slides_of_a_stride_study(cohort: Path, detector: OverflowingDetector, tmp_path: Path) -> None:
    study_stride(read_cohort(cohort)[:1], ["tiny-5x"], detector, tmp_path / "out", strides=[64], modes=["patch"])
    assert ",ok," in (tmp_path / "out" / "runs.csv").read_text()


def test_slides_of_a_validation(cohort: Path, detector: OverflowingDetector) -> None:
    tally, pack = validation._Tally(), find_pack(detector.models_dir, "tiny-5x")
    found = validation._run(read_cohort(cohort)[0], pack, detector, 64, "patch", DEFAULT_CLASSES, ignore_progress, tally)
    assert found.score.auc > 0.98
    assert tally.precisions == ["float32"]
    assert tally.warnings == {"precision_not_used": "It ran in float32."}
