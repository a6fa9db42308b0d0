"""Named thresholds, and how they are chosen (pure arrays).

- `sensitive`: the highest threshold that finds at least 95 % of the tumour, and so has the highest specificity of those.
- `balanced`: where sensitivity + specificity is largest (Youden); the middle of the stretch where it is.
- `specific`: the lowest threshold that leaves at least 99 % of the rest alone, and so has the highest sensitivity of those.

A good network may do all at once. The three are then not spread by force: `sensitive` is at most `balanced`, `specific` is at
least that, and `remarks` says which coincide.

They are chosen from all patches with tissue on annotated ground of the validation slides, at the model's stride, because
that is what a user moves the threshold over: edges of tumours and of tissue, folds and ink included. The balanced patches
of a data set leave out what is mixed or blurred; thresholds from them promise more than slides keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hepamap.model_pack import OperatingPoint

NAMES = ("sensitive", "balanced", "specific")
SENSITIVITY_AIM, SPECIFICITY_AIM = 0.95, 0.99

# Thousandths, so that the figures are those of the threshold that is stored and shown.
GRID = np.arange(1, 1000) / 1000


def rates_over_grid(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sensitivity and specificity at each threshold of `GRID`; both classes must be there."""
    grid = GRID.astype(np.float32)
    tumour, rest = np.sort(answer[truth]), np.sort(answer[~truth])
    return 1 - np.searchsorted(tumour, grid) / len(tumour), np.searchsorted(rest, grid) / len(rest)


def choose_thresholds(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> dict[str, float]:
    """The three thresholds from patches of both classes.

    Args:
        truth: (N,) whether tumour.
        answer: (N,) probabilities.

    Returns:
        By name, sensitive <= balanced <= specific. An aim that no threshold of the grid reaches gets the end that is nearest.
    """
    sensitivity, specificity = rates_over_grid(truth, answer)
    # Exact counts, not sums of quotients: 0.95 must be 0.95, and a plateau must be level.
    youden = np.round(sensitivity + specificity, 12)
    balanced = _middle_of_first_run(youden == youden.max())
    enough = np.flatnonzero(np.round(sensitivity, 12) >= SENSITIVITY_AIM)
    alone = np.flatnonzero(np.round(specificity, 12) >= SPECIFICITY_AIM)
    sensitive = min(int(enough[-1]) if len(enough) else 0, balanced)
    specific = max(int(alone[0]) if len(alone) else len(GRID) - 1, balanced)
    return {name: float(GRID[index]) for name, index in zip(NAMES, (sensitive, balanced, specific), strict=True)}


def measured_points(
    thresholds: dict[str, float], truth: NDArray[np.bool_], answer: NDArray[np.float32]
) -> tuple[OperatingPoint, ...]:
    """Named thresholds with what these patches say of them; a class that is not there leaves its figure open."""
    tumour, rest = answer[truth], answer[~truth]
    return tuple(
        OperatingPoint(
            name=name,
            threshold=threshold,
            sensitivity=round(float(np.mean(tumour >= np.float32(threshold))), 4) if len(tumour) else None,
            specificity=round(float(np.mean(rest < np.float32(threshold))), 4) if len(rest) else None,
        )
        for name, threshold in thresholds.items()
    )


def remarks(chosen: Sequence[OperatingPoint]) -> list[str]:
    """What must be said of points, as measured where they were chosen: those that coincide, and aims that are not reached."""
    said = [
        f"The operating points {one.name} and {next_.name} coincide at {one.threshold:g}."
        for one, next_ in pairwise(chosen)
        if one.threshold == next_.threshold
    ]
    of = {point.name: point for point in chosen}
    aims = (("sensitive", "sensitivity", SENSITIVITY_AIM), ("specific", "specificity", SPECIFICITY_AIM))
    for name, figure, aim in aims:
        reached = getattr(of[name], figure) if name in of else None
        if reached is not None and reached < aim:
            grid = f"{GRID[0]:g} to {GRID[-1]:g}"
            said.append(f"No threshold from {grid} has a {figure} of {aim:g}: the operating point {name} has {reached:.3f}.")
    return said


def _middle_of_first_run(marked: NDArray[np.bool_]) -> int:
    """The middle of the first stretch of True."""
    first = int(np.argmax(marked))
    behind = np.flatnonzero(~marked[first:])
    length = int(behind[0]) if len(behind) else len(marked) - first
    return first + (length - 1) // 2
