from __future__ import annotations

import numpy as np
import pytest

from hepamap.training.metrics import operating_points, operating_thresholds, patch_metrics, rates

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int8)
# One liver patch (0.6) above one tumour patch (0.4): 15 of 16 pairs are in order.
PROBABILITIES = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9], np.float32)


def test_patch_metrics_by_hand() -> None:
    assert patch_metrics(LABELS, PROBABILITIES) == {
        "patches": 8,
        "auc": round(15 / 16, 4),
        "accuracy": 0.75,
        "sensitivity": 0.75,
        "specificity": 0.75,
    }


def test_threshold_counts_as_tumour_itself() -> None:
    assert rates(LABELS, PROBABILITIES, float(PROBABILITIES[4])) == (1.0, 0.75)


def test_operating_thresholds_by_hand() -> None:
    thresholds = operating_thresholds(LABELS, PROBABILITIES)
    # Youden: 0.7 gives 0.75 - 0, and 0.4 gives 1 - 0.25, equal; the curve's first, 0.7, is taken.
    assert thresholds == {"sensitive": 0.4, "balanced": 0.7, "specific": 0.7}
    points = {p.name: (p.sensitivity, p.specificity) for p in operating_points(thresholds, LABELS, PROBABILITIES)}
    assert points == {"sensitive": (1.0, 0.75), "balanced": (0.75, 1.0), "specific": (0.75, 1.0)}


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_ordered_and_inside_the_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(200) < 0.5).astype(np.int8)
    sharp = np.where(labels == 1, 1.0, 0.0).astype(np.float32)
    for probabilities in (rng.random(200, dtype=np.float32), sharp, np.full(200, 0.5, np.float32)):
        chosen = operating_thresholds(labels, probabilities)
        assert 0 < chosen["sensitive"] <= chosen["balanced"] <= chosen["specific"] < 1
