"""Plates or trabeculae of epithelial cells between sinusoids.

One painter serves both tissues: what makes liver or carcinoma of it is the `Architecture`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import PADDED_PX, WORKING_UM, BlockFrame, Field, Mask
from hepamap.phantom.hashing import jittered_lattice
from hepamap.phantom.sprites import Nuclei, SpriteBank
from hepamap.phantom.style import LIVER_SALT, Architecture
from hepamap.phantom.textures import Textures

# Cells whose centre lies this far outside the padded block can still reach into it.
_REACH_UM = 20.0
_DRAW_SHIFT = 4


@dataclass(frozen=True)
class Layer:
    """One tissue painted over a whole block, as if it filled it."""

    h: Field
    """Haematoxylin without nuclei."""
    e: Field
    """Eosin."""
    holes: Mask
    """Coverage of fat vacuoles and gland lumens, 255 = empty; cut out after the nuclei are stamped."""
    nuclei: Nuclei


def paint(frame: BlockFrame, tissue: Architecture, textures: Textures, grain: Field, bank: SpriteBank, seed: int) -> Layer:
    """Paint a tissue over a block.

    Args:
        frame: the block.
        tissue: how the tissue is built.
        textures: the slide's noises.
        grain: `textures.grain`, laid over the padded block.
        bank: the slide's nuclei.
        seed: the slide's seed.
    """
    sinusoid, main = _sinusoids(frame, tissue, textures)
    x_px, y_px, further = _cells(frame, tissue, seed)
    shade, border = _shades(x_px, y_px, further[0], tissue)
    holes, fatty = _vacuoles(frame, x_px, y_px, further, tissue, textures, seed)
    solid = 1 - sinusoid
    texture = 1 + shade + 0.10 * grain
    e = (tissue.cytoplasm_e * texture + tissue.membrane * border) * solid
    h = tissue.cytoplasm_h * (1 + 0.6 * shade + 0.22 * grain) * solid
    # Plasma and lining: a sinusoid is pale, not empty.
    e += sinusoid * (0.035 + 0.35 * tissue.blood * np.clip(grain + 0.4, 0, 1.5))
    return Layer(
        np.asarray(h, np.float32),
        np.asarray(e, np.float32),
        holes,
        _nuclei(x_px, y_px, further, main, sinusoid, fatty, tissue, bank),
    )


def _sinusoids(frame: BlockFrame, tissue: Architecture, textures: Textures) -> tuple[Field, Field]:
    """Coverage of sinusoids, 0 to 1, and the field whose zero lines they follow."""
    offset_um = 311.0 * tissue.salt
    warp_um = textures.smooth(frame, 260.0, offset_um) * np.float32(0.16 * tissue.plate_um + 5)
    wavelength_um = 2 * tissue.plate_um
    main = textures.labyrinth(frame, wavelength_um, offset_um, warp_um)
    cross = textures.crosslinks(frame, 1.6 * wavelength_um, offset_um)
    # Near a zero line a standardised wave rises by 2π/λ per µm: so wide is a gap of gap_um.
    slope = 2 * np.pi / wavelength_um
    width = np.float32(tissue.gap_um / 2 * slope)
    # Sinusoids are wide in some regions and pressed flat in others.
    regional = np.clip(1 + 0.35 * textures.smooth(frame, 420.0, offset_um + 97), 0.35, 2.0)
    softness = np.float32(0.9 * slope)
    open_main = width * regional - np.abs(main)
    open_cross = width * regional * np.float32(tissue.crosslink / 1.6) - np.abs(cross)
    return np.clip(np.maximum(open_main, open_cross) / softness + 0.5, 0, 1), main


def _cells(
    frame: BlockFrame, tissue: Architecture, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.float64]]]:
    """Centres of all cells that a block sees, px of the padded block, with eight random numbers each."""
    box_um = frame.box_um(_REACH_UM)
    x_um, y_um, further = jittered_lattice(box_um, tissue.cell_um, 0.27, seed, 50 + tissue.salt, 8)
    x_px, y_px = frame.px_from_um(x_um, y_um)
    return x_px, y_px, further


def _shades(
    x_px: NDArray[np.float32], y_px: NDArray[np.float32], draw: NDArray[np.float64], tissue: Architecture
) -> tuple[Field, Field]:
    """The cytoplasm's shade, constant in a cell, and the cells' borders, 0 to 1; cells are Voronoi regions."""
    columns, rows = x_px.astype(np.int64), y_px.astype(np.int64)
    inside = (columns >= 0) & (columns < PADDED_PX) & (rows >= 0) & (rows < PADDED_PX)
    seeds = np.full((PADDED_PX, PADDED_PX), 255, np.uint8)
    seeds[rows[inside], columns[inside]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(labels.max()) + 1, np.float32)
    table[labels[rows[inside], columns[inside]]] = tissue.cell_contrast * (2 * draw[inside] - 1) * 1.7
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, 1:] = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    border = cv2.GaussianBlur(edge * np.uint8(255), (5, 5), 0.9)
    shade = cv2.blur(table[labels], (3, 3))
    return np.asarray(shade, np.float32), border.astype(np.float32) * np.float32(1 / 150)


def _vacuoles(
    frame: BlockFrame,
    x_px: NDArray[np.float32],
    y_px: NDArray[np.float32],
    further: list[NDArray[np.float64]],
    tissue: Architecture,
    textures: Textures,
    seed: int,
) -> tuple[Mask, NDArray[np.bool_]]:
    """Coverage of fat vacuoles and pseudogland lumens, and which cells are all vacuole (they show no nucleus)."""
    holes = np.zeros((PADDED_PX, PADDED_PX), np.uint8)
    if tissue.glands > 0:
        _glands(holes, frame, tissue, seed)
    if tissue.fat <= 0:
        return holes, np.zeros(len(x_px), bool)
    region = _at(textures.smooth(frame, 700.0, 59.0 * tissue.salt), x_px, y_px)
    fatty = further[1] < tissue.fat * np.clip(0.55 + 0.6 * region, 0, 1.3)
    radius_px = tissue.fat_um / 2 / WORKING_UM * np.exp(0.7 * (further[2] - 0.6))
    _discs(holes, x_px[fatty], y_px[fatty], radius_px[fatty])
    return holes, fatty & (further[3] < 0.6)


def _glands(holes: Mask, frame: BlockFrame, tissue: Architecture, seed: int) -> None:
    """Draw the lumens of pseudoglands in place."""
    x_um, y_um, (present, size) = jittered_lattice(frame.box_um(60.0), 120.0, 0.3, seed, 60 + tissue.salt, 2)
    kept = present < tissue.glands
    x_px, y_px = frame.px_from_um(x_um[kept], y_um[kept])
    _discs(holes, x_px, y_px, (8 + 16 * size[kept] ** 2) / WORKING_UM)


def _discs(canvas: Mask, x_px: NDArray[np.float32], y_px: NDArray[np.float32], radius_px: NDArray[np.float64]) -> None:
    """Draw filled discs in place."""
    scale = 1 << _DRAW_SHIFT
    for x, y, radius in zip(
        ((x_px - 0.5) * scale).astype(int).tolist(),
        ((y_px - 0.5) * scale).astype(int).tolist(),
        (radius_px * scale).astype(int).tolist(),
        strict=True,
    ):
        cv2.circle(canvas, (x, y), radius, 255, -1, cv2.LINE_AA, _DRAW_SHIFT)


def _at(field: Field, x_px: NDArray[np.float32], y_px: NDArray[np.float32]) -> NDArray[np.float32]:
    """A field at points; points outside read the nearest edge."""
    rows = np.clip(y_px.astype(np.int64), 0, PADDED_PX - 1)
    columns = np.clip(x_px.astype(np.int64), 0, PADDED_PX - 1)
    return np.asarray(field[rows, columns], np.float32)


def _nuclei(
    x_px: NDArray[np.float32],
    y_px: NDArray[np.float32],
    further: list[NDArray[np.float64]],
    main: Field,
    sinusoid: Field,
    fatty: NDArray[np.bool_],
    tissue: Architecture,
    bank: SpriteBank,
) -> Nuclei:
    """A nucleus in each cell, moved off the sinusoids; where a cell would lie in one, perhaps a lining cell."""
    value = _at(main, x_px, y_px)
    step = 2
    slope_x = (_at(main, x_px + step, y_px) - _at(main, x_px - step, y_px)) / (2 * step)
    slope_y = (_at(main, x_px, y_px + step) - _at(main, x_px, y_px - step)) / (2 * step)
    slope = np.hypot(slope_x, slope_y) + np.float32(1e-4)
    distance_px = np.abs(value) / slope
    wanted_px = (tissue.gap_um / 2 + 0.55 * tissue.nucleus_um) / WORKING_UM
    in_gap = distance_px < 0.5 * tissue.gap_um / WORKING_UM
    push_px = np.clip(wanted_px - distance_px, 0, 5 / WORKING_UM) * np.sign(value) / slope
    family = bank.liver if tissue.salt == LIVER_SALT else bank.tumour
    sprite = bank.pick(family, further[4])
    spindle = in_gap & (further[5] < tissue.lining)
    along = np.arctan2(slope_x, -slope_y).astype(np.float64)
    sprite = np.where(spindle, bank.pick_spindle(along, further[6]), sprite)
    move = np.where(in_gap, 0, push_px)
    nuclei = Nuclei((x_px + move * slope_x).astype(np.float32), (y_px + move * slope_y).astype(np.float32), sprite)
    afloat = _at(sinusoid, nuclei.x_px, nuclei.y_px) > 0.5
    return nuclei.where(np.where(in_gap, spindle, ~afloat & ~fatty))
