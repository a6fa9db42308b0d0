"""One model on one slide: everything that is kept of it for tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hepamap.results import StoredResult
from hepamap.training.evaluate import Judged, SlideScore, judge_areas
from hepamap.training.evaluation.plan import AnnotatedSlide, ModelRun
from hepamap.training.evaluation.scores import Counts, Scores, auc, youden_threshold
from hepamap.training.evaluation.truth import cell_pixels


@dataclass(frozen=True, slots=True)
class Rule:
    """How a slide's threshold is found."""

    name: str
    title: str
    threshold: float | None
    """None: from the slide's own truth (Youden)."""


YOUDEN = Rule("youden", "Youden, per slide", None)


@dataclass(frozen=True, slots=True)
class SlideOutcome:
    """A model on a slide."""

    slide: AnnotatedSlide
    stored: str
    """Name of the map's folder."""
    score: SlideScore
    """As the contours at the model's default threshold have it."""
    truth: NDArray[np.bool_]
    """(N,) of the patches that have both a label and a probability: whether tumour."""
    answer: NDArray[np.float32]
    """(N,) their probabilities."""
    auc: float | None
    youden: float | None
    """Threshold; None where the slide has one class only."""
    counts: dict[str, Counts]
    """By the name of the rule; a rule without a threshold here is not in it, and none is where the slide is not evaluable."""
    warnings: tuple[Mapping[str, str], ...] = ()
    """Code and message, as `detect` gave them with the map."""

    @property
    def group(self) -> str:
        """Tumour or patient."""
        return self.slide.row.group

    def scores(self, rule: Rule) -> Scores:
        """The eight figures by a rule; without a threshold only the AUC, which then is None too."""
        counts = self.counts.get(rule.name)
        return Counts(0, 0, 0, 0).scores(self.auc) if counts is None else counts.scores(self.auc)


def measure(slide: AnnotatedSlide, run: ModelRun, stored: StoredResult, rules: Sequence[Rule]) -> SlideOutcome:
    """Compare a stored map with the annotations of its slide.

    Args:
        slide: the slide, its annotations read.
        run: what made the map.
        stored: the map.
        rules: thresholds to count at.
    """
    summary = stored.summary
    name = run.pack.manifest.id if run.is_default else f"{run.pack.manifest.id} ({run.mode}, {run.stride_m} px)"
    judged = judge_areas(
        slide.name, slide.areas, name, stored.map, summary["parameters"], summary["outcome"], summary["seconds"]["total"]
    )
    youden = youden_threshold(judged.truth, judged.answer)
    counts = _counted(slide, judged, youden, rules) if judged.score.is_evaluable else {}
    return SlideOutcome(
        slide,
        stored.folder.name,
        judged.score,
        judged.truth,
        judged.answer,
        auc(judged.truth, judged.answer),
        youden,
        counts,
        tuple(summary["warnings"]),
    )


def _counted(slide: AnnotatedSlide, judged: Judged, youden: float | None, rules: Sequence[Rule]) -> dict[str, Counts]:
    pixels = cell_pixels(slide.areas.tumour_l0, slide.areas.non_tumour_l0, judged.map.lattice)
    counts = {}
    for rule in rules:
        threshold = youden if rule.threshold is None else rule.threshold
        if threshold is not None:
            shared, united, tumour = pixels.overlap(judged.map.values, threshold)
            patches = Counts.of(judged.truth, judged.answer, threshold)
            counts[rule.name] = replace(patches, pixels_shared=shared, pixels_united=united, pixels_tumour=tumour)
    return counts
