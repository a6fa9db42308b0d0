"""Operating points and temperature: chosen on some slides, measured on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.model_pack import Calibration, OperatingPoint
from hepamap.training.evaluation.calibration import Reliability, at_temperature, fit_temperature, reliability
from hepamap.training.evaluation.errors import NothingMeasuredError, OneClassError
from hepamap.training.evaluation.operating_points import choose_thresholds, measured_points, remarks
from hepamap.training.evaluation.scores import has_both
from hepamap.training.evaluation.slides import SlideOutcome


@dataclass(frozen=True, slots=True)
class Choice:
    """What some slides chose."""

    split: str
    slides: int
    groups: int
    patches: int
    thresholds: dict[str, float]
    points: tuple[OperatingPoint, ...]
    """As measured on the slides that chose them."""
    temperature: float
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What other slides say of a choice."""

    choice: Choice
    points: tuple[OperatingPoint, ...]
    before: Reliability
    after: Reliability

    @property
    def calibration(self) -> Calibration:
        """As the manifest has it."""
        return Calibration(
            temperature=round(self.choice.temperature, 4),
            expected_error=round(self.before.expected_error, 4),
            expected_error_at_temperature=round(self.after.expected_error, 4),
        )

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        choice = self.choice
        return {
            "chosen_on": {"split": choice.split, "slides": choice.slides, "groups": choice.groups, "patches": choice.patches},
            "where_chosen": [point.model_dump() for point in choice.points],
            "measured": [point.model_dump() for point in self.points],
            "remarks": choice.remarks,
            "calibration": self.calibration.model_dump(),
        }


def not_evaluable(outcomes: Sequence[SlideOutcome]) -> list[str]:
    """The slides that got no contours and have no figures, by name."""
    return [item.slide.name for item in outcomes if not item.score.is_evaluable]


def pooled(outcomes: Sequence[SlideOutcome]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels and probabilities of all slides, one after the other."""
    return np.concatenate([item.truth for item in outcomes]), np.concatenate([item.answer for item in outcomes])


def choose(outcomes: Sequence[SlideOutcome], split: str) -> Choice:
    """Choose from the patches of all slides together.

    Raises:
        OneClassError: they have one class only.
    """
    truth, answer = pooled(outcomes)
    if not has_both(truth):
        missing = "tumour" if not truth.any() else "non-tumour"
        raise OneClassError(
            f"No patch with tissue is {missing} on the evaluable slides of the split “{split}”: thresholds cannot be chosen.",
            cure="Add slides on which both are annotated, or say in the table that unannotated tissue is non_tumour.",
        )
    thresholds = choose_thresholds(truth, answer)
    points = measured_points(thresholds, truth, answer)
    choosing = [item for item in outcomes if item.score.is_evaluable]
    said = remarks(points)
    if refused := not_evaluable(outcomes):
        said.append(f"Not evaluable, and left out of the choice ({split}): {', '.join(refused)}.")
    groups = len({item.group for item in choosing})
    return Choice(split, len(choosing), groups, len(truth), thresholds, points, fit_temperature(truth, answer), said)


def judge_choice(choice: Choice, outcomes: Sequence[SlideOutcome], split: str) -> Verdict:
    """Measure a choice on the patches of other slides.

    Raises:
        NothingMeasuredError: there is none.
    """
    truth, answer = pooled(outcomes)
    if not len(truth):
        raise NothingMeasuredError(
            f"No patch on the evaluable slides of the split “{split}” has both tissue and a label.",
            cure="Check the annotations: they must lie on tissue.",
        )
    after = reliability(truth, at_temperature(answer, choice.temperature))
    return Verdict(choice, measured_points(choice.thresholds, truth, answer), reliability(truth, answer), after)
