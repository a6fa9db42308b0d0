"""The eight figures of the paper's table, from labels and probabilities (pure arrays).

A figure that is a ratio of nothing to nothing is None: a slide without tumour has no sensitivity, one class alone has no AUC.
F1 and IoU measure how well tumour is met, so they are None without tumour too: were they 0 as soon as one patch is wrong, and
undefined else, the mean would know such slides only where they went wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

METRICS = ("sensitivity", "specificity", "precision", "fall_out", "auc", "accuracy", "f1", "iou")
"""In the paper's order."""

TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "fall_out": "fall-out",
    "auc": "AUC",
    "accuracy": "accuracy",
    "f1": "F1",
    "iou": "IoU",
}

Scores = dict[str, float | None]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Counts:
    """Patches by what they are and what was said of them; pixels of the annotated ground likewise."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    pixels_shared: int = 0
    """Annotated as tumour and found."""
    pixels_united: int = 0
    """Annotated as tumour or found, or both."""
    pixels_tumour: int = 0
    """Annotated as tumour."""

    @classmethod
    def of(cls, truth: NDArray[np.bool_], answer: NDArray[np.float32], threshold: float) -> Self:
        """Count patches; a probability of at least the threshold counts as tumour.

        Args:
            truth: (N,) whether tumour.
            answer: (N,) probabilities.
            threshold: 0 to 1.
        """
        found = answer >= threshold
        positive, hits, all_found = int(truth.sum()), int((truth & found).sum()), int(found.sum())
        return cls(hits, all_found - hits, len(truth) - positive - (all_found - hits), positive - hits)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in Counts.__slots__))

    def scores(self, auc: float | None) -> Scores:
        """The eight figures.

        Args:
            auc: area under the ROC curve of the same patches; it has no threshold, so counts do not know it.
        """
        hits, false_alarms = self.true_positive, self.false_positive
        negatives, positives = false_alarms + self.true_negative, hits + self.false_negative
        return {
            "sensitivity": ratio(hits, positives),
            "specificity": ratio(self.true_negative, negatives),
            "precision": ratio(hits, hits + false_alarms),
            "fall_out": ratio(false_alarms, negatives),
            "auc": auc,
            "accuracy": ratio(hits + self.true_negative, positives + negatives),
            "f1": ratio(2 * hits, 2 * hits + false_alarms + self.false_negative) if positives else None,
            "iou": self.pixel_iou,
        }

    @property
    def pixel_iou(self) -> float | None:
        """Shared over united pixels; None where no tumour is annotated: what is found there is fall-out, not overlap."""
        return ratio(self.pixels_shared, self.pixels_united) if self.pixels_tumour else None


def ratio(part: float, whole: float) -> float | None:
    """A share, or None of nothing."""
    return float(part / whole) if whole else None


def has_both(truth: NDArray[np.bool_]) -> bool:
    """Whether there is tumour and non-tumour."""
    return bool(truth.any()) and not bool(truth.all())


def auc(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> float | None:
    """Area under the ROC curve; None where there is one class only."""
    return float(roc_auc_score(truth, answer)) if has_both(truth) else None


def roc(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> Curve | None:
    """The ROC curve as fall-out and sensitivity; None where there is one class only."""
    if not has_both(truth):
        return None
    fall_out, sensitivity, _ = roc_curve(truth, answer)
    return fall_out, sensitivity


def youden_threshold(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> float | None:
    """The probability at which sensitivity - fall-out is largest, the highest of several; None with one class only."""
    if not has_both(truth):
        return None
    fall_out, sensitivity, thresholds = roc_curve(truth, answer)
    # The curve begins with an infinite threshold, which no probability reaches: it is no choice.
    youden = np.round((sensitivity - fall_out)[1:], 12)  # 2/3 - 0 and 1 - 1/3 are equal
    return float(thresholds[1 + int(np.argmax(youden))])
