"""Nuclei: small pictures made once per slide and stamped into blocks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import WORKING_UM, Field, Mask
from hepamap.phantom.hashing import generator
from hepamap.phantom.style import Architecture

# A sprite's value: this much is haematoxylin 1. Dense nuclei reach 1.6 times that before they saturate.
FULL = 160.0
# Sprites are drawn this many times larger and averaged down, so that their outlines are smooth.
_OVERSAMPLING = 3
DIRECTIONS = 16
"""Directions in half a turn that spindle-shaped nuclei are drawn in."""
_VARIANTS = 4
PAD_PX = 64
"""Border that a canvas needs so that every nucleus centred in it can be stamped whole."""


@dataclass(frozen=True)
class Nuclei:
    """Nuclei to stamp: centres in px of the padded block, and the sprite of each. Arrays of one length."""

    x_px: NDArray[np.float32]
    y_px: NDArray[np.float32]
    sprite: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> Nuclei:
        """Those for which `keep` is true."""
        return Nuclei(self.x_px[keep], self.y_px[keep], self.sprite[keep])

    def and_those_of(self, other: Nuclei) -> Nuclei:
        """Both together."""
        return Nuclei(
            np.concatenate([self.x_px, other.x_px]),
            np.concatenate([self.y_px, other.y_px]),
            np.concatenate([self.sprite, other.sprite]),
        )


@dataclass(frozen=True)
class SpriteBank:
    """All nuclei of one slide; a nucleus is named by its index in `sprites`."""

    sprites: list[Mask]
    liver: range
    tumour: range
    lymphocyte: range
    spindle: range
    duct: range

    @classmethod
    def of(cls, seed: int, liver: Architecture, tumour: Architecture) -> SpriteBank:
        """Draw the nuclei of one slide."""
        rng = generator(seed, 41)
        sprites: list[Mask] = []

        def add(pictures: list[Mask]) -> range:
            sprites.extend(pictures)
            return range(len(sprites) - len(pictures), len(sprites))

        return cls(
            liver=add([_epithelial(rng, liver) for _ in range(48)]),
            tumour=add([_epithelial(rng, tumour) for _ in range(128)]),
            lymphocyte=add([_nucleus(rng, rng.normal(5.4, 0.3), 1.1, 0.0, 1.15, 0.10, 0.03) for _ in range(16)]),
            spindle=add([_spindle(rng, step) for step in range(DIRECTIONS) for _ in range(_VARIANTS)]),
            duct=add([_nucleus(rng, rng.normal(6.0, 0.4), 1.15, rng.uniform(0, 3.1), 0.85, 0.2, 0.03) for _ in range(16)]),
            sprites=sprites,
        )

    def pick(self, family: range, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """A sprite of a family for each number in [0, 1)."""
        return family.start + (uniform * len(family)).astype(np.int64)

    def pick_spindle(self, angle: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """A spindle along each angle (radians, from x towards y)."""
        step = np.round(angle / np.pi * DIRECTIONS).astype(np.int64) % DIRECTIONS
        return self.spindle.start + step * _VARIANTS + (uniform * _VARIANTS).astype(np.int64)

    def stamp(self, nuclei: Nuclei, side_px: int) -> Field:
        """Haematoxylin of all nuclei on a square block, shape (side_px, side_px); overlaps keep the darker one."""
        canvas = np.zeros((side_px + 2 * PAD_PX, side_px + 2 * PAD_PX), np.uint8)
        inside = (nuclei.x_px > -16) & (nuclei.x_px < side_px + 16) & (nuclei.y_px > -16) & (nuclei.y_px < side_px + 16)
        kept = nuclei.where(inside)
        for x, y, index in zip(
            (kept.x_px + PAD_PX).astype(int).tolist(),
            (kept.y_px + PAD_PX).astype(int).tolist(),
            kept.sprite.tolist(),
            strict=True,
        ):
            sprite = self.sprites[index]
            height, width = sprite.shape
            top, left = y - height // 2, x - width // 2
            under = canvas[top : top + height, left : left + width]
            np.maximum(under, sprite, out=under)
        return canvas[PAD_PX:-PAD_PX, PAD_PX:-PAD_PX].astype(np.float32) * np.float32(1 / FULL)


def _epithelial(rng: np.random.Generator, tissue: Architecture) -> Mask:
    """A hepatocyte's or a tumour cell's nucleus."""
    diameter = tissue.nucleus_um * float(np.exp(rng.normal(0, tissue.nucleus_spread)))
    diameter = float(np.clip(diameter, 0.6 * tissue.nucleus_um, 1.55 * tissue.nucleus_um))
    aspect = 1 + abs(rng.normal(0, 2.0 * tissue.irregularity))
    stain = tissue.nucleus_stain * float(np.clip(rng.normal(1, tissue.nucleus_contrast), 0.5, 1.9))
    clumps = 0.12 + 2.0 * tissue.irregularity
    return _nucleus(rng, diameter, aspect, rng.uniform(0, np.pi), stain, clumps, tissue.irregularity)


def _spindle(rng: np.random.Generator, step: int) -> Mask:
    """A lining cell or fibroblast seen edge on."""
    aspect = rng.uniform(2.4, 3.6)
    return _nucleus(rng, rng.uniform(4.6, 5.6), aspect, step * np.pi / DIRECTIONS, rng.uniform(0.7, 0.95), 0.1, 0.02)


def _nucleus(
    rng: np.random.Generator,
    diameter_um: float,
    aspect: float,
    angle: float,
    stain: float,
    clumps: float,
    irregularity: float,
) -> Mask:
    """Draw one nucleus.

    Args:
        rng: draws its shape and chromatin.
        diameter_um: diameter of a disc of the same area, µm.
        aspect: length over width.
        angle: direction of its length, radians from x towards y.
        stain: mean haematoxylin.
        clumps: contrast of its chromatin.
        irregularity: roughness of its outline.

    Returns:
        Haematoxylin × FULL, uint8, just large enough.
    """
    radius = diameter_um / 2 / WORKING_UM * _OVERSAMPLING
    half = int(np.ceil(radius * np.sqrt(aspect) * 1.35 / _OVERSAMPLING)) + 1
    side = 2 * half * _OVERSAMPLING
    y, x = np.mgrid[:side, :side] - (side - 1) / 2 + rng.uniform(-2, 2)
    u = (x * np.cos(angle) + y * np.sin(angle)) / (radius * np.sqrt(aspect))
    v = (-x * np.sin(angle) + y * np.cos(angle)) * np.sqrt(aspect) / radius
    phase = rng.uniform(0, 2 * np.pi, 3)
    theta = np.arctan2(v, u)
    rough = sum(np.cos((k + 2) * theta + phase[k]) for k in range(3))
    depth = 1 - np.hypot(u, v) / (1 + irregularity * rough)
    noise = rng.standard_normal((side, side), np.float32)
    chromatin = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.5 / WORKING_UM * _OVERSAMPLING), np.float32)
    chromatin = chromatin / max(float(chromatin.std()), 1e-9)
    # Chromatin lies along the membrane: the last tenth or two of the radius is darker.
    rim = np.exp(-((depth / 0.16) ** 2))
    value = stain * (0.86 + clumps * chromatin + 0.45 * rim)
    if irregularity > 0.02:
        spot = rng.uniform(-0.35, 0.35, 2)
        value += stain * 0.9 * np.exp(-(((u - spot[0]) ** 2 + (v - spot[1]) ** 2) / 0.045))
    value *= np.clip(depth * radius / _OVERSAMPLING + 0.5, 0, 1)
    small = cv2.resize(value, (2 * half, 2 * half), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(small * FULL, 0, 255), np.uint8)
