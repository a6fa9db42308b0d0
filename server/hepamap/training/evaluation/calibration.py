"""Whether a probability of 0.7 means tumour in 7 of 10 patches, and the temperature that would make it so (pure arrays).

The map stays as the network answered: a temperature changes no order, so no contour that some threshold could not draw
already, but it would move every stored threshold. It is measured, written into the manifest and shown in the model card.

Source: Guo et al. 2017, “On Calibration of Modern Neural Networks” (temperature scaling, expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of equal width, as in the source."""
TEMPERATURE_RANGE = (0.05, 20.0)
"""Where every patch is on its right side, no temperature is cold enough: it ends here."""
_LEAST = 1e-6  # float32 probabilities are rounded to 0 and 1; their logarithms would be infinite
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Reliability:
    """Patches by their probability; bins without patches have NaN."""

    predicted: NDArray[np.float64]
    """(BINS,) mean probability of tumour."""
    observed: NDArray[np.float64]
    """(BINS,) share that is tumour."""
    patches: NDArray[np.int64]
    """(BINS,)"""

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean distance between the two over all patches."""
        filled = self.patches > 0
        gaps = np.abs(self.predicted[filled] - self.observed[filled])
        return float(np.average(gaps, weights=self.patches[filled]))


def reliability(truth: NDArray[np.bool_], answer: NDArray[np.floating]) -> Reliability:
    """Sort patches into bins of their probability; at least one patch."""
    numbers = np.minimum((answer * BINS).astype(np.intp), BINS - 1)
    patches = np.bincount(numbers, minlength=BINS)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(numbers, answer, BINS) / patches
        observed = np.bincount(numbers, truth, BINS) / patches
    return Reliability(predicted, observed, patches)


def at_temperature(answer: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities as they would be if the network's logits were divided by a temperature."""
    return np.asarray(1 / (1 + np.exp(-_logits(answer) / temperature)))


def fit_temperature(truth: NDArray[np.bool_], answer: NDArray[np.floating]) -> float:
    """The temperature with the lowest cross-entropy on these patches, within `TEMPERATURE_RANGE`.

    The cross-entropy is convex in 1 / temperature, so its slope has one zero, which halving finds.
    """
    logits = _logits(answer)

    def slope(inverse: float) -> float:
        return float(np.mean((1 / (1 + np.exp(-inverse * logits)) - truth) * logits))

    low, high = (1 / bound for bound in reversed(TEMPERATURE_RANGE))
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / (low * high) ** 0.5)


def _logits(answer: NDArray[np.floating]) -> NDArray[np.float64]:
    p = np.clip(answer.astype(np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))
