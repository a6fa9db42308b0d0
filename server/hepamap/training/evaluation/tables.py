"""Tables of an evaluation as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hepamap import RESEARCH_USE_ONLY
from hepamap.training.evaluation.bootstrap import Bootstrap, Interval
from hepamap.training.evaluation.patch_level import PatchOutcome
from hepamap.training.evaluation.scores import METRICS, TITLES
from hepamap.training.evaluation.summary import Intervals, RunSummary

_NOTHING = "–"
_ABOUT = ("model", "µm/px", "mode", "stride", "overlap")


def markdown(summaries: Sequence[RunSummary], patches: Sequence[PatchOutcome], bootstrap: Bootstrap) -> str:
    """The tables for people: patches, means over slides (the paper's table 1), all slides together, operating points."""
    parts = ["# Evaluation", RESEARCH_USE_ONLY]
    if patches:
        parts += ["## Patches", _patch_table(patches)]
    if summaries:
        parts += ["## Slides: means over slides (table 1)", _run_table(summaries, "means"), _caption(summaries, bootstrap)]
        parts += ["## All patches of all slides together", _run_table(summaries, "together")]
    if any(item.verdict for item in summaries):
        parts += ["## Operating points and calibration", *_choices(summaries)]
    remarks = [
        f"- {item.pack.name}, patches: {warning['message']} [{warning['code']}]" for item in patches for warning in item.warnings
    ]
    remarks += [f"- {sentence}" for item in summaries for sentence in item.remarks]
    if remarks:
        parts += ["## Remarks", "\n".join(remarks)]
    return "\n\n".join(parts) + "\n"


def table1_csv(summaries: Sequence[RunSummary]) -> str:
    """Means over slides, one row for each model, mode, stride and threshold; for each figure value, interval and slides."""
    figures = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high", "_slides")]
    rows: list[list[object]] = [["model", "mpp_um", "mode", "stride_px", "overlap", "threshold", "slides", "groups", *figures]]
    for item in summaries:
        for rule in item.rules:
            row: list[object] = [item.run.pack.name, item.run.pack.manifest.input.mpp, item.run.mode, item.run.stride_m]
            overlap = "" if item.run.overlap is None else f"{item.run.overlap:g}"
            row += [overlap, rule.name, len(item.outcomes), len({one.group for one in item.outcomes})]
            for name in METRICS:
                row += [*_cells(item.means[rule.name][name]), item.defined(rule, name)]
            rows.append(row)
    return _csv(rows)


def slides_csv(summaries: Sequence[RunSummary]) -> str:
    """Every slide by every threshold."""
    rows: list[list[object]] = [
        [
            "model",
            "mode",
            "stride_px",
            "slide",
            "group",
            "rule",
            "threshold",
            "patches",
            "tumour_patches",
            *METRICS,
            "contour_iou_at_default",
            "evaluable",
        ]
    ]
    for item in summaries:
        for one in item.outcomes:
            for rule in item.rules:
                threshold = one.youden if rule.threshold is None else rule.threshold
                scores = one.scores(rule)
                about = [item.run.pack.name, item.run.mode, item.run.stride_m, one.slide.name, one.group]
                patches = [len(one.truth), int(one.truth.sum())]
                figures = [_digits(scores[name]) for name in METRICS]
                ends = [_digits(one.score.known_iou), "yes" if one.score.is_evaluable else "no"]
                rows.append([*about, rule.name, _digits(threshold), *patches, *figures, *ends])
    return _csv(rows)


def _patch_table(patches: Sequence[PatchOutcome]) -> str:
    lines = [
        "| model | data sets | slides | patches | AUC | threshold | sensitivity | specificity | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for item in patches:
        scores = item.scores()
        figures = " | ".join(_plain(scores[name]) for name in ("sensitivity", "specificity", "accuracy"))
        lines.append(
            f"| {item.pack.name} | {', '.join(item.datasets)} | {item.slides} | {len(item.truth)} | {_text(item.auc)} | "
            f"{item.pack.manifest.default_threshold:g} | {figures} |"
        )
    return "\n".join(lines)


def _run_table(summaries: Sequence[RunSummary], kind: str) -> str:
    titles = [*_ABOUT, "threshold", *(TITLES[name] for name in METRICS)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for item in summaries:
        about = [item.run.pack.name, f"{item.run.pack.manifest.input.mpp:g}", item.run.mode, f"{item.run.stride_m} px"]
        about.append(_overlap(item.run.overlap))
        for rule in item.rules:
            intervals: Intervals = getattr(item, kind)[rule.name]
            lines.append(f"| {' | '.join([*about, rule.title, *(_text(intervals[name]) for name in METRICS)])} |")
    return "\n".join(lines)


def _overlap(overlap: float | None) -> str:
    if overlap is None:
        return "of windows"
    return f"{overlap:.0%}" if overlap else "none"


def _caption(summaries: Sequence[RunSummary], bootstrap: Bootstrap) -> str:
    outcomes = summaries[0].outcomes
    groups = len({item.group for item in outcomes})
    drawn = (
        f"In brackets the {bootstrap.level:.0%} confidence interval from {bootstrap.resamples} draws of patients "
        f"(seed {bootstrap.seed}); there is none where fewer than two patients have the figure."
        if groups > 1
        else "There is one patient only: no confidence intervals."
    )
    return (
        f"{len(outcomes)} slides of {groups} patients (groups). {drawn} A slide on which a figure is undefined is left out of "
        "its mean. “Youden, per slide” takes from each slide's own truth the threshold that suits it best, as the paper does: "
        "nobody has that truth for a new slide, for which the rows with fixed thresholds speak. IoU is of pixels of 1.84 µm on "
        "annotated ground; a slide without tumour has none."
    )


def _choices(summaries: Sequence[RunSummary]) -> list[str]:
    lines = [
        "| model | mode | stride | operating point | threshold | sensitivity, where chosen | measured "
        "| specificity, where chosen | measured |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    sentences = []
    for item in summaries:
        if item.verdict is None:
            continue
        choice, calibration = item.verdict.choice, item.verdict.calibration
        for chosen, seen in zip(choice.points, item.verdict.points, strict=True):
            figures = (chosen.sensitivity, seen.sensitivity, chosen.specificity, seen.specificity)
            lines.append(
                f"| {item.run.pack.name} | {item.run.mode} | {item.run.stride_m} px | {chosen.name} | {chosen.threshold:g} | "
                f"{' | '.join(_plain(value) for value in figures)} |"
            )
        sentences.append(
            f"- {item.run.name}: chosen on {choice.patches} patches of {choice.slides} slides ({choice.split}). Expected "
            f"calibration error {calibration.expected_error:.4f}; {calibration.expected_error_at_temperature:.4f} at the "
            f"temperature {calibration.temperature:.3g}. The map shows probabilities as the network answers."
        )
    return ["\n".join(lines), "\n".join(sentences)]


def _text(interval: Interval | None) -> str:
    if interval is None:
        return _NOTHING
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def _plain(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cells(interval: Interval | None) -> list[str]:
    return ["", "", ""] if interval is None else [_digits(value) for value in (interval.value, interval.low, interval.high)]


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
