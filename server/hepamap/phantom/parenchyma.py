"""Plates or trabeculae of epithelial cells between sinusoids.

One painter serves both tissues: what makes liver or carcinoma of it is the `Architecture`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import PADDED_PX, WORKING_UM, BlockFrame, Field, Mask, enlarged
from hepamap.phantom.hashing import jittered_lattice
from hepamap.phantom.raster import at, discs
from hepamap.phantom.sprites import Nuclei, SpriteBank
from hepamap.phantom.style import LIVER_SALT, Architecture
from hepamap.phantom.textures import Textures

# Cells whose centre lies this far outside the padded block can still reach into it.
_REACH_UM = 20.0
# Smooth things are computed on squares of this side and enlarged.
_STEP_PX = 2


@dataclass(frozen=True)
class Layer:
    """One tissue painted over a whole block, as if it filled it."""

    h: Field
    """Haematoxylin without nuclei."""
    e: Field
    """Eosin."""
    holes: Mask
    """Coverage of fat vacuoles and lumens, 255 = empty; cut out after the nuclei are stamped."""
    nuclei: Nuclei


@dataclass(frozen=True)
class _Sinusoids:
    """Blood spaces of a block."""

    coverage: Field
    """0 to 1."""
    wave: Field
    """The field whose zero lines they follow."""
    slope: Field
    """Steepness of `wave`, per px."""


def paint(
    frame: BlockFrame,
    tissue: Architecture,
    textures: Textures,
    grain: Field,
    bank: SpriteBank,
    seed: int,
    own: NDArray[np.bool_] | None,
) -> Layer:
    """Paint a tissue over a block.

    Args:
        frame: the block.
        tissue: how the tissue is built.
        textures: the slide's noises.
        grain: `textures.grain`, laid over the padded block.
        bank: the slide's nuclei.
        seed: the slide's seed.
        own: where this tissue lies; whole cells and vacuoles are drawn whose centre lies in it. None: everywhere.
    """
    sinusoids = _sinusoids(frame, tissue, textures)
    x_px, y_px, further = _cells(frame, tissue, seed, own)
    shade, border = _shades(x_px, y_px, further[0], tissue)
    holes, fatty = _vacuoles(frame, x_px, y_px, further, tissue, textures)
    if tissue.glands > 0:
        _glands(holes, frame, tissue, seed, own)
    solid = 1 - sinusoids.coverage
    e = (tissue.cytoplasm_e * (1 + shade + 0.10 * grain) + tissue.membrane * border) * solid
    h = tissue.cytoplasm_h * (1 + 0.6 * shade + 0.22 * grain) * solid
    e += sinusoids.coverage * _blood(frame, tissue, textures)
    nuclei = _nuclei(x_px, y_px, further, sinusoids, fatty, tissue, bank)
    return Layer(np.asarray(h, np.float32), np.asarray(e, np.float32), holes, nuclei)


def _sinusoids(frame: BlockFrame, tissue: Architecture, textures: Textures) -> _Sinusoids:
    """Paint the sinusoids of a tissue."""
    side = PADDED_PX // _STEP_PX
    offset_um = 311.0 * tissue.salt
    warp_um = textures.coarse(frame, 260.0, offset_um) * np.float32(0.16 * tissue.plate_um + 5)
    wavelength_um = 2 * tissue.plate_um
    wave = textures.labyrinth(frame, wavelength_um, offset_um, _STEP_PX, enlarged(warp_um, side))
    cross = textures.crosslinks(frame, 1.6 * wavelength_um, offset_um, _STEP_PX)
    # A standardised wave rises by about 2π/λ at its zero lines. Half of the true slope goes in: where the wave is
    # flat, sinusoids widen, but not to lakes.
    usual = np.float32(2 * np.pi / wavelength_um * WORKING_UM)
    across_x, across_y = (cv2.Sobel(wave, cv2.CV_32F, dx, 1 - dx, scale=1 / 8 / _STEP_PX) for dx in (1, 0))
    slope = np.asarray(cv2.magnitude(across_x, across_y), np.float32)
    distance_px = np.abs(wave) / (0.5 * slope + 0.5 * usual)
    # Sinusoids are wide in some regions and pressed flat in others.
    regional = np.clip(1 + 0.35 * textures.coarse(frame, 420.0, offset_um + 97), 0.35, 1.7)
    half_px = enlarged(np.float32(tissue.gap_um / 2 / WORKING_UM) * regional, side)
    main = _opening(half_px, distance_px)
    links = _opening(half_px * np.float32(tissue.crosslink), np.abs(cross) * (np.float32(1.6) / usual))
    # Enlarged before it is clipped, so that walls are as sharp as the pixels.
    coverage = np.clip(enlarged(np.maximum(main, links)), 0, 1)
    return _Sinusoids(coverage, enlarged(wave), enlarged(slope))


def _opening(half_px: Field, distance_px: Field) -> Field:
    """How open a blood space is, 1 or more inside, 0 or less outside; thinner than a pixel or two, it is faint."""
    opening: Field = (half_px - distance_px) * np.float32(0.7) + np.clip(0.4 * half_px - 0.3, -0.5, 0.5)
    return opening


def _blood(frame: BlockFrame, tissue: Architecture, textures: Textures) -> Field:
    """Eosin inside sinusoids: plasma, so that they are pale and not empty, and red cells, about 7 µm wide."""
    cells = textures.crosslinks(frame, 11.0, 205.0, _STEP_PX)
    fullness = np.clip(0.9 - 0.8 * textures.coarse(frame, 150.0, 77.0), 0.2, 2.0)
    packed = np.clip(3 * (cells - enlarged(fullness, cells.shape[0])), 0, 1)
    return enlarged(np.float32(0.035) + np.float32(0.85 * tissue.blood) * packed)


def _cells(
    frame: BlockFrame, tissue: Architecture, seed: int, own: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.float64]]]:
    """Centres of all cells that a block sees, px of the padded block, with eight random numbers each."""
    box_um = frame.box_um(_REACH_UM)
    x_um, y_um, further = jittered_lattice(box_um, tissue.cell_um, 0.27, seed, 50 + tissue.salt, 8)
    x_px, y_px = frame.px_from_um(x_um, y_um)
    if own is None:
        return x_px, y_px, further
    kept = at(own, x_px, y_px)
    return x_px[kept], y_px[kept], [numbers[kept] for numbers in further]


def _shades(
    x_px: NDArray[np.float32], y_px: NDArray[np.float32], draw: NDArray[np.float64], tissue: Architecture
) -> tuple[Field, Field]:
    """The cytoplasm's shade, constant in a cell, and the cells' borders, 0 to 1; cells are Voronoi regions."""
    side = PADDED_PX // _STEP_PX
    columns, rows = ((place // _STEP_PX).astype(np.int64) for place in (x_px, y_px))
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    columns, rows = columns[inside], rows[inside]
    seeds = np.full((side, side), 255, np.uint8)
    seeds[rows, columns] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(labels.max()) + 1, np.float32)
    table[labels[rows, columns]] = tissue.cell_contrast * (2 * draw[inside] - 1) * 1.7
    border = np.zeros(labels.shape, np.float32)
    border[:, 1:] = labels[:, 1:] != labels[:, :-1]
    border[1:] += labels[1:] != labels[:-1]
    return enlarged(table[labels]), enlarged(border)


def _vacuoles(
    frame: BlockFrame,
    x_px: NDArray[np.float32],
    y_px: NDArray[np.float32],
    further: list[NDArray[np.float64]],
    tissue: Architecture,
    textures: Textures,
) -> tuple[Mask, NDArray[np.bool_]]:
    """Coverage of fat vacuoles, and which cells are all vacuole (they show no nucleus)."""
    holes = np.zeros((PADDED_PX, PADDED_PX), np.uint8)
    if tissue.fat <= 0:
        return holes, np.zeros(len(x_px), bool)
    region = at(textures.smooth(frame, 700.0, 59.0 * tissue.salt), x_px, y_px)
    fatty = further[1] < tissue.fat * np.clip(0.55 + 0.6 * region, 0, 1.3)
    radius_px = tissue.fat_um / 2 / WORKING_UM * np.exp(0.9 * (further[2] - 0.6))
    discs(holes, x_px[fatty], y_px[fatty], radius_px[fatty])
    return holes, fatty & (further[3] < 0.6)


def _glands(holes: Mask, frame: BlockFrame, tissue: Architecture, seed: int, own: NDArray[np.bool_] | None) -> None:
    """Draw the lumens of pseudoglands in place."""
    x_um, y_um, (present, size) = jittered_lattice(frame.box_um(60.0), 120.0, 0.3, seed, 60 + tissue.salt, 2)
    x_px, y_px = frame.px_from_um(x_um, y_um)
    kept = present < tissue.glands
    if own is not None:
        kept &= at(own, x_px, y_px)
    discs(holes, x_px[kept], y_px[kept], (8 + 16 * size[kept] ** 2) / WORKING_UM)


def _nuclei(
    x_px: NDArray[np.float32],
    y_px: NDArray[np.float32],
    further: list[NDArray[np.float64]],
    sinusoids: _Sinusoids,
    fatty: NDArray[np.bool_],
    tissue: Architecture,
    bank: SpriteBank,
) -> Nuclei:
    """A nucleus in each cell, moved off the sinusoids; where a cell would lie in one, perhaps a lining cell."""
    value = at(sinusoids.wave, x_px, y_px)
    slope = at(sinusoids.slope, x_px, y_px) + np.float32(1e-4)
    step = 2
    uphill_x = (at(sinusoids.wave, x_px + step, y_px) - at(sinusoids.wave, x_px - step, y_px)) / (2 * step * slope)
    uphill_y = (at(sinusoids.wave, x_px, y_px + step) - at(sinusoids.wave, x_px, y_px - step)) / (2 * step * slope)
    distance_px = np.abs(value) / slope
    gap_px = tissue.gap_um / WORKING_UM
    in_gap = distance_px < 0.5 * gap_px
    lining = in_gap & (further[5] < tissue.lining)
    # Lining cells lie along the walls; a hepatocyte's nucleus keeps clear of them.
    push_px = np.clip(0.5 * gap_px + 0.55 * tissue.nucleus_um / WORKING_UM - distance_px, 0, 5 / WORKING_UM)
    push_px = np.where(lining, 0.46 * gap_px - distance_px, push_px) * np.sign(value)
    family = bank.liver if tissue.salt == LIVER_SALT else bank.tumour
    along = np.arctan2(uphill_x, -uphill_y).astype(np.float64)
    sprite = np.where(lining, bank.pick_spindle(along, further[6]), bank.pick(family, further[4]))
    nuclei = Nuclei((x_px + push_px * uphill_x).astype(np.float32), (y_px + push_px * uphill_y).astype(np.float32), sprite)
    afloat = at(sinusoids.coverage, nuclei.x_px, nuclei.y_px) > 0.5
    return nuclei.where(np.where(in_gap, lining, ~afloat & ~fatty))
