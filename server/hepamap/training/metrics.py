"""Scores of patch probabilities (pure arrays)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score


def patch_metrics(labels: NDArray[np.int8], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """What a set of patches says about a network.

    Args:
        labels: (N,) 1 where tumour; both classes present.
        probabilities: (N,) of tumour.

    Returns:
        Patches, ROC AUC, and accuracy, sensitivity and specificity at 0.5.
    """
    sensitivity, specificity = rates(labels, probabilities, 0.5)
    return {
        "patches": len(labels),
        "auc": round(float(roc_auc_score(labels, probabilities)), 4),
        "accuracy": round(float(((probabilities >= 0.5) == (labels == 1)).mean()), 4),
        "sensitivity": sensitivity,
        "specificity": specificity,
    }


def rates(labels: NDArray[np.int8], probabilities: NDArray[np.float32], threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity where a probability of at least the threshold counts as tumour."""
    found = probabilities >= threshold
    return round(float(found[labels == 1].mean()), 4), round(float((~found[labels == 0]).mean()), 4)
