"""The map of one slide: where tissue, tumour and necrosis lie, in µm.

These outlines are the truth. The painter asks the same polygons, so truth and picture cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from hepamap.phantom.hashing import generator
from hepamap.phantom.shapes import lobulated, polygons_only, ribbon, roughened, stroke, wavy_line
from hepamap.phantom.spec import PhantomSpec

_EMPTY = Polygon()
# A part of a class that is smaller than a few patches is no region that a pathologist would draw.
_MIN_PART_UM2 = 150.0**2
_MIN_PART_SHARE = 0.01
_KEYS = {"resection": 21, "biopsy": 22}


@dataclass(frozen=True)
class Scene:
    """Outlines of one slide, µm. `tumour` and `necrosis` lie inside `tissue`, `necrosis` inside `tumour`."""

    tissue: BaseGeometry
    tumour: BaseGeometry
    necrosis: BaseGeometry
    capsule_um: float
    """Thickness of the fibrous capsule outside the tumour, µm; 0 where there is none."""

    @property
    def liver(self) -> BaseGeometry:
        """Tissue that is not tumour; the capsule belongs to it."""
        return polygons_only(shapely.difference(self.tissue, self.tumour))


def build_scene(spec: PhantomSpec) -> Scene:
    """Lay out the tissue of a slide; depends on kind, size in µm, content and seed only."""
    rng = generator(spec.seed, _KEYS[spec.kind])
    tissue, tumour = _biopsy(spec, rng) if spec.kind == "biopsy" else _resection(spec, rng)
    # Drawn even where unused, so that `content` does not change the outlines.
    necrosis, capsule_um = _necrosis(rng, tumour), _capsule_um(rng, spec)
    if spec.content == "glass":
        return Scene(_EMPTY, _EMPTY, _EMPTY, 0.0)
    if spec.content == "liver":
        return Scene(tissue, _EMPTY, _EMPTY, 0.0)
    if spec.content == "tumour":
        return Scene(tissue, tissue, necrosis, 0.0)
    return Scene(tissue, tumour, necrosis, capsule_um)


def _sound(spec: PhantomSpec, parts: list[BaseGeometry]) -> BaseGeometry:
    """Outlines joined, without scraps; on a tiny slide smaller parts count."""
    smallest_um2 = min(_MIN_PART_UM2, _MIN_PART_SHARE * spec.width_um * spec.height_um)
    return polygons_only(shapely.union_all(parts), smallest_um2)


def _resection(spec: PhantomSpec, rng: np.random.Generator) -> tuple[BaseGeometry, BaseGeometry]:
    """One or two large pieces with straight cut sides, and a tumour of one or more nodules in them."""
    pieces = 2 if spec.width_um > 2.2 * spec.height_um else 1
    width_um = spec.width_um / pieces
    tissues, tumours = [], []
    for piece in range(pieces):
        centre = (width_um * (piece + 0.5), spec.height_um / 2)
        tissue = _piece(rng, centre, (width_um, spec.height_um))
        tissues.append(tissue)
        tumours.append(_nodules(rng, tissue))
    tissue = _sound(spec, tissues)
    return tissue, _sound(spec, [shapely.intersection(tumour, tissue) for tumour in tumours])


def _piece(rng: np.random.Generator, centre_um: tuple[float, float], room_um: tuple[float, float]) -> BaseGeometry:
    """A piece of liver that keeps clear of the slide's edges."""
    margin = 0.06 * min(room_um)
    half = (room_um[0] / 2 - margin, room_um[1] / 2 - margin)
    blob = lobulated(rng, (0.0, 0.0), (1.25, 1.25), roughness=0.06)
    blob = shapely.transform(blob, lambda xy: np.asarray(xy * half + centre_um))
    left, top = centre_um[0] - half[0], centre_um[1] - half[1]
    # The knife: the sides of the blob that stick out of the room are cut straight.
    cut = box(left, top, left + 2 * half[0], top + 2 * half[1]).buffer(-0.04 * min(half)).buffer(0.04 * min(half))
    return roughened(rng, shapely.intersection(blob, cut), 9.0, 220.0)


def _nodules(rng: np.random.Generator, tissue: BaseGeometry) -> BaseGeometry:
    """A main nodule, satellites around it and islands of liver inside it."""
    left, top, right, bottom = tissue.bounds
    size = min(right - left, bottom - top)
    radius = size * rng.uniform(0.30, 0.40)
    centre = (
        rng.uniform(left + 0.9 * radius, right - 0.9 * radius) if right - left > 1.8 * radius else (left + right) / 2,
        rng.uniform(top + 0.9 * radius, bottom - 0.9 * radius) if bottom - top > 1.8 * radius else (top + bottom) / 2,
    )
    stretch = rng.uniform(0.85, 1.25)
    main = lobulated(rng, centre, (radius * stretch, radius / stretch), roughness=0.07, lobes=12)
    small = float(np.clip(0.11 * size, 180.0, 700.0))
    satellites = [_satellite(rng, centre, radius, small) for _ in range(int(rng.integers(0, 4)) if size > 2500 else 0)]
    islands = [
        lobulated(rng, _inside(rng, centre, 0.6 * radius), (small * rng.uniform(0.7, 1.2),) * 2, roughness=0.08, lobes=6)
        for _ in range(int(rng.integers(0, 3)) if size > 2000 else 0)
    ]
    whole = shapely.union_all([main, *satellites])
    return shapely.difference(whole, shapely.union_all(islands))


def _inside(rng: np.random.Generator, centre_um: tuple[float, float], radius_um: float) -> tuple[float, float]:
    """A point in a disc."""
    angle, distance = rng.uniform(0, 2 * np.pi), radius_um * np.sqrt(rng.uniform())
    return centre_um[0] + distance * np.cos(angle), centre_um[1] + distance * np.sin(angle)


def _satellite(rng: np.random.Generator, centre_um: tuple[float, float], radius_um: float, small_um: float) -> Polygon:
    """A small nodule just outside the main one."""
    angle, distance = rng.uniform(0, 2 * np.pi), radius_um * rng.uniform(1.25, 1.7)
    centre = (centre_um[0] + distance * np.cos(angle), centre_um[1] + distance * np.sin(angle))
    return lobulated(rng, centre, (small_um * rng.uniform(0.7, 1.3),) * 2, roughness=0.08, lobes=6)


def _biopsy(spec: PhantomSpec, rng: np.random.Generator) -> tuple[BaseGeometry, BaseGeometry]:
    """One to three thin cores lying along the slide's longer side, part of each being tumour."""
    upright = spec.height_um > spec.width_um
    length_um, room_um = (spec.height_um, spec.width_um) if upright else (spec.width_um, spec.height_um)
    cores = int(np.clip(rng.integers(1, 4), 1, max(1, int(room_um // 1600))))
    tissues, tumours = [], []
    for core in range(cores):
        tissue, tumour = _core(rng, length_um, room_um / cores * (core + 0.5), min(1.0, room_um / cores / 1600, length_um / 4000))
        tissues.append(tissue)
        tumours.append(tumour)
    tissue = _sound(spec, tissues)
    tumour = _sound(spec, [shapely.intersection(tumour, tissue) for tumour in tumours])
    if upright:
        tissue, tumour = (shapely.transform(part, lambda xy: np.asarray(xy[:, ::-1])) for part in (tissue, tumour))
    return shapely.normalize(tissue), shapely.normalize(tumour)


def _core(rng: np.random.Generator, length_um: float, centre_um: float, scale: float) -> tuple[BaseGeometry, BaseGeometry]:
    """A core along x and the tumour in it."""
    reach_um = length_um * rng.uniform(0.8, 0.92)
    start_um = (length_um - reach_um) * rng.uniform(0.3, 0.7)
    tilt_um = scale * rng.uniform(-120, 120)
    line = wavy_line(rng, (start_um, centre_um - tilt_um), (start_um + reach_um, centre_um + tilt_um), 90.0 * scale)
    tissue = roughened(rng, ribbon(rng, line, scale * rng.uniform(850, 1150), 0.07), 7.0, 150.0)
    for _ in range(int(rng.integers(0, 3)) if reach_um > 6000 else 0):
        # The core has broken here: a gap with rough ends.
        at_um = start_um + reach_um * rng.uniform(0.1, 0.9)
        lean_um = rng.uniform(-350, 350)
        gap = wavy_line(rng, (at_um - lean_um, centre_um - 900), (at_um + lean_um, centre_um + 900), 40.0)
        tissue = shapely.difference(tissue, roughened(rng, stroke(gap, rng.uniform(70, 420)), 8.0, 120.0))
    from_um = start_um + reach_um * rng.uniform(-0.1, 0.45)
    to_um = from_um + reach_um * rng.uniform(0.35, 0.65)
    return tissue, shapely.intersection(_stretch(rng, from_um, to_um, centre_um, 900.0 * scale), tissue)


def _stretch(rng: np.random.Generator, from_um: float, to_um: float, centre_um: float, half_um: float) -> BaseGeometry:
    """What lies between two wavy fronts across a core, µm."""
    fronts = [
        wavy_line(
            rng,
            (x_um + rng.uniform(-0.5, 0.5) * half_um, centre_um - half_um),
            (x_um + rng.uniform(-0.5, 0.5) * half_um, centre_um + half_um),
            0.13 * half_um,
        )
        for x_um in (from_um, to_um)
    ]
    return shapely.make_valid(Polygon(np.vstack([fronts[0], fronts[1][::-1]])))


def _necrosis(rng: np.random.Generator, tumour: BaseGeometry) -> BaseGeometry:
    """Dead tumour, on one slide in three, deep inside: a tenth of the tumour at most."""
    present, share = rng.uniform() < 0.33, rng.uniform(0.03, 0.09)
    parts = [part for part in shapely.get_parts(tumour) if part.geom_type == "Polygon"]
    if not present or not parts:
        return _EMPTY
    largest = max(parts, key=lambda part: float(part.area))
    centre = shapely.maximum_inscribed_circle(largest, tolerance=20.0).coords[0]
    radius = float(np.sqrt(share * largest.area / np.pi))
    blob = lobulated(rng, (centre[0], centre[1]), (radius, radius), roughness=0.12)
    return polygons_only(shapely.intersection(blob.buffer(0), largest.buffer(-60.0)))


def _capsule_um(rng: np.random.Generator, spec: PhantomSpec) -> float:
    """Two resections in five have a capsule; a needle rarely shows one."""
    present, width_um = rng.uniform() < 0.4, float(rng.uniform(35, 110))
    return width_um if present and spec.kind == "resection" else 0.0
