"""What goes wrong between the knife and the scanner: ink, folds, blur, bubbles, pale stain, black borders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from hepamap.phantom.frame import BlockFrame, Field
from hepamap.phantom.hashing import generator
from hepamap.phantom.scene import Scene
from hepamap.phantom.shapes import lobulated, stroke, wavy_line
from hepamap.phantom.spec import ARTEFACTS, Artefact, PhantomSpec

_INKS = ((40, 70, 160), (30, 110, 70), (25, 25, 30), (20, 90, 150))
_EMPTY = Polygon()
_CHANCE: dict[Artefact, float] = {
    "ink": 0.25, "fold": 0.3, "blur": 0.25, "bubble": 0.15, "pale": 0.25, "black_border": 0.15,
}  # fmt: skip


@dataclass(frozen=True)
class Artefacts:
    """The artefacts of one slide; outlines in µm."""

    ink: BaseGeometry = _EMPTY
    ink_rgb: tuple[int, int, int] = _INKS[0]
    folds: BaseGeometry = _EMPTY
    blurred: BaseGeometry = _EMPTY
    blur_px: float = 5.0
    bubbles: tuple[Polygon, ...] = field(default=())
    pale: BaseGeometry = _EMPTY
    black: BaseGeometry = _EMPTY

    def footprints(self) -> list[BaseGeometry]:
        """Outlines of what is seen on blank glass too."""
        return [self.ink.buffer(10), *(bubble.buffer(10) for bubble in self.bubbles), self.black]

    def on_stain(self, frame: BlockFrame, h: Field, e: Field) -> tuple[Field, Field]:
        """Folds (tissue lies double) and pale stain, on concentrations."""
        for outline, factor, softness_um in ((self.folds, 0.85, 5.0), (self.pale, -0.38, 60.0)):
            if not frame.clip(outline, softness_um).is_empty:
                change = 1 + np.float32(factor) * _soft(frame, outline, softness_um)
                h, e = h * change, e * change
        return h, e

    def on_colour(self, frame: BlockFrame, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Blur, ink, bubbles and black borders, on colour."""
        if not frame.clip(self.blurred, 60.0).is_empty:
            soft = np.asarray(cv2.GaussianBlur(rgb, (0, 0), self.blur_px), np.uint8)
            rgb = _mix(rgb, soft, _soft(frame, self.blurred, 60.0))
        if not frame.clip(self.ink, 10.0).is_empty:
            film = (np.array(self.ink_rgb) + 25) / 255
            rgb = _mix(rgb, _rounded(rgb * film.astype(np.float32)), np.float32(0.92) * _soft(frame, self.ink, 8.0))
        for bubble in self.bubbles:
            if not frame.clip(bubble, 20.0).is_empty:
                rgb = _with_bubble(frame, rgb, bubble)
        if not frame.clip(self.black).is_empty:
            rgb = np.where(frame.fill(self.black)[..., None] > 0, np.uint8(6), rgb)
        return rgb


def draw(spec: PhantomSpec, scene: Scene) -> Artefacts:
    """Choose and place the artefacts of a slide."""
    rng = generator(spec.seed, 51)
    drawn = [name for name in ARTEFACTS if rng.uniform() < _CHANCE[name]]
    chosen = drawn if spec.artefacts is True else list(spec.artefacts or ())
    # Every artefact has its own numbers: forcing one does not move another.
    ink = _ink(generator(spec.seed, 52), spec) if "ink" in chosen else (_EMPTY, _INKS[0])
    blur_rng = generator(spec.seed, 54)
    return Artefacts(
        ink=ink[0],
        ink_rgb=ink[1],
        folds=_folds(generator(spec.seed, 53), scene) if "fold" in chosen else _EMPTY,
        blurred=_patch(blur_rng, scene, 0.16) if "blur" in chosen else _EMPTY,
        blur_px=blur_rng.uniform(3.0, 6.0),
        bubbles=_bubbles(generator(spec.seed, 55), spec) if "bubble" in chosen else (),
        pale=_patch(generator(spec.seed, 56), scene, 0.3) if "pale" in chosen else _EMPTY,
        black=_black(generator(spec.seed, 57), spec) if "black_border" in chosen else _EMPTY,
    )


def _soft(frame: BlockFrame, outline: BaseGeometry, softness_um: float) -> Field:
    """Coverage of an outline, 0 to 1, with a soft edge."""
    return np.asarray(np.clip(frame.signed_distance_um(outline) / np.float32(softness_um) + 0.5, 0, 1), np.float32)


def _mix(below: NDArray[np.uint8], above: NDArray[np.uint8], share: Field) -> NDArray[np.uint8]:
    """Two pictures, weighted pixel by pixel."""
    return _rounded(below + share[..., None] * (above.astype(np.float32) - below))


def _rounded(light: NDArray[Any]) -> NDArray[np.uint8]:
    """Light as uint8, rounded and saturated."""
    return np.asarray(cv2.convertScaleAbs(light), np.uint8)


def _with_bubble(frame: BlockFrame, rgb: NDArray[np.uint8], bubble: Polygon) -> NDArray[np.uint8]:
    """An air bubble under the cover slip: a dark rim, and a slightly dull inside."""
    depth_um = frame.signed_distance_um(bubble)
    rim = np.exp(-(((depth_um - 6) / 7) ** 2))
    light = 1 - 0.75 * rim - 0.04 * (depth_um > 0)
    return _rounded(rgb * light[..., None].astype(np.float32))


def _ink(rng: np.random.Generator, spec: PhantomSpec) -> tuple[BaseGeometry, tuple[int, int, int]]:
    """One or two strokes of a marker."""
    colour = _INKS[int(rng.integers(len(_INKS)))]
    width_um = float(np.clip(0.05 * min(spec.width_um, spec.height_um), 80, 600))
    strokes = []
    for _ in range(int(rng.integers(1, 3))):
        side = rng.uniform(0.03, 0.12) if rng.uniform() < 0.5 else rng.uniform(0.88, 0.97)
        start = (spec.width_um * rng.uniform(0.05, 0.5), spec.height_um * side)
        end = (start[0] + spec.width_um * rng.uniform(0.15, 0.4), start[1] + spec.height_um * rng.uniform(-0.08, 0.08))
        strokes.append(stroke(wavy_line(rng, start, end, 0.6 * width_um), width_um))
    return shapely.union_all(strokes), colour


def _folds(rng: np.random.Generator, scene: Scene) -> BaseGeometry:
    """One to three narrow folds across the tissue."""
    if scene.tissue.is_empty:
        return _EMPTY
    left, top, right, bottom = scene.tissue.bounds
    size_um = min(right - left, bottom - top)
    folds = []
    for _ in range(int(rng.integers(1, 4))):
        x, y, angle = rng.uniform(left, right), rng.uniform(top, bottom), rng.uniform(0, np.pi)
        half = rng.uniform(0.1, 0.3) * size_um
        line = wavy_line(
            rng,
            (x - half * np.cos(angle), y - half * np.sin(angle)),
            (x + half * np.cos(angle), y + half * np.sin(angle)),
            0.1 * half,
        )
        folds.append(stroke(line, rng.uniform(14, 40)))
    return shapely.union_all(folds)


def _patch(rng: np.random.Generator, scene: Scene, share: float) -> BaseGeometry:
    """A region that covers a share of the tissue's extent."""
    if scene.tissue.is_empty:
        return _EMPTY
    left, top, right, bottom = scene.tissue.bounds
    centre = (rng.uniform(left, right), rng.uniform(top, bottom))
    radii = (share * (right - left) * rng.uniform(0.5, 1), share * (bottom - top) * rng.uniform(0.5, 1))
    return lobulated(rng, centre, radii, roughness=0.08).buffer(0)


def _bubbles(rng: np.random.Generator, spec: PhantomSpec) -> tuple[Polygon, ...]:
    """A few air bubbles."""
    largest_um = float(np.clip(0.08 * min(spec.width_um, spec.height_um), 60, 600))
    return tuple(
        lobulated(
            rng,
            (spec.width_um * rng.uniform(0.05, 0.95), spec.height_um * rng.uniform(0.05, 0.95)),
            (largest_um * rng.uniform(0.3, 1.0),) * 2,
            roughness=0.02,
            lobes=3,
        )
        for _ in range(int(rng.integers(1, 5)))
    )


def _black(rng: np.random.Generator, spec: PhantomSpec) -> BaseGeometry:
    """Black strips where the scanner looked past the slide."""
    depth_um = 0.03 * min(spec.width_um, spec.height_um) * rng.uniform(0.4, 1.0)
    # They go on beyond the slide's edge, so that no light is blurred in from there.
    out_um = -100.0
    right_um, bottom_um = spec.width_um - out_um, spec.height_um - out_um
    strips = [
        box(out_um, out_um, depth_um, bottom_um),
        box(out_um, out_um, right_um, depth_um),
        box(spec.width_um - depth_um, out_um, right_um, bottom_um),
        box(out_um, spec.height_um - depth_um, right_um, bottom_um),
    ]
    count = int(rng.integers(1, 3))
    chosen = rng.permutation(4)[:count]
    return shapely.union_all([strips[int(side)] for side in chosen])
