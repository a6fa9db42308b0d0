"""Figures of an evaluation: box plots over slides, ROC curves, reliability, operating points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hepamap.errors import OutputNotWritableError
from hepamap.training.evaluation.bootstrap import Interval
from hepamap.training.evaluation.calibration import BINS, Reliability
from hepamap.training.evaluation.choice import pooled
from hepamap.training.evaluation.operating_points import GRID, rates_over_grid
from hepamap.training.evaluation.patch_level import PatchOutcome
from hepamap.training.evaluation.scores import METRICS, TITLES, Curve, has_both, roc
from hepamap.training.evaluation.slides import Rule
from hepamap.training.evaluation.summary import RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito: told apart also by those who see few colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B2A300")
_DPI = 130
_POINT_STYLES = {"sensitive": "^", "balanced": "o", "specific": "v"}


def box_plots(summaries: Sequence[RunSummary], rules: Sequence[Rule], title: str) -> Figure:
    """The paper's figure 5: each figure's spread over the slides, a box for each model; a dot is a slide.

    Args:
        summaries: the models.
        rules: of each model, the one that is drawn.
        title: what the rule is.
    """
    figure = _figure(13, 6.4)
    for axes, metric in zip(figure.subplots(2, 4, sharex=True).flat, METRICS, strict=True):
        drawn = []
        for place, (summary, rule) in enumerate(zip(summaries, rules, strict=True)):
            scores = [item.scores(rule)[metric] for item in summary.outcomes]
            known = np.array([value for value in scores if value is not None])
            drawn.append(known)
            colour = COLOURS[place % len(COLOURS)]
            if len(known):
                line = {"color": colour, "linewidth": 1.4}
                axes.boxplot(
                    [known], positions=[place], widths=0.55, showfliers=False, medianprops={**line, "linewidth": 2.4},
                    boxprops=line, whiskerprops=line, capprops=line,
                )  # fmt: skip
            spread = np.linspace(-0.16, 0.16, len(known)) if len(known) > 1 else np.zeros(len(known))
            axes.plot(place + spread, known, ".", color=colour, alpha=0.55, markersize=6)
            # Slides on which the figure is undefined are missing from the box: then the count stands out.
            colour = "#444444" if len(known) == len(scores) else "#B00000"
            said = {"ha": "center", "va": "bottom", "fontsize": 8, "color": colour}
            axes.text(place, 0.02, f"n = {len(known)}", transform=axes.get_xaxis_transform(), **said)
        axes.set_title(TITLES[metric])
        axes.set_ylim(*_limits([score for one in drawn for score in one]))
        axes.set_xlim(-0.6, len(summaries) - 0.4)
        axes.set_xticks([])
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(f"{title}; a dot is a slide, n in red: undefined on others; each figure has its own scale")
    _legend_below(figure, [_line(index) for index in range(len(summaries))], [item.run.title for item in summaries])
    return figure


def roc_curves(summaries: Sequence[RunSummary], patches: Sequence[PatchOutcome]) -> Figure:
    """All patches together, bold; each slide by itself, thin; the data set's patches beside them."""
    panels = [kind for kind, there in (("slides", summaries), ("patches", patches)) if there]
    figure = _figure(6.6 * len(panels), 6.2)
    for kind, axes in zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True):
        axes.plot([0, 1], [0, 1], ":", color="#888888", linewidth=1)
        if kind == "slides":
            _slide_curves(axes, summaries)
        else:
            _patch_curves(axes, patches)
        axes.set_xlabel("fall-out (1 − specificity)")
        axes.set_ylabel("sensitivity")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=9)
    return figure


def reliability_plots(summaries: Sequence[RunSummary]) -> Figure:
    """How often patches of a probability are tumour, as the network answers and at the temperature; below, how many there are."""
    judged = [(item, item.verdict) for item in summaries if item.verdict is not None]
    figure, cells = _cells(len(judged), 6.2)
    for (item, verdict), cell in zip(judged, cells, strict=True):
        axes, counts = cell.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
        axes.plot([0, 1], [0, 1], ":", color="#888888", linewidth=1)
        _reliability(axes, counts, verdict.before, COLOURS[0], "as the network answers", -1)
        label = f"at temperature {verdict.choice.temperature:.3g}"
        _reliability(axes, counts, verdict.after, COLOURS[1], label, +1)
        axes.set_title(item.run.title, fontsize=11)
        axes.set_ylabel("share that is tumour")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(loc="upper left", fontsize=8.5)
        axes.grid(alpha=0.3)
        counts.set_yscale("log")
        counts.set_ylabel("patches")
        counts.set_xlabel("tumour probability")
        counts.set_xlim(-0.02, 1.02)
        counts.grid(axis="y", alpha=0.3)
    return figure


def operating_point_plots(summaries: Sequence[RunSummary]) -> Figure:
    """Sensitivity and specificity over the threshold, on the slides that are reported; the operating points on them."""
    judged = [(item, item.verdict) for item in summaries if item.verdict is not None]
    figure, cells = _cells(len(judged), 5.4)
    for (item, verdict), cell in zip(judged, cells, strict=True):
        axes = cell.subplots()
        truth, answer = pooled(item.outcomes)
        if has_both(truth):
            sensitivity, specificity = rates_over_grid(truth, answer)
            axes.plot(GRID, sensitivity, color=COLOURS[1], label="sensitivity")
            axes.plot(GRID, specificity, color=COLOURS[0], label="specificity")
        for point in verdict.points:
            axes.axvline(point.threshold, color="#888888", linewidth=0.8, zorder=0)
            for value, colour in ((point.sensitivity, COLOURS[1]), (point.specificity, COLOURS[0])):
                if value is not None:
                    axes.plot(point.threshold, value, _POINT_STYLES[point.name], color=colour, markersize=8)
            axes.plot([], [], _POINT_STYLES[point.name], color="#444444", label=f"{point.name}, {point.threshold:g}")
        axes.set_title(item.run.title, fontsize=11)
        axes.set_xlabel("threshold on the tumour probability")
        axes.set_ylabel("share of patches, all slides together")
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8.5, frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        OutputNotWritableError: it cannot be written.
    """
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as error:
        raise OutputNotWritableError(
            f"The picture {path.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error


def _figure(width: float, height: float) -> Figure:
    # Figure without pyplot: no window system, no state between threads.
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def _cells(count: int, height: float) -> tuple[Figure, list[SubFigure]]:
    """A figure with a place of its own for each of so many runs, three beside each other at most."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure = _figure(4.9 * columns, height * rows)
    return figure, list(figure.subfigures(rows, columns, squeeze=False).flat)[:count]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis: where the values are, with room for the counts below them."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = max(high - low, 0.05)
    return low - 0.25 * span, high + 0.08 * span


def _line(index: int) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=COLOURS[index % len(COLOURS)], linewidth=3)


def _legend_below(figure: Figure, handles: Sequence[object], labels: Sequence[str]) -> None:
    legend: Callable[..., object] = figure.legend
    legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)


def _slide_curves(axes: Axes, summaries: Sequence[RunSummary]) -> None:
    for place, item in enumerate(summaries):
        colour = COLOURS[place % len(COLOURS)]
        for one in item.outcomes:
            curve = roc(one.truth, one.answer)
            if curve is not None:
                axes.plot(*curve, color=colour, alpha=0.25, linewidth=0.8)
        _bold_curve(axes, roc(*pooled(item.outcomes)), item.together[item.rules[0].name]["auc"], item.run.title, colour)
    axes.set_title("patches of the slides: together, and slide by slide (thin)", fontsize=11)


def _patch_curves(axes: Axes, patches: Sequence[PatchOutcome]) -> None:
    for place, item in enumerate(patches):
        colour = COLOURS[place % len(COLOURS)]
        _bold_curve(axes, roc(item.truth, item.answer), item.auc, item.pack.manifest.id, colour)
    axes.set_title("patches of the data sets", fontsize=11)


def _bold_curve(axes: Axes, curve: Curve | None, area: Interval | None, title: str, colour: str) -> None:
    """A curve with its area in the legend, or the reason why there is none."""
    text = "one class only, no curve" if area is None else f"AUC {area.value:.3f}"
    fall_out, sensitivity = curve or (np.zeros(0), np.zeros(0))
    axes.plot(fall_out, sensitivity, color=colour, linewidth=2.2, label=f"{title}: {text}")


def _reliability(axes: Axes, counts: Axes, found: Reliability, colour: str, label: str, side: int) -> None:
    filled = found.patches > 0
    label = f"{label}: ECE {found.expected_error:.3f}"
    axes.plot(found.predicted[filled], found.observed[filled], ".-", color=colour, markersize=8, label=label)
    middles = (np.arange(BINS) + 0.5) / BINS + side * 0.22 / BINS
    counts.bar(middles[filled], found.patches[filled], width=0.42 / BINS, color=colour)
