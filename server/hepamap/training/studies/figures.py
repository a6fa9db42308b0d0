"""The pictures of the studies, as PNG. Nothing is drawn where no run has succeeded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap.training.studies.summary import Group
from hepamap.training.studies.table import not_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 130
_COLOURS = "viridis"
_BAND = 0.66  # of the room of a category, over which its lines are fanned out
_CURVE = np.linspace(0, 1, 40)
_EASED = _CURVE * _CURVE * (3 - 2 * _CURVE)
_PANELS = (
    ("auc", "patch AUC of a slide"),
    ("iou", "IoU of contours and truth"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
)


def draw_factors(path: Path, groups: Sequence[Group], order: Mapping[str, Sequence[str]]) -> None:
    """Parallel coordinates: a line for each combination through its factors to its mean AUC, which is its colour.

    Within a value, lines are fanned out by their AUC, the best on top, so that none hides another.

    Args:
        path: PNG to write.
        groups: combinations; their keys are in the order of `order`.
        order: values of each factor, from the upper end of its axis to the lower; those that no run has are left out.
    """
    shown = sorted((group for group in groups if group.rows), key=lambda group: group.of("auc").mean)
    if not shown:
        return
    used = {
        factor: [value for value in values if any(group.key[i] == value for group in shown)]
        for i, (factor, values) in enumerate(order.items())
    }
    low, high = _auc_range(shown)
    heights = np.column_stack(
        [
            *(_fanned([group.key[i] for group in shown], values) for i, values in enumerate(used.values())),
            [(group.of("auc").mean - low) / (high - low) for group in shown],
        ]
    )
    figure = _figure(11.5, 6.4)
    axes = figure.add_subplot()
    colours = _colours(np.array([group.of("auc").mean for group in shown]), low, high)
    for line, colour in zip(heights, colours, strict=True):
        axes.plot(*_curve(line), color=colour, lw=1.3, alpha=0.9, solid_capstyle="round")
    axes.plot(*_curve(heights[-1]), color=colours[-1], lw=4, zorder=4)
    _factor_axes(axes, used)
    _auc_axis(axes, shown, len(used), low, high)
    best = shown[-1]
    spread = best.of("auc")
    doubt = f" ± {spread.deviation:.3f}" if len(spread.values) > 1 else ""
    runs = sum(len(group.rows) for group in shown)
    axes.set_title(
        f"{len(shown)} combinations, {runs} trainings; best (bold): {', '.join(best.key)}, mean AUC {spread.mean:.3f}{doubt}",
        fontsize=10.5,
        pad=28,
    )
    _save(figure, path)


def draw_sizes(path: Path, groups: Sequence[Group], network: str) -> None:
    """AUC against the number of training patches, log axis: each run, mean, and the range of the repeats.

    Args:
        path: PNG to write.
        groups: by number of patches, ascending.
        network: for the title.
    """
    shown = [group for group in groups if group.rows]
    if not shown:
        return
    figure = _figure(8, 5)
    axes = figure.add_subplot()
    sizes = [int(group.key[0]) for group in shown]
    spreads = [group.of("auc") for group in shown]
    axes.fill_between(
        sizes,
        [s.lowest for s in spreads],
        [s.highest for s in spreads],
        color="#2a788e",
        alpha=0.18,
        lw=0,
        label="range of the repeats",
    )
    axes.plot(sizes, [s.mean for s in spreads], "-", color="#2a788e", lw=2, label="mean")
    for number, (size, spread) in enumerate(zip(sizes, spreads, strict=True)):
        label = "one training" if number == 0 else None
        axes.plot(
            [size] * len(spread.values), spread.values, "o", color="#440154", ms=4.5, alpha=0.75, label=label, clip_on=False
        )
    axes.axhline(0.5, color="grey", lw=1, ls="--", label="chance")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45 if len(sizes) > 8 else 0)
    axes.minorticks_off()
    axes.set_ylim(max(0.0, math.floor(min(0.45, *(s.lowest for s in spreads)) * 20) / 20), 1.0)
    axes.set_xlabel("training patches, both classes together")
    axes.set_ylabel("AUC on the test patches")
    axes.set_title(f"{network}: AUC by number of training patches")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    _save(figure, path)


def draw_strides(path: Path, groups: Sequence[Group]) -> None:
    """Scores and time against the stride on the slide: a colour for each model, a dash for each mode; bars are deviations.

    Args:
        path: PNG to write.
        groups: by model, mode and stride; strides ascending within each.
    """
    shown = [group for group in groups if group.rows]
    if not shown:
        return
    from matplotlib import colormaps

    series: dict[tuple[str, str], list[Group]] = {}
    for group in shown:
        series.setdefault((group.key[0], group.key[1]), []).append(group)
    models = list(dict.fromkeys(model for model, _ in series))
    figure = _figure(12.5, 7)
    panels = figure.subplots(2, 3).ravel()
    strides = sorted({group.of("stride_um").mean for group in shown})
    for number, ((model, mode), of_series) in enumerate(series.items()):
        shade = (models.index(model) + 0.5) / len(models) * 0.85
        style: dict[str, Any] = {
            "color": colormaps[_COLOURS](shade),
            "ls": "-" if mode == "patch" else "--",
            "marker": "o" if mode == "patch" else "s",
            "ms": 5,
            "label": f"{model}, {mode}",
        }
        # Side by side, or the bars of one series would hide those of another.
        x = np.array([group.of("stride_um").mean for group in of_series]) + (number - (len(series) - 1) / 2) * 1.6
        for panel, (measure, _) in zip(panels, _PANELS, strict=False):
            spreads = [group.of(measure) for group in of_series]
            bars = [0.0 if math.isnan(spread.deviation) else spread.deviation for spread in spreads]
            panel.errorbar(x, [spread.mean for spread in spreads], bars, capsize=2.5, lw=1.5, elinewidth=0.8, **style)
        panels[4].plot(x, [group.of("seconds").median for group in of_series], lw=1.5, **style)
    for panel, (_, title) in zip(panels, _PANELS, strict=False):
        panel.set_title(title)
        panel.set_ylim(top=min(1.02, panel.get_ylim()[1]))
    panels[4].set_title("seconds per slide (median)")
    panels[4].set_yscale("log")
    for panel in panels[:5]:
        panel.set_xticks(strides, [f"{stride:.4g}" for stride in strides])
        panel.set_xlabel("stride on the slide, µm")
        panel.grid(alpha=0.3)
    panels[5].axis("off")
    panels[5].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False, fontsize=11)
    _save(figure, path)


def _auc_range(groups: Sequence[Group]) -> tuple[float, float]:
    """Twentieths around the AUC of all runs."""
    values = [value for group in groups for value in group.of("auc").values]
    low, high = math.floor(min(values) * 20) / 20, math.ceil(max(values) * 20) / 20
    return (low, high) if high > low else (low - 0.05, high + 0.05)


def _fanned(values: Sequence[str], order: Sequence[str]) -> NDArray[np.float64]:
    """Heights 0 to 1 of lines on an axis of categories, which come in ascending order of their AUC."""
    heights = np.empty(len(values))
    for place, value in enumerate(order):
        lines = [i for i, own in enumerate(values) if own == value]
        offsets = np.linspace(-0.5, 0.5, len(lines)) if len(lines) > 1 else np.zeros(1)
        heights[lines] = 1 - (place + 0.5 - _BAND * offsets) / len(order)
    return heights


def _curve(heights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A smooth line through heights, one for each axis; x and y."""
    x = [i + _CURVE for i in range(len(heights) - 1)]
    y = [start + (end - start) * _EASED for start, end in pairwise(heights)]
    return np.concatenate(x), np.concatenate(y)


def _colours(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    from matplotlib import colormaps

    # The light end of the scale is hard to see on white.
    return np.asarray(colormaps[_COLOURS](0.92 * (values - low) / (high - low)))


def _factor_axes(axes: Axes, used: Mapping[str, Sequence[str]]) -> None:
    for x, (factor, values) in enumerate(used.items()):
        axes.plot([x, x], [0, 1], color="black", lw=1.2, zorder=5)
        axes.text(x, 1.035, factor.replace("_", " "), ha="center", va="bottom", fontsize=11, fontweight="bold")
        for place, value in enumerate(values):
            height = 1 - (place + 0.5) / len(values)
            box = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "0.75", "lw": 0.6, "alpha": 0.92}
            axes.text(x - 0.03, height, value, ha="right", va="center", fontsize=9.5, zorder=6, bbox=box)


def _auc_axis(axes: Axes, groups: Sequence[Group], x: int, low: float, high: float) -> None:
    """The axis of numbers: a colour bar, and a dot for each training."""
    from matplotlib import colormaps

    axes.plot([x, x], [0, 1], color="black", lw=1.2, zorder=5)
    axes.text(x, 1.035, "AUC", ha="center", va="bottom", fontsize=11, fontweight="bold")
    for group in groups:
        values = np.array(group.of("auc").values)
        axes.scatter(np.full(len(values), x + 0.06), (values - low) / (high - low), s=9, c=_colours(values, low, high), zorder=6)
    shades = np.asarray(colormaps[_COLOURS](np.linspace(0, 0.92, 256)))[:, None, :]
    axes.imshow(shades, extent=(x + 0.12, x + 0.19, 0, 1), origin="lower", aspect="auto", zorder=5)
    step = 0.05 if high - low <= 0.4 else 0.1
    for tick in np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step:
        height = (tick - low) / (high - low)
        axes.plot([x + 0.19, x + 0.215], [height, height], color="black", lw=0.8)
        axes.text(x + 0.23, height, f"{tick:.2f}", ha="left", va="center", fontsize=9.5)
    axes.set_xlim(-0.55, x + 0.45)
    axes.set_ylim(-0.02, 1.02)
    axes.axis("off")


def _figure(width_in: float, height_in: float) -> Figure:
    # Figure without pyplot: no window system, no state between threads.
    from matplotlib.figure import Figure

    return Figure((width_in, height_in), layout="constrained", facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(partial, dpi=_DPI, format="png")
        partial.replace(path)
    except OSError as error:
        raise not_writable(path, error) from error
