"""A model over all slides: means with their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.training.evaluation.bootstrap import Bootstrap, Interval
from hepamap.training.evaluation.choice import Verdict, not_evaluable, pooled
from hepamap.training.evaluation.plan import ModelRun
from hepamap.training.evaluation.scores import METRICS, Counts, Scores
from hepamap.training.evaluation.slides import YOUDEN, Rule, SlideOutcome
from hepamap.training.remarks import remarks_of

Intervals = dict[str, Interval | None]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A model in one mode at one stride, over all slides."""

    run: ModelRun
    rules: tuple[Rule, ...]
    outcomes: tuple[SlideOutcome, ...]
    means: dict[str, Intervals]
    """By rule: means over the slides that have the figure."""
    together: dict[str, Intervals]
    """By rule: the figures of all patches (pixels) of all slides together."""
    verdict: Verdict | None = None

    def defined(self, rule: Rule, metric: str) -> int:
        """On how many slides a figure is defined."""
        return sum(item.scores(rule)[metric] is not None for item in self.outcomes)

    @property
    def remarks(self) -> list[str]:
        """What a reader must know of the figures."""
        said = []
        if refused := not_evaluable(self.outcomes):
            said.append(
                f"{self.run.name}: {len(refused)} of {len(self.outcomes)} slides are not evaluable, and have no part in any "
                f"figure: {', '.join(refused)}."
            )
        without = [item.slide.name for item in self.outcomes if item.auc is None and item.score.is_evaluable]
        if without:
            said.append(
                f"{self.run.name}: {len(without)} of {len(self.outcomes)} slides have patches of one class only, hence no AUC "
                f"and no threshold of their own: {', '.join(without)}."
            )
        said += [
            f"{self.run.name}, {sentence}" for item in self.outcomes for sentence in remarks_of(item.slide.name, item.slide.areas)
        ]
        said += [f"{self.run.name}: {message} ({', '.join(slides)})" for message, slides in self._warned().items()]
        choice = self.verdict.choice if self.verdict else None
        return said + [f"{self.run.name}: {sentence}" for sentence in (choice.remarks if choice else ())]

    def _warned(self) -> dict[str, list[str]]:
        """Which slides a warning came with."""
        found: dict[str, list[str]] = {}
        for item in self.outcomes:
            for warning in item.warnings:
                found.setdefault(f"{warning['message']} [{warning['code']}]", []).append(item.slide.name)
        return found


def rules_of(run: ModelRun, thresholds: dict[str, float], extra: Sequence[float]) -> tuple[Rule, ...]:
    """Youden's threshold of each slide beside fixed ones; equal thresholds are one rule with several names.

    Args:
        run: the model, whose default threshold is the first.
        thresholds: operating points by name.
        extra: further thresholds.
    """
    names: dict[float, list[str]] = {run.pack.manifest.default_threshold: ["default"]}
    for name, threshold in thresholds.items():
        names.setdefault(threshold, []).append(name)
    for threshold in extra:
        names.setdefault(threshold, [])
    fixed = [
        Rule(repr(float(threshold)), f"{threshold:g}" + (f" ({', '.join(said)})" if said else ""), threshold)
        for threshold, said in sorted(names.items())
    ]
    return (YOUDEN, *fixed)


def summarise(
    run: ModelRun,
    rules: tuple[Rule, ...],
    outcomes: Sequence[SlideOutcome],
    bootstrap: Bootstrap,
    verdict: Verdict | None = None,
) -> RunSummary:
    """Means over slides, and all patches together; intervals are drawn over groups."""
    groups = [item.group for item in outcomes]
    means = {}
    for rule in rules:
        scores = [item.scores(rule) for item in outcomes]
        means[rule.name] = {name: bootstrap.of_mean([score[name] for score in scores], groups) for name in METRICS}
    truth, answer = pooled(outcomes)
    # Numbers, in the order of the names: a name for each of millions of patches would be hundreds of megabytes.
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    area = bootstrap.of_auc(truth, answer, np.repeat(numbers, [len(item.truth) for item in outcomes]))
    together = {rule.name: {**_together(rule, outcomes, bootstrap), "auc": area} for rule in rules}
    return RunSummary(run, rules, tuple(outcomes), means, together, verdict)


def _together(rule: Rule, outcomes: Sequence[SlideOutcome], bootstrap: Bootstrap) -> Intervals:
    """Ratios of sums over groups."""
    by_group: dict[str, Counts] = {}
    for item in outcomes:
        by_group[item.group] = by_group.get(item.group, Counts(0, 0, 0, 0)) + item.counts.get(rule.name, Counts(0, 0, 0, 0))
    # One row of numbers for each group, in the order of the fields of Counts.
    hits, alarms, quiet, missed, shared, united, tumour = np.array(
        [[getattr(counts, name) for name in Counts.__slots__] for counts in by_group.values()], np.float64
    ).T
    parts: dict[str, tuple[NDArray[np.float64], ...]] = {
        "sensitivity": (hits, hits + missed),
        "specificity": (quiet, quiet + alarms),
        "precision": (hits, hits + alarms),
        "fall_out": (alarms, quiet + alarms),
        "accuracy": (hits + quiet, hits + quiet + alarms + missed),
        # Without tumour neither means anything, whatever was found.
        "f1": (2 * hits, 2 * hits + alarms + missed, hits + missed),
        "iou": (shared, united, tumour),
    }
    return {name: bootstrap.of_ratio(*sums) for name, sums in parts.items()}


def run_json(summary: RunSummary) -> dict[str, Any]:
    """A run for the report."""
    manifest = summary.run.pack.manifest
    return {
        "model": summary.run.pack.name,
        "weights_sha256": manifest.weights.sha256,
        "mode": summary.run.mode,
        "stride": summary.run.stride_m,
        "overlap": None if summary.run.overlap is None else round(summary.run.overlap, 4),
        "mpp": manifest.input.mpp,
        "patches": sum(len(item.truth) for item in summary.outcomes),
        "thresholds": [
            {
                "rule": rule.name,
                "title": rule.title,
                "threshold": rule.threshold,
                "mean_over_slides": _intervals_json(summary.means[rule.name]),
                "slides_with_a_value": {name: summary.defined(rule, name) for name in METRICS},
                "all_patches": _intervals_json(summary.together[rule.name]),
            }
            for rule in summary.rules
        ],
        "operating_points": None if summary.verdict is None else summary.verdict.to_json(),
        "remarks": summary.remarks,
        "slides": [_slide_json(item, summary.rules) for item in summary.outcomes],
    }


def _slide_json(item: SlideOutcome, rules: Sequence[Rule]) -> dict[str, Any]:
    return {
        "slide": item.slide.name,
        "group": item.group,
        "patches": len(item.truth),
        "tumour_patches": int(item.truth.sum()),
        "youden_threshold": item.youden,
        "scores": {rule.name: rounded(item.scores(rule)) for rule in rules},
        "contour_iou_at_default": None if item.score.known_iou is None else round(item.score.known_iou, 4),
        "evaluable": item.score.is_evaluable,
        "map": f"maps/{item.stored}",
        "warnings": list(item.warnings),
    }


def rounded(scores: Scores) -> Scores:
    """To four places."""
    return {name: None if value is None else round(value, 4) for name, value in scores.items()}


def _intervals_json(intervals: Intervals) -> dict[str, Any]:
    return {name: None if (found := intervals[name]) is None else found.to_json() for name in METRICS}
