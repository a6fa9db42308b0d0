"""A page of slides with truth and contours, the worst first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from hepamap.contours import TumourRegion
from hepamap.geometry import Region
from hepamap.pipeline import regions_of
from hepamap.results import open_result
from hepamap.slide import Slide
from hepamap.training.evaluation.slides import Rule, SlideOutcome
from hepamap.training.evaluation.summary import RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SLIDES = 12
_COLUMNS = 3
_SIDE_PX = 700
_CELL_WIDTH, _TITLE_HEIGHT = 4.6, 0.65  # inches
_TRUTH, _FOUND = "#00B050", "#FFD400"  # on pink and violet tissue both stand out, also from each other


def overlay_sheet(summary: RunSummary, rule: Rule, maps: Path) -> Figure:
    """The slides on which a model is worst, with truth and contours on each.

    Args:
        summary: the model over all slides.
        rule: a fixed threshold, at which the contours are drawn and the slides ordered.
        maps: the folder of the stored results.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    worst = worst_first(summary.outcomes, rule)[:MOST_SLIDES]
    columns = min(_COLUMNS, len(worst))
    rows = math.ceil(len(worst) / columns)
    figure = Figure(layout=ConstrainedLayoutEngine(h_pad=0.12))
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        # Not set_axis_off: the layout would forget the titles.
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    tallest = max(_draw_slide(axes, item, rule, maps) for axes, item in zip(figure.axes, worst, strict=False))
    figure.set_size_inches(_CELL_WIDTH * columns, (_CELL_WIDTH * tallest + _TITLE_HEIGHT) * rows + 1.0)
    shown = "all slides" if len(worst) == len(summary.outcomes) else f"{len(worst)} of {len(summary.outcomes)} slides"
    figure.suptitle(f"{summary.run.title}, threshold {rule.title}: {shown}, the worst first")
    lines = [Line2D([], [], color=_TRUTH, linewidth=2.5), Line2D([], [], color=_FOUND, linewidth=2.5)]
    figure.legend(lines, ["annotated tumour", "contours of the model"], loc="outside lower center", ncols=2, frameon=False)
    return figure


def worst_first(outcomes: Sequence[SlideOutcome], rule: Rule) -> list[SlideOutcome]:
    """By pixel IoU at a threshold; a slide without tumour has none, and stands where its specificity puts it.

    What is not evaluable has no figures and stands last.
    """

    def goodness(item: SlideOutcome) -> tuple[float, str]:
        scores = item.scores(rule)
        known = [scores[name] for name in ("iou", "specificity") if scores[name] is not None]
        return (math.inf if not known else known[0] or 0.0, item.slide.name)

    return sorted(outcomes, key=goodness)


def _draw_slide(axes: Axes, item: SlideOutcome, rule: Rule, maps: Path) -> float:
    """Returns how much higher than wide the slide is."""
    assert rule.threshold is not None
    stored = open_result(maps / item.stored)
    parameters = stored.summary["parameters"]
    regions: list[TumourRegion] = []
    if item.score.is_evaluable:
        regions = regions_of(stored.map, rule.threshold, parameters["min_area_um2"], parameters["min_hole_area_um2"])
    row = item.slide.row
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        view_l0, pixel_um = slide.bounds_l0, slide.pixel_size.x_um
        picture = slide.thumbnail_of(view_l0, _SIDE_PX)
    height, width = picture.shape[:2]
    axes.imshow(picture)
    per_px = width / view_l0.width
    _outline(axes, item.slide.areas.tumour_l0, view_l0, per_px, _TRUTH, 2.6)
    for region in regions:
        _outline(axes, region.polygon_l0, view_l0, per_px, _FOUND, 1.4)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    _scale_bar(axes, width, height, pixel_um / per_px)
    scores = item.scores(rule)
    figures = ", ".join(
        f"{title} {'–' if (value := scores[name]) is None else format(value, '.3f')}"
        for name, title in (("iou", "IoU"), ("sensitivity", "sens."), ("specificity", "spec."))
    )
    axes.set_title(f"{item.slide.name}\n{figures if item.score.is_evaluable else 'not evaluable: no contours'}", fontsize=9.5)
    return float(height / width)


def _outline(axes: Axes, area_l0: BaseGeometry, view_l0: Region, per_px: float, colour: str, width: float) -> None:
    for part in shapely.get_parts(area_l0):
        for ring in shapely.get_rings(part):
            x, y = ((shapely.get_coordinates(ring) - np.array([view_l0.x, view_l0.y])) * per_px - 0.5).T
            axes.plot(x, y, color=colour, linewidth=width, solid_joinstyle="round")


def _scale_bar(axes: Axes, width: int, height: int, um_per_px: float) -> None:
    """A bar of 1, 2 or 5 × 10ⁿ µm below the picture's lower left corner."""
    limit_um = width * um_per_px / 4
    power = 10.0 ** math.floor(math.log10(limit_um))
    bar_um = max(step * power for step in (1, 2, 5) if step * power <= limit_um)
    text = f"{bar_um / 1000:g} mm" if bar_um >= 1000 else f"{bar_um:g} µm"
    left, y = 0.03 * width, 0.96 * height
    axes.plot([left, left + bar_um / um_per_px], [y, y], color="white", linewidth=5, solid_capstyle="butt")
    axes.plot([left, left + bar_um / um_per_px], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    label = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    axes.text(left, 0.935 * height, text, fontsize=8, va="bottom", bbox=label)
