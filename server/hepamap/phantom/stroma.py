"""Connective tissue and vessels: portal tracts, central veins, septa and the capsule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely.geometry import Point
from shapely.geometry.base import BaseGeometry

from hepamap.phantom.frame import PADDED_PX, WORKING_UM, BlockFrame, Field, Mask
from hepamap.phantom.hashing import generator, jittered_lattice
from hepamap.phantom.raster import at, discs, unit
from hepamap.phantom.sprites import DIRECTIONS, Nuclei, SpriteBank
from hepamap.phantom.style import Architecture
from hepamap.phantom.textures import Textures

_TRACT_SPACING_UM = 680.0
_TRACT_REACH_UM = 260.0
_TRACT_SALT, _VEIN_SALT, _STROMA_CELL_SALT = 71, 72, 73
_FIBROBLAST_SPACING_UM = 15.0

Discs = list[tuple[float, float, float]]
"""x and y of the centre and radius, µm."""


@dataclass(frozen=True)
class Stroma:
    """Connective tissue of a block, to be laid over the parenchyma."""

    fibrous: Field
    """Coverage by connective tissue, 0 to 1."""
    epithelium: Mask
    """Coverage by bile ducts and vessel muscle, 255 = full: denser eosin inside the fibrous part."""
    lumens: Mask
    """Coverage by empty lumens, 255 = empty."""
    nuclei: Nuclei


@dataclass
class _Drawing:
    """Collects discs and nuclei before they are rasterised."""

    tracts: Discs
    walls: Discs
    lumens: Discs
    nuclei: list[tuple[float, float, int]]


def paint(
    frame: BlockFrame,
    *,
    tissue: Architecture,
    clear_of: BaseGeometry | None,
    capsule: Field | None,
    textures: Textures,
    bank: SpriteBank,
    seed: int,
) -> Stroma:
    """Paint the connective tissue of one tissue over a block.

    Args:
        frame: the block.
        tissue: the tissue that the connective tissue runs through.
        clear_of: in liver, what portal tracts and central veins keep clear of, µm; None in carcinoma, which has none.
        capsule: coverage by the tumour's capsule, 0 to 1.
        textures: the slide's noises.
        bank: the slide's nuclei.
        seed: the slide's seed.
    """
    drawing = _Drawing([], [], [], [])
    if clear_of is not None:
        _draw_tracts(drawing, frame, seed, bank, clear_of)
        _draw_veins(drawing, frame, seed, clear_of)
    fibrous = _soft_discs(frame, drawing.tracts, textures)
    if tissue.septum_um > 0:
        fibrous = np.maximum(fibrous, _septa(frame, tissue, textures))
    if capsule is not None:
        fibrous = np.maximum(fibrous, capsule)
    walls, lumens = _mask(frame, drawing.walls), _mask(frame, drawing.lumens)
    return Stroma(fibrous, walls, lumens, _cells(frame, drawing, fibrous, lumens, bank, seed))


def _draw_tracts(drawing: _Drawing, frame: BlockFrame, seed: int, bank: SpriteBank, clear_of: BaseGeometry) -> None:
    """Portal tracts: a field of collagen with vein, artery, bile duct and lymphocytes."""
    x_um, y_um, (draw,) = jittered_lattice(frame.box_um(_TRACT_REACH_UM), _TRACT_SPACING_UM, 0.25, seed, _TRACT_SALT, 1)
    for x, y, key in zip(x_um.tolist(), y_um.tolist(), draw.tolist(), strict=True):
        rng = generator(seed, _TRACT_SALT, int(key * (1 << 40)))
        radius = rng.uniform(42, 105)
        if clear_of.distance(Point(x, y)) < 1.2 * radius + 10:
            continue
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(3) * 2.1:
            # Three lobes make the corners of the tract.
            drawing.tracts.append((x + 0.5 * radius * np.cos(angle), y + 0.5 * radius * np.sin(angle), 0.62 * radius))
        turn = rng.uniform(0, 2 * np.pi)
        for part, (distance, size) in enumerate(((0.30, 0.34), (0.55, 0.11), (0.55, 0.15))):
            angle = turn + part * 2.1
            place = (x + distance * radius * np.cos(angle), y + distance * radius * np.sin(angle))
            _draw_tube(drawing, rng, place, radius * size, part, bank)
        for _ in range(int(rng.gamma(1.2, 0.10 * radius))):
            spot = rng.normal(0, 0.36 * radius, 2)
            drawing.nuclei.append((x + spot[0], y + spot[1], int(rng.choice(bank.lymphocyte))))


def _draw_tube(
    drawing: _Drawing,
    rng: np.random.Generator,
    place_um: tuple[float, float],
    radius_um: float,
    part: int,
    bank: SpriteBank,
) -> None:
    """A portal vein (part 0), an artery (1) or a bile duct (2)."""
    x, y = place_um
    if part == 0:
        drawing.lumens.append((x, y, radius_um))
        drawing.lumens.append((x + 0.5 * radius_um, y + 0.2 * radius_um, 0.8 * radius_um))
        return
    radius = float(np.clip(radius_um, 7.0, 18.0))
    drawing.walls.append((x, y, radius + 3))
    drawing.lumens.append((x, y, 0.42 * radius))
    count = int(2 * np.pi * radius / (7.5 if part == 2 else 11))
    for angle in np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.08, count):
        ring = 0.8 * radius if part == 2 else radius
        heading = round((angle + np.pi / 2) / np.pi * DIRECTIONS) % DIRECTIONS
        sprite = int(rng.choice(bank.duct)) if part == 2 else bank.spindle.start + heading * 4
        drawing.nuclei.append((x + ring * np.cos(angle), y + ring * np.sin(angle), sprite))


def _draw_veins(drawing: _Drawing, frame: BlockFrame, seed: int, clear_of: BaseGeometry) -> None:
    """Central veins, between the portal tracts: a lumen with a thin wall."""
    left, top, right, bottom = frame.box_um(_TRACT_REACH_UM)
    shift_um = _TRACT_SPACING_UM / 2, _TRACT_SPACING_UM * np.sqrt(0.75) / 3
    box_um = (left - shift_um[0], top - shift_um[1], right - shift_um[0], bottom - shift_um[1])
    x_um, y_um, (size, stretch) = jittered_lattice(box_um, _TRACT_SPACING_UM, 0.15, seed, _VEIN_SALT, 2)
    for x, y, s, t in zip(x_um + shift_um[0], y_um + shift_um[1], size, stretch, strict=True):
        radius = 16 + 34 * s * s
        if clear_of.distance(Point(x, y)) < 1.6 * radius + 10:
            continue
        for step in (-0.5, 0.5):
            centre = (x + step * radius * t, y + step * radius * (1 - t))
            drawing.lumens.append((*centre, radius))
            drawing.tracts.append((*centre, radius + 5))


def _visible(frame: BlockFrame, round_things: Discs) -> tuple[Field, Field, Field]:
    """Discs that touch the padded block: x, y and radius in px of it."""
    table = np.array(round_things, np.float64).reshape(-1, 3)
    x_px, y_px = frame.px_from_um(table[:, 0], table[:, 1])
    radius_px = (table[:, 2] / WORKING_UM).astype(np.float32)
    near = (x_px > -radius_px) & (x_px < PADDED_PX + radius_px) & (y_px > -radius_px) & (y_px < PADDED_PX + radius_px)
    return x_px[near], y_px[near], radius_px[near]


def _mask(frame: BlockFrame, round_things: Discs) -> Mask:
    """Coverage of a union of discs, 255 = inside."""
    canvas = np.zeros((PADDED_PX, PADDED_PX), np.uint8)
    discs(canvas, *_visible(frame, round_things))
    return canvas


def _soft_discs(frame: BlockFrame, round_things: Discs, textures: Textures) -> Field:
    """Coverage of a union of discs with a ragged edge, 0 to 1."""
    visible = _visible(frame, round_things)
    if len(visible[0]) == 0:
        return np.zeros((PADDED_PX, PADDED_PX), np.float32)
    depth_um = np.full((PADDED_PX, PADDED_PX), -99.0, np.float32)
    x_um, y_um = frame.grid_um(1)
    for x, y, radius in zip(*(values.tolist() for values in visible), strict=True):
        # Only the disc's own neighbourhood is touched.
        reach = radius + 40
        rows = slice(max(0, int(y - reach)), max(0, int(y + reach)))
        columns = slice(max(0, int(x - reach)), max(0, int(x + reach)))
        if depth_um[rows, columns].size == 0:
            continue
        distance = np.hypot(x_um[rows, columns] - x * WORKING_UM, y_um[rows, columns] - y * WORKING_UM)
        part = depth_um[rows, columns]
        np.maximum(part, radius * WORKING_UM - distance, out=part)
    depth_um += 5 * textures.smooth(frame, 60.0, 7.0)
    return np.clip(depth_um / 2 + 0.5, 0, 1)


def _septa(frame: BlockFrame, tissue: Architecture, textures: Textures) -> Field:
    """Fibrous septa along the zero lines of a very smooth noise, 0 to 1."""
    wavelength_um = 1300.0
    value = textures.smooth(frame, wavelength_um, 811.0 * tissue.salt)
    ragged = 1 + 0.4 * textures.smooth(frame, 90.0, 13.0)
    width = tissue.septum_um / 2 * 2 * np.pi / wavelength_um
    coverage = (width * ragged - np.abs(value)) / np.float32(2 * 2 * np.pi / wavelength_um) + 0.5
    return np.asarray(np.clip(coverage, 0, 1), np.float32)


def _cells(frame: BlockFrame, drawing: _Drawing, fibrous: Field, lumens: Mask, bank: SpriteBank, seed: int) -> Nuclei:
    """The drawn nuclei, and fibroblasts and lymphocytes scattered over the fibrous part."""
    box_um = frame.box_um(10.0)
    x_um, y_um, draw = jittered_lattice(box_um, _FIBROBLAST_SPACING_UM, 0.45, seed, _STROMA_CELL_SALT, 3)
    x_px, y_px = frame.px_from_um(x_um, y_um)
    kept = (at(fibrous, x_px, y_px) > 0.6) & (at(lumens, x_px, y_px) == 0) & (draw[0] < 0.75)
    round_cell = draw[0] < 0.12
    sprite = np.where(round_cell, bank.pick(bank.lymphocyte, draw[1]), bank.pick_spindle(draw[2] * np.pi, draw[1]))
    scattered = Nuclei(x_px, y_px, sprite).where(kept)
    if not drawing.nuclei:
        return scattered
    table = np.array(drawing.nuclei)
    drawn_x, drawn_y = frame.px_from_um(table[:, 0], table[:, 1])
    return Nuclei(
        np.concatenate([scattered.x_px, drawn_x]),
        np.concatenate([scattered.y_px, drawn_y]),
        np.concatenate([scattered.sprite, table[:, 2].astype(np.int64)]),
    )


def shade(stroma: Stroma, fibres: Field) -> tuple[Field, Field]:
    """Haematoxylin and eosin of the connective tissue itself.

    Args:
        stroma: its coverage.
        fibres: `textures.fibres`, laid over the padded block.
    """
    muscle = unit(stroma.epithelium)
    # Clefts between bundles of collagen are pale.
    e = np.clip(0.27 + 0.075 * fibres, 0.03, 0.6)
    e += muscle * (np.float32(0.33) - e)
    return 0.045 + 0.05 * muscle, e
