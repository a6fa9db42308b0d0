"""Regions of interest: from GeoJSON to a checked shape in level-0 px, and to the cells that meet it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.validation import explain_validity

from hepamap.errors import RegionEmptyError, RegionInvalidError, RegionOutsideSlideError
from hepamap.geometry import Lattice, Point, Region, Size

_CURE_DRAW = "Draw the region as a closed polygon on the slide, and send it in pixels of the slide's full resolution."


def parse_region(data: Any, offset_l0: Point, size_l0: Size) -> BaseGeometry:
    """Read and check a region of interest.

    Args:
        data: GeoJSON: a Polygon or MultiPolygon, a Feature of one, or a FeatureCollection or list of such features.
        offset_l0: origin of the client's frame in level-0 px, added to every point.
        size_l0: size of the slide.

    Returns:
        The region in level-0 px, cut to the slide.

    Raises:
        RegionInvalidError: no polygon in GeoJSON, or it crosses itself.
        RegionEmptyError: it has no area.
        RegionOutsideSlideError: no part of it lies on the slide.
    """
    shapes = polygons_of(data)
    # By its hull: an outline that crosses itself may have a signed area of nothing, and is not empty.
    if all(shape.convex_hull.area == 0 for shape in shapes):
        raise RegionEmptyError("The region has no area.", cure=_CURE_DRAW)
    for shape in shapes:
        if not shape.is_valid:
            raise RegionInvalidError(
                f"The region is not a valid polygon: {explain_validity(shape)}.",
                cure="Draw its outline so that it does not cross or touch itself.",
            )
    region_l0 = shapely.transform(shapely.union_all(shapes), lambda points: points + np.array([offset_l0.x, offset_l0.y]))
    with np.errstate(over="ignore"):  # far off the slide is off the slide
        cut = shapely.intersection(region_l0, shapely.box(0, 0, size_l0.width, size_l0.height))
    on_slide = polygonal(cut)
    if on_slide.area == 0:
        raise RegionOutsideSlideError(
            f"The region lies outside the slide ({size_l0.width} × {size_l0.height} px).",
            cure="Check that the region was drawn on this slide, in pixels of its full resolution.",
        )
    return on_slide


def polygons_of(data: Any) -> list[Polygon | MultiPolygon]:
    """Read GeoJSON: a Polygon or MultiPolygon, a Feature of one, or a FeatureCollection or list of such features.

    Returns:
        The polygons as they are, not checked for crossing themselves; none for an empty collection.

    Raises:
        RegionInvalidError: it is none of these.
    """
    try:
        return [_shape(geometry) for geometry in _geometries(data)]
    except RecursionError as error:
        raise _no_polygon("it is nested too deep") from error


def bare_region(data: Any) -> list[dict[str, Any]]:
    """The same region, without what a viewer's objects hold besides their outlines: names, measurements, heights.

    Returns:
        GeoJSON geometries in the frame of `data`, which `parse_region` takes.

    Raises:
        RegionInvalidError: see `polygons_of`.
    """
    return [shapely.geometry.mapping(shapely.force_2d(shape)) for shape in polygons_of(data)]


def polygonal(shape: BaseGeometry) -> BaseGeometry:
    """The parts of a shape that have an area: mending and cutting leave lines and points behind."""
    parts = shapely.get_parts(shapely.get_parts(shape))  # twice: a mended shape may be a collection of multi-polygons
    return shapely.union_all([part for part in parts if isinstance(part, Polygon) and part.area > 0])


def bounding_region(shape_l0: BaseGeometry) -> Region:
    """The smallest rectangle around a shape, level-0 px."""
    left, top, right, bottom = shape_l0.bounds
    return Region(left, top, right - left, bottom - top)


def cells_meeting(shape_l0: BaseGeometry, lattice: Lattice) -> NDArray[np.bool_]:
    """Which cells of a lattice share some area with a shape; (rows, columns)."""
    origin, cell = lattice.origin_l0, lattice.cell_size_l0
    left = origin.x + cell.x * np.arange(lattice.columns)
    top = origin.y + cell.y * np.arange(lattice.rows)
    shapely.prepare(shape_l0)
    wanted = np.zeros((lattice.rows, lattice.columns), bool)
    for row in range(lattice.rows):
        boxes = shapely.box(left, top[row], left + cell.x, top[row] + cell.y)
        wanted[row] = shapely.intersects(shape_l0, boxes) & ~shapely.touches(shape_l0, boxes)
    return wanted


def _geometries(data: Any) -> Iterator[Mapping[str, Any]]:
    """The geometries in any of the GeoJSON forms that QuPath writes."""
    if isinstance(data, list):
        for item in data:
            yield from _geometries(item)
    elif data is None:
        raise _no_polygon("a feature has no geometry")
    elif not isinstance(data, Mapping):
        raise _no_polygon(f"it is a {type(data).__name__}")
    elif data.get("type") == "FeatureCollection":
        yield from _geometries(data.get("features"))
    elif data.get("type") == "Feature":
        yield from _geometries(data.get("geometry"))
    elif data.get("type") in ("Polygon", "MultiPolygon"):
        yield data
    else:
        raise _no_polygon(f"its type is {str(data.get('type'))[:40]!r}")


def _shape(geometry: Mapping[str, Any]) -> Polygon | MultiPolygon:
    try:
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers are looked for below
            shape = shapely.geometry.shape(dict(geometry))
        finite = bool(np.isfinite(shapely.get_coordinates(shape)).all())
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise _no_polygon("its coordinates are no closed rings of x, y pairs") from error
    if not finite or not isinstance(shape, Polygon | MultiPolygon):
        raise _no_polygon("its coordinates are no finite numbers")
    return shape


def _no_polygon(why: str) -> RegionInvalidError:
    return RegionInvalidError(f"The region is no GeoJSON polygon: {why}.", cure=_CURE_DRAW)
