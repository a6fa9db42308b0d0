"""Drawing fields: which of a data set's patches become one, and reading them with their label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Point, Region
from hepamap.slide import Slide
from hepamap.training.fields import FIELD_SPLITS, LABELS_PER_SIDE, MARGIN_M, UNIT_M, field_side_m
from hepamap.training.patches import NON_TUMOUR, TUMOUR
from hepamap.training.sampling import Sampler

Row = dict[str, Any]
"""A row of patches.csv, values as numbers."""

_VALIDATION_SHARE, _VALIDATION_LEAST = 8, 32  # an eighth of the training fields: enough to tell epochs apart


def fields_wanted(train: int) -> dict[str, int]:
    """Fields of each class by split, for so many in training."""
    counts = (train, max(_VALIDATION_LEAST, train // _VALIDATION_SHARE))
    return dict(zip(FIELD_SPLITS, counts, strict=True)) if train else {}


def choose_fields(rows: Sequence[Row], per_class: Mapping[str, int], seed: int) -> list[Row]:
    """Which patches become the middle of a field: of each split as many of one class as of the other, at random.

    Args:
        rows: all patches.
        per_class: fields of each class by split; where there are fewer patches, all of them.
        seed: of the choice.
    """
    rng = np.random.default_rng([seed, 1])
    chosen: list[Row] = []
    for split, count in per_class.items():
        of_class = [[row for row in rows if row["split"] == split and row["label"] == label] for label in (NON_TUMOUR, TUMOUR)]
        most = min(count, *map(len, of_class))
        for candidates in of_class:
            chosen += [candidates[i] for i in np.sort(rng.permutation(len(candidates))[:most])]
    return chosen


def read_field(
    slide: Slide, sampler: Sampler, areas_m: dict[int, BaseGeometry], patch: Row
) -> tuple[NDArray[np.uint8], NDArray[np.int8], Region]:
    """One field.

    Args:
        slide: an open slide.
        sampler: the one that drew the patches.
        areas_m: the slide's areas by label, from `Sampler.areas_m`.
        patch: the row of the middle patch.

    Returns:
        Pixels (F, F, 3), labels (S, S) of the patches at every 16 px by the training rule, and the field's place in
        level-0 px. What lies outside the slide is white.
    """
    grid, side = sampler.grid(slide), field_side_m(sampler.patch_m)
    # Patches lie on whole model px; the table rounds their place to 0.0001 level-0 px.
    corner_m = Point(round(patch["x_l0"] / grid.scale_x) - MARGIN_M, round(patch["y_l0"] / grid.scale_y) - MARGIN_M)
    place = grid.l0_from_m(Region(corner_m.x, corner_m.y, side, side))
    pixels = slide.read_region(place, sampler.mpp)
    rows, columns = np.divmod(np.arange(LABELS_PER_SIDE**2), LABELS_PER_SIDE)
    labels, _ = sampler.labels(pixels, corner_m, areas_m, (columns * UNIT_M, rows * UNIT_M))
    return pixels, labels.reshape(LABELS_PER_SIDE, LABELS_PER_SIDE), place
