"""Puts one block together: tissues, connective tissue, necrosis, stain."""

from __future__ import annotations

import math
from collections import OrderedDict

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from hepamap.phantom import artefacts
from hepamap.phantom.frame import BLOCK_PX, MARGIN_PX, PADDED_PX, BlockFrame, Field, enlarged
from hepamap.phantom.raster import unit
from hepamap.phantom.scene import Scene, build_scene
from hepamap.phantom.spec import PhantomSpec
from hepamap.phantom.sprites import SpriteBank
from hepamap.phantom.style import carcinoma, liver, stain_of
from hepamap.phantom.textures import Textures
from hepamap.phantom.tissue import TissuePainter

# Blocks kept for the windows next to them: 3 MB each.
_KEPT_BLOCKS = 64
_FRAY_UM = 2.5
_LN10 = math.log(10)

Pixels = NDArray[np.uint8]
Stains = tuple[Field, Field]


class Painter:
    """Paints the blocks of one slide; pure in the sense that a block always comes out the same."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.scene: Scene = build_scene(spec)
        self.stain = stain_of(spec)
        self.artefacts = artefacts.draw(spec, self.scene)
        patient = spec.seed if spec.tumour is None else spec.tumour
        self.architectures = liver(patient), carcinoma(patient)
        self._textures = Textures.of_seed(spec.seed)
        self._grain = self._textures.grain
        self._bank = SpriteBank.of(spec.seed, *self.architectures)
        self._liver, self._tumour = (
            TissuePainter(architecture, self.scene, self._textures, self._bank, spec.seed) for architecture in self.architectures
        )
        self._blocks: OrderedDict[tuple[int, int], Pixels | None] = OrderedDict()
        self._content = shapely.union_all([self.scene.tissue.buffer(12.0), *self.artefacts.footprints()])
        shapely.prepare(self._content)

    def is_glass(self, box_um: tuple[float, float, float, float]) -> bool:
        """Whether nothing lies in a box (left, top, right, bottom), µm."""
        return not self._content.intersects(shapely.box(*box_um))

    def block(self, column: int, row: int) -> Pixels | None:
        """One block of the world, RGB, shape (BLOCK_PX, BLOCK_PX, 3); None where it is blank glass."""
        key = (column, row)
        if key not in self._blocks:
            frame = BlockFrame(column, row)
            self._blocks[key] = None if self.is_glass(frame.box_um()) else self._paint(frame)
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _paint(self, frame: BlockFrame) -> Pixels:
        """Paint a block with its margin and cut the margin off."""
        tissue = self._tissue_coverage(frame)
        if tissue is None:
            h = e = np.zeros((PADDED_PX, PADDED_PX), np.float32)
        else:
            h, e = self._concentrations(frame)
            h, e = self.artefacts.on_stain(frame, h * tissue, e * tissue)
        rgb = self.artefacts.on_colour(frame, self._stained(h, e))
        inner = slice(MARGIN_PX, MARGIN_PX + BLOCK_PX)
        return np.ascontiguousarray(rgb[inner, inner])

    def _tissue_coverage(self, frame: BlockFrame) -> Field | None:
        """How much tissue covers each pixel, 0 to 1, with a frayed edge; None where there is none."""
        clipped = frame.clip(self.scene.tissue, 20.0)
        if clipped.is_empty:
            return None
        depth_um = frame.signed_distance_um(self.scene.tissue)
        if depth_um.min() > 20:
            return np.ones((PADDED_PX, PADDED_PX), np.float32)
        fray = self._textures.smooth(frame, 40.0, 5.0) + 0.5 * self._grain
        return np.clip((depth_um + _FRAY_UM * fray) * 0.7 + 0.5, 0, 1)

    def _concentrations(self, frame: BlockFrame) -> Stains:
        """Haematoxylin and eosin of a block that is all tissue."""
        tumour = frame.fill(self.scene.tumour) > 0
        if not tumour.any():
            parts = self._liver.paint(frame, None)
        elif tumour.all():
            parts = self._tumour.paint(frame, None)
        else:
            parts = self._liver.paint(frame, ~tumour).joined(self._tumour.paint(frame, tumour), tumour)
        clearing = np.array([tissue.architecture.clearing for tissue in (self._liver, self._tumour)], np.float32)
        nuclei = self._bank.stamp(parts.nuclei, PADDED_PX)
        solid = 1 - unit(parts.holes)
        h = (parts.h + nuclei * (1 + 0.10 * self._grain)) * solid
        e = parts.e * (1 - clearing[tumour.astype(np.uint8)] * np.minimum(nuclei * 2.5, 1)) * solid
        return self._regional(frame, h, e)

    def _regional(self, frame: BlockFrame, h: Field, e: Field) -> Stains:
        """Uneven staining, in both tissues alike."""
        coarse, style = self._textures.coarse, self.stain
        shade_h = coarse(frame, 900.0, 31.0) + 0.7 * coarse(frame, 230.0, 37.0)
        shade_e = coarse(frame, 900.0, 41.0) + 0.7 * coarse(frame, 230.0, 43.0)
        factor_h = np.float32(style.strength) * np.clip(1 + np.float32(style.shade_h) * shade_h, 0.5, 1.6)
        factor_e = np.float32(style.strength) * np.clip(1 + np.float32(style.shade_e) * shade_e, 0.5, 1.6)
        return h * enlarged(factor_h), e * enlarged(factor_e)

    def _stained(self, h: Field, e: Field) -> Pixels:
        """Concentrations as colour, by Beer and Lambert; RGB uint8."""
        channels = zip(self.stain.haematoxylin.tolist(), self.stain.eosin.tolist(), self.stain.white.tolist(), strict=True)
        # White goes into the exponent: one pass less.
        light = [cv2.exp(cv2.addWeighted(h, -_LN10 * of_h, e, -_LN10 * of_e, math.log(white))) for of_h, of_e, white in channels]
        return np.asarray(cv2.convertScaleAbs(cv2.merge(light)), np.uint8)
