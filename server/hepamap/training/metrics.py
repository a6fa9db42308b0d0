"""Scores of patch probabilities (pure arrays)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from hepamap.model_pack import OperatingPoint

_THRESHOLD_RANGE = (0.01, 0.99)  # a threshold at the very end would follow rounding, not tissue
_AIM = 0.95  # of sensitivity (or specificity) at the operating point that puts it first


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


def operating_thresholds(labels: NDArray[np.int8], probabilities: NDArray[np.float32]) -> dict[str, float]:
    """Thresholds for three needs, read from the ROC curve.

    Returns:
        `balanced`: largest TPR - FPR (Youden); `sensitive`: the highest threshold that still finds 95 % of the tumour;
        `specific`: the lowest that leaves 95 % of the rest alone. Always sensitive <= balanced <= specific.
    """
    false_rate, true_rate, thresholds = roc_curve(labels, probabilities)
    thresholds = np.clip(thresholds, *_THRESHOLD_RANGE)
    balanced = float(thresholds[np.argmax(true_rate - false_rate)])
    # Thresholds fall along the curve: the first point with enough sensitivity has the highest of them.
    sensitive = float(thresholds[np.argmax(true_rate >= _AIM)])
    specific = float(thresholds[np.flatnonzero(false_rate <= 1 - _AIM)[-1]])
    chosen = {"sensitive": min(sensitive, balanced), "balanced": balanced, "specific": max(specific, balanced)}
    return {name: round(value, 3) for name, value in chosen.items()}


def operating_points(
    thresholds: dict[str, float], labels: NDArray[np.int8], probabilities: NDArray[np.float32]
) -> tuple[OperatingPoint, ...]:
    """Named thresholds with what was measured at them on these patches."""
    points = []
    for name, threshold in thresholds.items():
        sensitivity, specificity = rates(labels, probabilities, threshold)
        points.append(OperatingPoint(name=name, threshold=threshold, sensitivity=sensitivity, specificity=specificity))
    return tuple(points)
