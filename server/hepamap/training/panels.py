"""The paper's figure 6: one annotated slide as six pictures, what was drawn beside what five ways of looking found."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap import RESEARCH_USE_ONLY
from hepamap.errors import OutputNotWritableError, ParameterError
from hepamap.geometry import PixelSize, Region
from hepamap.model_pack import ModelPack
from hepamap.pipeline import Progress, ignore_progress, require_stride
from hepamap.probability_map import ProbabilityMap
from hepamap.slide import Slide
from hepamap.training.areas import SlideAreas, labelled_areas
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import CohortSlide
from hepamap.training.evaluate import judge_areas
from hepamap.training.evaluation.kept_maps import KeptMaps
from hepamap.training.evaluation.plan import ModelRun

_MPP_TOLERANCE = 0.05
"""Share by which a pack's resolution may differ from that of its panel; slides are read with the same latitude."""
_PANEL_PX = 900  # longer side of each picture
_PANEL_INCHES, _DPI = 5.0, 150
_TITLE_POINTS, _LABEL_POINTS = 15, 12
_TRUTH, _FOUND = "#00c000", "#00e5ff"


@dataclass(frozen=True, slots=True)
class Look:
    """One way of looking at the slide."""

    title: str
    run: ModelRun


@dataclass(frozen=True, slots=True)
class Panel:
    """What one way of looking found; the first panel has no map and shows what was drawn."""

    title: str
    map: ProbabilityMap | None
    found_l0: BaseGeometry | None
    """None where the slide is not evaluable in this way."""
    iou: float | None
    """Of the contours with what was drawn."""


@dataclass(frozen=True, slots=True)
class Figure6:
    """All panels of one slide."""

    overview: NDArray[np.uint8]
    """RGB of `view_l0`."""
    view_l0: Region
    pixel_size: PixelSize
    truth_l0: BaseGeometry
    panels: tuple[Panel, ...]


def looks(model_5x: ModelPack, model_10x: ModelPack, unet: ModelPack, fcn: ModelPack) -> tuple[Look, ...]:
    """The five ways of figure 6.

    Raises:
        ParameterError: a pack is of another kind or resolution than its panel says.
        StrideInvalidError: the 5X model does not allow to step by whole patches.
    """
    _require("5X", model_5x, None, 1.84)
    _require("10X", model_10x, None, 0.92)
    _require("U-Net, 5X", unet, "UNet", 1.84)
    _require("FCN, 5X", fcn, "FCN8s", 1.84)
    whole_m = model_5x.manifest.input.patch
    require_stride(whole_m, model_5x.manifest.strides)
    return (
        Look("5X, no overlap", _run(model_5x, whole_m)),
        Look("5X, overlap", _run(model_5x)),
        Look("10X, overlap", _run(model_10x)),
        Look("U-Net, 5X", _run(unet)),
        Look("FCN, 5X", _run(fcn)),
    )


def _run(pack: ModelPack, stride_m: int | None = None) -> ModelRun:
    return ModelRun(pack, pack.manifest.default_mode, stride_m or pack.manifest.default_stride)


def _require(title: str, pack: ModelPack, segmenter: str | None, mpp: float) -> None:
    """Refuse a pack under a title that is not its own; where no segmenter is named, one that answers for patches is wanted."""
    network, input_ = pack.manifest.network, pack.manifest.input
    is_of_kind = network.kind == "classification" if segmenter is None else network.backbone == segmenter
    if not is_of_kind or abs(input_.mpp - mpp) > _MPP_TOLERANCE * mpp:
        raise ParameterError(
            f"The panel “{title}” cannot be drawn with {pack.name}: it is {network.backbone} + {network.head} at "
            f"{input_.mpp:g} µm/px.",
            cure=f"Give a pack with {segmenter or 'a network that answers for patches'} at {mpp:g} µm/px.",
        )


def compute_panels(
    row: CohortSlide,
    ways: Sequence[Look],
    maps: KeptMaps,
    *,
    classes: ClassMap = DEFAULT_CLASSES,
    progress: Callable[[Progress], None] = ignore_progress,
) -> Figure6:
    """Look at a slide in all ways, through the pipeline that serves.

    Args:
        row: the slide and its annotations.
        ways: what to compute.
        maps: computes the maps, and has those that an earlier call left.
        classes: what the class names of the annotations mean.
        progress: told how far the current way is.

    Raises:
        SlideError, AnnotationError, ModelError: something cannot be used; before anything is computed.
    """
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        areas = labelled_areas(slide, row, classes)
        for way in ways:
            slide.require_resolution(way.run.pack.manifest.input.mpp)
            way.run.pack.verify()
        view_l0, pixel_size = slide.bounds_l0, slide.pixel_size
        overview = slide.thumbnail_of(view_l0, _PANEL_PX)
    truth = Panel("What was drawn", None, areas.tumour_l0, None)
    found = [_panel(row, areas, way, maps, progress) for way in ways]
    return Figure6(overview, view_l0, pixel_size, areas.tumour_l0, (truth, *found))


def _panel(row: CohortSlide, areas: SlideAreas, way: Look, maps: KeptMaps, progress: Callable[[Progress], None]) -> Panel:
    stored = maps.result_of(row, way.run, lambda step: progress(Progress(step.done, step.total, way.title)))
    summary = stored.summary
    seconds = summary["seconds"]["total"]
    judged = judge_areas(row.slide.stem, areas, way.run.pack.name, stored.map, summary["parameters"], summary["outcome"], seconds)
    return Panel(way.title, stored.map, judged.found_l0, judged.score.known_iou)


def prepare_picture(picture: Path) -> Path:
    """Make the folder of the maps beside a picture, and find out now whether the picture can be written in the end.

    Returns:
        The folder of the maps.

    Raises:
        OutputNotWritableError: it cannot.
    """
    maps = picture.with_name(f"{picture.stem}-maps")
    try:
        maps.mkdir(parents=True, exist_ok=True)
        existed = picture.exists()
        with picture.open("ab"):
            pass
        if not existed:
            picture.unlink()
    except OSError as error:
        raise _not_writable(picture, error) from error
    return maps


def draw_panels(figure6: Figure6, picture: Path) -> None:
    """Draw the panels, two rows of three, with letters, a scale in mm and one bar for the probability.

    Args:
        figure6: the panels.
        picture: PNG to write.

    Raises:
        OutputNotWritableError: the picture cannot be written.
    """
    # Figure without pyplot: no window system, no state between threads.
    from matplotlib.figure import Figure

    rows, columns = 2, (len(figure6.panels) + 1) // 2
    shape = figure6.view_l0.height / figure6.view_l0.width
    height = _PANEL_INCHES * min(2.0, max(0.5, shape))
    figure = Figure((columns * _PANEL_INCHES + 1.5, rows * (height + 0.9) + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    shown = None
    for letter, axes, panel in zip("ABCDEFGH", grid.flat, figure6.panels, strict=False):
        shown = _draw(axes, figure6, panel, letter) or shown
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid, shrink=0.6, pad=0.02)
        bar.set_label("tumour probability", size=_TITLE_POINTS)
        bar.ax.tick_params(labelsize=_LABEL_POINTS)
    figure.supxlabel(f"green: drawn; blue: found; axes in mm. {RESEARCH_USE_ONLY}", size=_LABEL_POINTS)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    try:
        picture.write_bytes(data.getvalue())
    except OSError as error:
        raise _not_writable(picture, error) from error


def _not_writable(picture: Path, error: OSError) -> OutputNotWritableError:
    return OutputNotWritableError(
        f"The picture {picture.name} cannot be written ({error.strerror}).", cure="Check the folder and free space."
    )


def _draw(axes: Any, figure6: Figure6, panel: Panel, letter: str) -> Any:
    """One panel; returns the coloured map, or None where there is none."""
    axes.set_title(f"{letter}   {_title(panel)}", size=_TITLE_POINTS, loc="left")
    axes.imshow(figure6.overview, extent=_extent_mm(figure6.view_l0, figure6))
    coloured = None
    if panel.map is not None:
        coloured = axes.imshow(
            np.ma.masked_invalid(panel.map.values),
            cmap="plasma",
            vmin=0,
            vmax=1,
            alpha=0.5,
            interpolation="nearest",
            extent=_extent_mm(panel.map.lattice.region_l0, figure6),
        )
        if panel.found_l0 is not None:
            _outline(axes, panel.found_l0, figure6, _FOUND)
    _outline(axes, figure6.truth_l0, figure6, _TRUTH)
    left, right, bottom, top = _extent_mm(figure6.view_l0, figure6)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.tick_params(labelsize=_LABEL_POINTS)
    return coloured


def _title(panel: Panel) -> str:
    if panel.found_l0 is None:
        return f"{panel.title}: not evaluable"
    return panel.title if panel.iou is None else f"{panel.title}: IoU {panel.iou:.2f}"


def _extent_mm(region_l0: Region, figure6: Figure6) -> tuple[float, float, float, float]:
    """Left, right, bottom, top; from the corner of what is shown."""
    x_mm, y_mm = figure6.pixel_size.x_um / 1000, figure6.pixel_size.y_um / 1000
    left, top = (region_l0.x - figure6.view_l0.x) * x_mm, (region_l0.y - figure6.view_l0.y) * y_mm
    return left, left + region_l0.width * x_mm, top + region_l0.height * y_mm, top


def _outline(axes: Any, area_l0: BaseGeometry, figure6: Figure6, colour: str) -> None:
    scale = np.array([figure6.pixel_size.x_um, figure6.pixel_size.y_um]) / 1000
    corner = np.array([figure6.view_l0.x, figure6.view_l0.y])
    for ring in shapely.get_rings(shapely.get_parts(area_l0)):
        points_mm = (shapely.get_coordinates(ring) - corner) * scale
        axes.plot(points_mm[:, 0], points_mm[:, 1], color=colour, linewidth=1.8)
