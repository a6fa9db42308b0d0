from __future__ import annotations

import numpy as np

from hepamap.training.metrics import patch_metrics, rates

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
