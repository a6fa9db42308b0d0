"""Whether a result can be trusted: every reason for doubt gets a code and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepamap.contours import TumourRegion
from hepamap.tissue import BLACK_MAX_RGB, is_background_pixel

OK = "ok"
OK_WITH_WARNINGS = "ok_with_warnings"
NOT_EVALUABLE = "not_evaluable"

_SAMPLE_STEP_PX = 8  # every 8th pixel is enough to know a slide's colours
_MIN_HE_SHARE = 0.3  # of the tissue pixels; the pale and the inked still leave more than this pink or violet
_MIN_CONTRAST = 8  # grey levels by which H&E's green lies under its red or blue
_LITTLE_TISSUE_UM2 = 0.1e6
_NEARLY_ALL = 0.98
_CONSTANT_SPREAD = 1e-3
_MANY_CELLS = 100


@dataclass(frozen=True, slots=True)
class Warning_:
    """A reason for doubt, with a stable code and a sentence for a person."""

    code: str
    message: str


class StainTally:
    """Counts, over a run, how many tissue pixels have the colours of haematoxylin and eosin."""

    def __init__(self) -> None:
        self.tissue_pixels = 0
        self.he_pixels = 0

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Count a sample of a field (H, W, 3)."""
        sample = rgb[::_SAMPLE_STEP_PX, ::_SAMPLE_STEP_PX]
        tissue = sample[~is_background_pixel(sample)].astype(np.int16)
        red, green, blue = tissue[:, 0], tissue[:, 1], tissue[:, 2]
        # Pink to violet: both stains take green out of the light most, and neither takes all of it. Fluorescence has no light
        # but its own: red or blue dyes leave green black. What is black all over says nothing: slides have black borders.
        is_he = (red - green >= _MIN_CONTRAST) & (blue >= green - _MIN_CONTRAST) & (tissue.min(axis=1) > BLACK_MAX_RGB)
        self.include(len(tissue), int(is_he.sum()))

    def include(self, tissue_pixels: int, he_pixels: int) -> None:
        """Count what was counted before, by another tally."""
        self.tissue_pixels += tissue_pixels
        self.he_pixels += he_pixels

    @property
    def he_share(self) -> float:
        """Share of the tissue pixels that look like H&E, 0 to 1; 1 where there is no tissue."""
        return self.he_pixels / self.tissue_pixels if self.tissue_pixels else 1.0


def judge(
    values: NDArray[np.float32], regions: Sequence[TumourRegion], tissue_area_um2: float, stain: StainTally
) -> tuple[str, list[Warning_]]:
    """Say how far a result can be trusted.

    Args:
        values: (rows, columns) tumour probability, NaN where there is no data.
        regions: the tumour regions at the threshold.
        tissue_area_um2: area of the cells with data, µm².
        stain: colours seen during the run.

    Returns:
        `ok`, `ok_with_warnings` or `not_evaluable`, and the reasons.
    """
    if tissue_area_um2 == 0:
        return NOT_EVALUABLE, [Warning_("no_tissue", "No tissue was found: all of it is glass, or black.")]
    if stain.he_share < _MIN_HE_SHARE:
        message = (
            f"This does not look like an H&E slide in bright light: only {100 * stain.he_share:.0f} % of the tissue has its "
            "colours. The result means nothing."
        )
        return NOT_EVALUABLE, [Warning_("not_h_and_e", message)]
    warnings = list(_doubts(values, regions, tissue_area_um2))
    return (OK_WITH_WARNINGS if warnings else OK), warnings


def _doubts(values: NDArray[np.float32], regions: Sequence[TumourRegion], tissue_area_um2: float) -> list[Warning_]:
    doubts = []
    if tissue_area_um2 < _LITTLE_TISSUE_UM2:
        doubts.append(Warning_("little_tissue", f"There is very little tissue ({tissue_area_um2 / 1e6:.3f} mm²)."))
    known = values[np.isfinite(values)]
    if len(known) >= _MANY_CELLS and float(known.max() - known.min()) < _CONSTANT_SPREAD:
        doubts.append(Warning_("map_constant", f"The map is the same everywhere ({known[0]:.3f}): the model cannot tell."))
    share = sum(region.cells for region in regions) / len(known)
    if share > _NEARLY_ALL:
        doubts.append(Warning_("nearly_all_tumour", f"{100 * share:.0f} % of the tissue is marked as tumour: check it."))
    return doubts
