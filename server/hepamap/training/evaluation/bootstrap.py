"""Confidence intervals by drawing patients anew (pure arrays).

Patches of one slide, and slides of one patient, are alike; drawing patches would claim a certainty that is not there. So
groups (tumours or patients, as the cohort's table says) are drawn with replacement, with all that belongs to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float | None
    """None where fewer than two groups have the figure: one drawn again and again would show a certainty that is not there."""
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """Rounded to four places."""
        return {name: None if (x := getattr(self, name)) is None else round(x, 4) for name in ("value", "low", "high")}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn; equal settings give equal intervals."""

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def interval(self, value: float, resampled: NDArray[np.float64]) -> Interval:
        """The percentile interval; resamples in which the figure is undefined (NaN) do not count."""
        known = resampled[np.isfinite(resampled)]
        if not len(known):
            return Interval(value, None, None)
        low, high = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(value, float(low), float(high))

    def of_mean(self, values: Sequence[float | None], groups: Sequence[str]) -> Interval | None:
        """The mean over slides; slides without a value do not count, None where none has one.

        Args:
            values: of each slide.
            groups: patient of each slide.
        """
        known = np.array([value is not None for value in values])
        if not known.any():
            return None
        numbers = np.array([np.nan if value is None else value for value in values])
        group_of, count = _numbered(groups)
        sums, slides = (np.bincount(group_of[known], weights, count) for weights in (numbers[known], known[known]))
        return self.of_ratio(sums, slides)

    def of_ratio(self, parts: NDArray[Any], wholes: NDArray[Any], needed: NDArray[Any] | None = None) -> Interval | None:
        """A ratio of sums over groups.

        Args:
            parts: (G,).
            wholes: (G,).
            needed: (G,) what a draw must have some of for the figure to mean anything; None: the wholes.

        Returns:
            None where there is nothing of what is needed.
        """
        needed = wholes if needed is None else needed
        if not needed.sum():
            return None
        value = float(parts.sum() / wholes.sum())
        if np.count_nonzero(needed) < 2:
            return Interval(value, None, None)
        draws = _draws(self.resamples, self.seed, len(wholes))
        return self.interval(value, np.where(draws @ needed > 0, _divided(draws @ parts, draws @ wholes), np.nan))

    def of_auc(self, truth: NDArray[np.bool_], answer: NDArray[np.float32], groups: NDArray[np.intp]) -> Interval | None:
        """The AUC of patches of all groups together; None where there is one class only.

        Args:
            truth: (N,) whether tumour.
            answer: (N,) probabilities.
            groups: (N,) number of each patch's patient.
        """
        if not truth.any() or truth.all():
            return None
        numbers, group_of = np.unique(groups, return_inverse=True)
        count = len(numbers)
        wins = pair_wins(truth, answer, group_of, count)
        positives = np.bincount(group_of[truth], minlength=count)
        negatives = np.bincount(group_of[~truth], minlength=count)
        value = float(wins.sum() / (positives.sum() * negatives.sum()))
        if min(np.count_nonzero(positives), np.count_nonzero(negatives)) < 2:
            return Interval(value, None, None)
        draws = _draws(self.resamples, self.seed, count).astype(np.float64)
        # A patient that is drawn twice meets every other one twice, and itself four times.
        won = np.einsum("ri,ij,rj->r", draws, wins, draws, optimize=True)
        return self.interval(value, _divided(won, (draws @ positives) * (draws @ negatives)))


def pair_wins(
    truth: NDArray[np.bool_], answer: NDArray[np.float32], group_of: NDArray[np.intp], groups: int
) -> NDArray[np.float64]:
    """In how many pairs the tumour patch has the higher probability; equal ones count half (Mann-Whitney).

    The AUC of any selection of groups follows from this without looking at a patch again.

    Returns:
        (G, G): tumour patches of the row's group against non-tumour patches of the column's.
    """
    wins = np.zeros((groups, groups))
    tumour, tumour_group = answer[truth], group_of[truth]
    for column in range(groups):
        others = np.sort(answer[~truth & (group_of == column)])
        below = np.searchsorted(others, tumour, "left") + np.searchsorted(others, tumour, "right")
        wins[:, column] = np.bincount(tumour_group, below / 2, groups)
    return wins


@lru_cache(maxsize=8)
def _draws(resamples: int, seed: int, groups: int) -> NDArray[np.int64]:
    """How often each group is in each resample: (resamples, groups)."""
    chosen = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    return np.stack([np.bincount(row, minlength=groups) for row in chosen])


def _numbered(groups: Sequence[str]) -> tuple[NDArray[np.intp], int]:
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return numbers, len(names)


def _divided(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is nothing to divide by."""
    return np.asarray(np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0))
