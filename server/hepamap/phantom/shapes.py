"""Outlines: lobulated blobs, wavy cores and strokes, all in µm."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

_VERTEX_UM = 12.0

Points = NDArray[np.float64]


def lobulated(
    rng: np.random.Generator,
    centre_um: tuple[float, float],
    radii_um: tuple[float, float],
    *,
    roughness: float,
    lobes: int = 9,
) -> Polygon:
    """A closed curve around a centre whose radius swells and shrinks smoothly.

    Args:
        rng: draws the phases.
        centre_um: centre (x, y), µm.
        radii_um: half axes of the ellipse that is deformed, µm.
        roughness: amplitude of the lowest lobe, as a share of the radius.
        lobes: number of harmonics; amplitudes fall with their order.
    """
    count = int(np.clip(2 * np.pi * max(radii_um) / _VERTEX_UM, 48, 4000))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    swell = np.ones_like(angle)
    for order in range(2, 2 + lobes):
        swell += roughness * rng.normal() * (2 / order) ** 1.2 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    swell = np.clip(swell, 0.35, 1.9)
    tilt = rng.uniform(0, np.pi)
    x, y = radii_um[0] * swell * np.cos(angle), radii_um[1] * swell * np.sin(angle)
    points = np.column_stack(
        [centre_um[0] + x * np.cos(tilt) - y * np.sin(tilt), centre_um[1] + x * np.sin(tilt) + y * np.cos(tilt)]
    )
    return Polygon(points)


def roughened(rng: np.random.Generator, geometry: BaseGeometry, amplitude_um: float, wave_um: float) -> BaseGeometry:
    """Polygons whose outlines wobble by about an amplitude, over about a wavelength, µm; valid."""
    parts = []
    for part in shapely.get_parts(shapely.segmentize(geometry, _VERTEX_UM)):
        points = shapely.get_coordinates(part.exterior)[:-1]
        width = max(3, int(wave_um / _VERTEX_UM))
        window = np.hanning(width + 2)[1:-1]
        window /= np.sqrt((window**2).sum())
        # Convolved round the ring, so that its ends meet.
        shift = [_around(rng.normal(0, amplitude_um, len(points)), window) for _ in range(2)]
        parts.append(Polygon(points + np.column_stack(shift)))
    return polygons_only(shapely.union_all([shapely.make_valid(part) for part in parts]))


def _around(values: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values on a ring, convolved with a window."""
    return np.convolve(np.pad(values, len(window), mode="wrap"), window, mode="same")[len(window) : -len(window)]


def wavy_line(
    rng: np.random.Generator, start_um: tuple[float, float], end_um: tuple[float, float], amplitude_um: float
) -> Points:
    """Points (N, 2) along a line that bends smoothly, µm."""
    start, end = np.array(start_um), np.array(end_um)
    length_um = float(np.hypot(*(end - start)))
    share = np.linspace(0, 1, max(16, int(length_um / 25)))
    along = (end - start) / max(length_um, 1e-9)
    across = np.array([-along[1], along[0]])
    bend = np.zeros_like(share)
    for order in range(1, 6):
        bend += rng.normal() * amplitude_um / order * np.sin(order * np.pi * share + rng.uniform(0, 2 * np.pi))
    points: Points = start + share[:, None] * (end - start) + bend[:, None] * across
    return points


def ribbon(rng: np.random.Generator, line_um: Points, width_um: float, variation: float) -> BaseGeometry:
    """A band of changing width along a line, µm."""
    share = np.linspace(0, 1, len(line_um))
    half = np.full(len(line_um), width_um / 2)
    for order in range(2, 14):
        half += width_um / 2 * variation * rng.normal() / order**0.5 * np.sin(order * np.pi * share + rng.uniform(0, 6.3))
    half = np.clip(half, width_um * 0.3, width_um * 0.75)
    # Blunt, rounded ends: a quarter circle on each side.
    length_um = float(np.hypot(*np.diff(line_um, axis=0).T).sum())
    from_end = np.clip(np.minimum(share, 1 - share) * length_um / (0.35 * width_um), 0, 1)
    half *= np.sqrt(1 - (1 - from_end) ** 2) * 0.85 + 0.15
    tangent = np.gradient(line_um, axis=0)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) / np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
    outline = np.vstack([line_um + normal * half[:, None], (line_um - normal * half[:, None])[::-1]])
    return shapely.make_valid(Polygon(outline))


def stroke(line_um: Points, width_um: float) -> BaseGeometry:
    """A band of constant width with round ends, µm."""
    return LineString(line_um).buffer(width_um / 2, quad_segs=6)


def polygons_only(geometry: BaseGeometry, min_area_um2: float = 0.0) -> BaseGeometry:
    """The polygonal part of a geometry, without scraps and pinholes smaller than an area, valid."""
    parts = [
        Polygon(part.exterior, [hole for hole in part.interiors if Polygon(hole).area >= min_area_um2])
        # Twice: a repaired outline may be a collection that holds a MultiPolygon.
        for part in shapely.get_parts(shapely.get_parts(shapely.make_valid(geometry)))
        if part.geom_type == "Polygon" and part.area > min_area_um2
    ]
    return shapely.union_all(parts)
