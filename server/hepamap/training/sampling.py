"""Patches of one slide, drawn at random inside its annotations with a bounded number of reads."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Grid, Point, Region
from hepamap.maps import possible_tissue
from hepamap.regions import polygonal
from hepamap.slide import Slide
from hepamap.tissue import FOCUS_MIN_EDGES, focus_score, is_background_pixel
from hepamap.training.masks import ShareMap, rasterise
from hepamap.training.patches import (
    NO_LABEL,
    NON_TUMOUR,
    TUMOUR,
    is_tissue,
    labels_for_test,
    labels_for_training,
)

_PATCHES_PER_WINDOW = 8  # side of a window, in patches: one read serves many patches, and still fits in memory
_KEPT_PER_WINDOW = 16  # more would look too much alike
_DRAWN_PER_WINDOW = 256  # random corners that are tried in one window
_MAX_TRIES, _MAX_ROUNDS = 100_000, 20  # of drawing points inside one polygon
_WINDOWS_SPARE = 4  # how many times more windows are read than would do if every patch in them could be used
_LOOK_M = 64  # side of the cells that are looked at for tissue, model px: narrower than a core of a biopsy


@dataclass(frozen=True, slots=True)
class PatchRecord:
    """Where one patch comes from."""

    x_l0: float
    """Left edge, level-0 px."""
    y_l0: float
    side_x_l0: float
    """Width, level-0 px."""
    side_y_l0: float
    label: int
    tumour_share: float
    focus: float


@dataclass(slots=True)
class SlidePatches:
    """The patches of one slide."""

    patches: list[NDArray[np.uint8]] = field(default_factory=list)
    """Each (P, P, 3)."""
    records: list[PatchRecord] = field(default_factory=list)
    out_of_focus: int = 0
    windows_read: int = 0

    def count(self, label: int) -> int:
        """Patches of one class."""
        return sum(record.label == label for record in self.records)


@dataclass(frozen=True, slots=True)
class Sampler:
    """How to draw patches from slides."""

    mpp: float
    patch_m: int
    seed: int

    def sample(
        self,
        slide: Slide,
        tumour_l0: BaseGeometry,
        non_tumour_l0: BaseGeometry,
        wanted: dict[int, int],
        *,
        test_rule: bool = False,
    ) -> SlidePatches:
        """Draw patches of both classes.

        Args:
            slide: an open slide.
            tumour_l0: its tumour, level-0 px.
            non_tumour_l0: its non-tumour, level-0 px; does not overlap the tumour.
            wanted: patches to draw by label.
            test_rule: label by the test rule (over 50 %) and not by the training rule (over 75 %).

        Returns:
            At most the wanted number of each; less where the slide has no more. The same slide, areas, numbers and
            seed give the same patches, whatever else is in the data set.
        """
        slide.require_resolution(self.mpp)
        areas_m = self.areas_m(slide, tumour_l0, non_tumour_l0)
        rng = np.random.default_rng([self.seed, zlib.crc32(slide.path.name.encode())])
        found = SlidePatches()

        def draw(label: int, area_m: BaseGeometry) -> None:
            # A window gives patches of its own class only: liver that lies around a window of tumour is not liver at random.
            for window_m in self._windows(area_m, wanted[label] - found.count(label), rng):
                missing = wanted[label] - found.count(label)
                if missing <= 0:
                    return
                self._take_from_window(slide, window_m, areas_m, (label, min(missing, _KEPT_PER_WINDOW)), test_rule, rng, found)

        for label, area_m in areas_m.items():
            draw(label, area_m)
        # Where only tumour was drawn, the rest may be glass for the most part, and so were the windows.
        for label, area_m in areas_m.items():
            if found.count(label) < wanted[label]:
                draw(label, self._with_tissue(slide, area_m))
        return found

    def grid(self, slide: Slide) -> Grid:
        """The slide at the resolution of the patches."""
        return Grid(self.mpp, self.patch_m, self.patch_m, slide.pixel_size)

    def areas_m(self, slide: Slide, tumour_l0: BaseGeometry, non_tumour_l0: BaseGeometry) -> dict[int, BaseGeometry]:
        """The areas of a slide by label, model px."""
        grid = self.grid(slide)
        scale = [grid.scale_x, grid.scale_y]
        of_label = {TUMOUR: tumour_l0, NON_TUMOUR: non_tumour_l0}
        return {label: shapely.transform(area, lambda xy: np.asarray(xy / scale)) for label, area in of_label.items()}

    def _with_tissue(self, slide: Slide, area_m: BaseGeometry) -> BaseGeometry:
        """The part of an area, model px, where tissue may be; nothing where no small level of the slide can tell."""
        lattice = Grid(self.mpp, _LOOK_M, _LOOK_M, slide.pixel_size).covering(slide.bounds_l0)
        possible = possible_tissue(slide, lattice)
        if possible is None:
            return shapely.MultiPolygon()
        rows, columns = np.nonzero(possible)
        left, top = (lattice.column0 + columns) * _LOOK_M, (lattice.row0 + rows) * _LOOK_M
        tissue_m = shapely.coverage_union_all(shapely.box(left, top, left + _LOOK_M, top + _LOOK_M))
        # Scaling from level 0 may have let outlines cross.
        return polygonal(shapely.make_valid(area_m).intersection(tissue_m))

    def _windows(self, area_m: BaseGeometry, wanted: int, rng: np.random.Generator) -> Iterator[Point]:
        """Corners of windows in whole model px, placed at random over points of the area; a bounded number."""
        if not area_m.area > 0:
            return
        side = _PATCHES_PER_WINDOW * self.patch_m
        for x, y in points_inside(area_m, _WINDOWS_SPARE * (1 + math.ceil(wanted / _KEPT_PER_WINDOW)), rng):
            shift_x, shift_y = rng.integers(0, side - self.patch_m, 2)
            yield Point(math.floor(x) - shift_x - self.patch_m // 2, math.floor(y) - shift_y - self.patch_m // 2)

    def _take_from_window(
        self,
        slide: Slide,
        corner_m: Point,
        areas_m: dict[int, BaseGeometry],
        wanted: tuple[int, int],
        test_rule: bool,
        rng: np.random.Generator,
        found: SlidePatches,
    ) -> None:
        """Add what one window has of a class: `wanted` is its label, and how many at most."""
        label, most = wanted
        side = _PATCHES_PER_WINDOW * self.patch_m
        grid = self.grid(slide)
        pixels = slide.read_region(grid.l0_from_m(Region(corner_m.x, corner_m.y, side, side)), self.mpp)
        found.windows_read += 1
        x, y = rng.integers(0, side - self.patch_m + 1, (2, _DRAWN_PER_WINDOW))
        labels, tumour_share = self.labels(pixels, corner_m, areas_m, (x, y), test_rule=test_rule)
        kept: list[int] = []
        for i in np.flatnonzero(labels == label).tolist():
            if len(kept) == most:
                break
            if _is_near(x, y, i, kept, self.patch_m // 2):
                continue
            patch = pixels[y[i] : y[i] + self.patch_m, x[i] : x[i] + self.patch_m]
            focus = focus_score(patch)
            if focus < FOCUS_MIN_EDGES:
                found.out_of_focus += 1
                continue
            kept.append(i)
            place = grid.l0_from_m(Region(corner_m.x + x[i], corner_m.y + y[i], self.patch_m, self.patch_m))
            found.patches.append(patch.copy())
            found.records.append(PatchRecord(place.x, place.y, place.width, place.height, label, float(tumour_share[i]), focus))

    def labels(
        self,
        pixels: NDArray[np.uint8],
        corner_m: Point,
        areas_m: dict[int, BaseGeometry],
        corners: tuple[NDArray[np.intp], NDArray[np.intp]],
        *,
        test_rule: bool = False,
    ) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Labels of patches in a window that was read (NO_LABEL on background), and their tumour shares.

        Args:
            pixels: the window, (H, W, 3).
            corner_m: its corner on the slide, whole model px.
            areas_m: as of `areas_m`.
            corners: x and y of the patches in the window, each (n,).
            test_rule: as of `sample`.

        Returns:
            Labels (n,) and tumour shares (n,).
        """
        height, width = pixels.shape[:2]

        def shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
            return ShareMap(mask).shares(*corners, self.patch_m)

        def area_shares(label: int) -> NDArray[np.float64]:
            window = shapely.clip_by_rect(areas_m[label], corner_m.x, corner_m.y, corner_m.x + width, corner_m.y + height)
            moved = shapely.transform(window, lambda xy: np.asarray(xy - [corner_m.x, corner_m.y]))
            return shares(rasterise(moved, width, height))

        tumour, non_tumour = area_shares(TUMOUR), area_shares(NON_TUMOUR)
        labels = labels_for_test(tumour, tumour + non_tumour) if test_rule else labels_for_training(tumour, non_tumour)
        labels[~is_tissue(shares(is_background_pixel(pixels)))] = NO_LABEL
        return labels, tumour


def _is_near(x: NDArray[np.intp], y: NDArray[np.intp], i: int, kept: list[int], distance: int) -> bool:
    """Whether a patch lies within a distance, along both axes, of one that was kept."""
    return any(abs(x[i] - x[j]) < distance and abs(y[i] - y[j]) < distance for j in kept)


def points_inside(area: BaseGeometry, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random points, uniform over an area; (count, 2)."""
    parts = [part for part in shapely.get_parts(area) if part.area > 0]
    sizes = np.array([part.area for part in parts])
    # Part by part, because a rectangle round islands far apart would hold almost none of them.
    chosen = rng.choice(len(parts), count, p=sizes / sizes.sum())
    points = np.empty((count, 2))
    for number in np.unique(chosen):
        points[chosen == number] = _points_in_polygon(parts[number], int((chosen == number).sum()), rng)
    return points


def _points_in_polygon(polygon: BaseGeometry, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    left, top, right, bottom = polygon.bounds
    tries = min(_MAX_TRIES, math.ceil(2 * count * (right - left) * (bottom - top) / polygon.area) + 16)
    inside = np.empty((0, 2))
    for _ in range(_MAX_ROUNDS):
        drawn = rng.uniform((left, top), (right, bottom), (tries, 2))
        inside = np.concatenate([inside, drawn[shapely.contains_xy(polygon, drawn)]])
        if len(inside) >= count:
            return inside[:count]
    # A sliver across the slide: a hair's width cannot hold a patch, so any of its points will do.
    centre = polygon.representative_point()
    return np.concatenate([inside, np.tile([[centre.x, centre.y]], (count - len(inside), 1))])
