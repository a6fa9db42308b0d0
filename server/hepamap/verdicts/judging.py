"""The final tumour area of a verdict, compared with the contours that the person saw; everything in level-0 px."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from hepamap.errors import RegionOutsideSlideError, RegionTooComplexError
from hepamap.geometry import PixelSize, Point, Size
from hepamap.plausibility import NOT_EVALUABLE
from hepamap.regions import polygonal, polygons_of
from hepamap.results import Frame, StoredResult
from hepamap.verdicts.errors import NothingToAcceptError
from hepamap.verdicts.verdict import Decision, Opinion

_PRECISION_PX = 0.01  # as contours are written, and as QuPath reads them
_LEVEL0 = Frame("level0", Point(0.0, 0.0))
# Mending takes time with the square of the crossings: about a second for these, and a minute for a ring of 200 random points.
_MENDED_CROSSINGS = 1000
_MENDED_POINTS = 50_000
_SEGMENTS_AT_ONCE = 256


def form_opinion(
    decision: Decision,
    result: StoredResult,
    *,
    threshold: float,
    min_area_um2: float | None,
    drawn: Any,
    user: str,
    reason: str | None,
) -> Opinion:
    """What a person says about a result, with the areas that follow from it.

    Args:
        decision: what the person said.
        result: what it was said about.
        threshold: of the contours that the person saw.
        min_area_um2: smaller contours were left out; None: as in the run.
        drawn: for an edited one: GeoJSON of all that the person left, in the frame of the run; may be empty.
        user: who says so.
        reason: why.

    Raises:
        ThresholdInvalidError: the threshold is no probability.
        RegionInvalidError, RegionOutsideSlideError: what was drawn is no polygon, or lies beside the slide.
        RegionTooComplexError: an outline crosses itself more often than any hand slips.
        NothingToAcceptError: a result that is not evaluable is accepted.
    """
    if decision is Decision.ACCEPTED and result.summary["outcome"] == NOT_EVALUABLE:
        raise NothingToAcceptError(
            "This analysis is not evaluable and has no contours that could be accepted; that would say that there is no tumour.",
            cure="Reject it with a reason, or draw where tumour is and send that as edited.",
        )
    contours = result.contours(threshold=threshold, min_area_um2=min_area_um2, frame=_LEVEL0)
    smallest_um2 = float(contours["properties"]["min_area_um2"])
    if decision is Decision.REJECTED:
        return Opinion(decision, reason, user, threshold, smallest_um2, None, None, None)
    found_l0 = _united(contours)
    final_l0 = found_l0 if decision is Decision.ACCEPTED else drawn_area(drawn, result.frame.offset_l0, _size_of(result))
    return Opinion(
        decision=decision,
        reason=reason,
        user=user,
        threshold=threshold,
        min_area_um2=smallest_um2,
        geometry_l0=plain(final_l0),
        iou=1.0 if decision is Decision.ACCEPTED else intersection_over_union(final_l0, found_l0),
        area_mm2=final_l0.area * pixel_size_of(result).area_um2 / 1e6,
    )


def drawn_area(drawn: Any, offset_l0: Point, size_l0: Size) -> BaseGeometry:
    """The area that a person drew, cut to the slide. Outlines that cross themselves are mended: the hand slips.

    Args:
        drawn: GeoJSON polygons, in the client's frame; a collection may be empty: then there is no tumour.
        offset_l0: origin of that frame in level-0 px.
        size_l0: size of the slide.

    Raises:
        RegionInvalidError: it is no GeoJSON, or has other things than polygons.
        RegionOutsideSlideError: all of it lies beside the slide.
        RegionTooComplexError: an outline crosses itself more often than any hand slips.
    """
    shapes = [_mended(part) for part in polygons_of(drawn)]
    area = polygonal(shapely.union_all(shapes))
    moved = shapely.transform(area, lambda points: points + np.array([offset_l0.x, offset_l0.y]))
    with np.errstate(over="ignore"):  # far off the slide is off the slide
        cut = polygonal(shapely.intersection(moved, shapely.box(0, 0, size_l0.width, size_l0.height)))
    if cut.is_empty and not area.is_empty:
        raise RegionOutsideSlideError(
            f"What was drawn lies outside the slide ({size_l0.width} × {size_l0.height} px).",
            cure="Check that it was drawn on this slide, in pixels of its full resolution.",
        )
    return cut


def intersection_over_union(one: BaseGeometry, other: BaseGeometry) -> float:
    """0 to 1; two empty areas are the same."""
    common = one.intersection(other).area
    together = one.area + other.area - common
    return 1.0 if together == 0 else float(common / together)


def plain(area_l0: BaseGeometry) -> dict[str, Any]:
    """GeoJSON, a MultiPolygon always, with as many decimals as contours have."""
    rounded = polygonal(shapely.set_precision(area_l0, _PRECISION_PX))
    parts = shapely.MultiPolygon([part for part in shapely.get_parts(rounded) if part.area > 0])
    coordinates = shapely.transform(parts, lambda points: points.round(2) + 0.0)
    return {"type": "MultiPolygon", "coordinates": mapping(coordinates)["coordinates"] if not parts.is_empty else []}


def pixel_size_of(result: StoredResult) -> PixelSize:
    """The pixel size that the run went by."""
    return result.map.lattice.grid.pixel_size


def _mended(part: Polygon | MultiPolygon) -> BaseGeometry:
    if part.is_valid:
        return part
    if shapely.get_num_coordinates(part) > _MENDED_POINTS or _crosses_too_often(part):
        raise RegionTooComplexError(
            f"An outline crosses itself more than {_MENDED_CROSSINGS} times, or does and has more than {_MENDED_POINTS} points.",
            cure="Simplify the outline, or draw it so that it does not cross itself.",
        )
    return shapely.make_valid(part)


def _crosses_too_often(part: Polygon | MultiPolygon) -> bool:
    """Whether more pairs of segments meet than neighbours in a ring do, and a hand that slips now and then."""
    ends = [np.stack([points[:-1], points[1:]], axis=1) for points in map(shapely.get_coordinates, _rings_of(part))]
    pairs = np.concatenate(ends)
    segments = np.atleast_1d(shapely.linestrings(pairs[(pairs[:, 0] != pairs[:, 1]).any(axis=1)]))
    tree = shapely.STRtree(segments)
    meetings = 0
    for start in range(0, len(segments), _SEGMENTS_AT_ONCE):
        # Each meets itself and its two neighbours; all other meetings are found from both sides.
        asked = segments[start : start + _SEGMENTS_AT_ONCE]
        meetings += tree.query(asked, predicate="intersects").shape[1] - 3 * len(asked)
        if meetings > 2 * _MENDED_CROSSINGS:
            return True
    return False


def _rings_of(part: Polygon | MultiPolygon) -> NDArray[np.object_]:
    rings: NDArray[np.object_] = shapely.get_rings(shapely.get_parts(part))
    return rings


def _united(contours: dict[str, Any]) -> BaseGeometry:
    """All contours as one area: one may lie in a hole of another that was filled."""
    return polygonal(shapely.union_all([shape(feature["geometry"]) for feature in contours["features"]]))


def _size_of(result: StoredResult) -> Size:
    slide = result.summary["provenance"]["slide"]
    return Size(slide["width_l0"], slide["height_l0"])
