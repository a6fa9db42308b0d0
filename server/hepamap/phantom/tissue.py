"""One tissue of one slide: parenchyma, connective tissue and necrosis together."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom import parenchyma, stroma
from hepamap.phantom.frame import BlockFrame, Field, Mask
from hepamap.phantom.raster import at
from hepamap.phantom.scene import Scene
from hepamap.phantom.sprites import Nuclei, SpriteBank
from hepamap.phantom.style import LIVER_SALT, Architecture
from hepamap.phantom.textures import Textures

_NECROSIS_EDGE_UM = 25.0


@dataclass(frozen=True)
class Parts:
    """What a block is put together from; arrays of the padded block."""

    h: Field
    """Haematoxylin without nuclei."""
    e: Field
    """Eosin."""
    holes: Mask
    """Coverage of what is empty, 255 = empty; cut out last."""
    nuclei: Nuclei

    def joined(self, other: Parts, where: NDArray[np.bool_]) -> Parts:
        """These parts, the other's inside `where`. Nuclei and holes are whole: each knows its own tissue already."""
        return Parts(
            np.where(where, other.h, self.h),
            np.where(where, other.e, self.e),
            np.maximum(self.holes, other.holes),
            self.nuclei.and_those_of(other.nuclei),
        )


@dataclass(frozen=True)
class TissuePainter:
    """Paints liver or carcinoma over blocks."""

    architecture: Architecture
    scene: Scene
    textures: Textures
    bank: SpriteBank
    seed: int

    def paint(self, frame: BlockFrame, own: NDArray[np.bool_] | None) -> Parts:
        """Paint over a whole block.

        Args:
            frame: the block.
            own: where this tissue lies; cells, vacuoles and vessels are drawn whose centre lies in it. None: everywhere.
        """
        is_liver = self.architecture.salt == LIVER_SALT
        grain = self.textures.grain
        layer = parenchyma.paint(frame, self.architecture, self.textures, grain, self.bank, self.seed, own)
        fibrous = stroma.paint(
            frame,
            tissue=self.architecture,
            clear_of=self.scene.tumour if is_liver else None,
            capsule=self._capsule(frame) if is_liver else None,
            textures=self.textures,
            bank=self.bank,
            seed=self.seed,
        )
        parts = self._with_stroma(Parts(layer.h, layer.e, layer.holes, layer.nuclei), fibrous, own)
        return parts if is_liver else self._with_necrosis(frame, parts, grain)

    def _with_stroma(self, parts: Parts, fibrous: stroma.Stroma, own: NDArray[np.bool_] | None) -> Parts:
        """Connective tissue over parenchyma; the cells below it go, its own come."""
        coverage, lumens = fibrous.fibrous, fibrous.lumens
        if not coverage.any():
            return parts
        h, e = stroma.shade(fibrous, self.textures.fibres)
        below, above = parts.nuclei, fibrous.nuclei
        if own is not None:
            above = above.where(at(own, above.x_px, above.y_px))
        free = (at(coverage, below.x_px, below.y_px) < 0.5) & (at(lumens, below.x_px, below.y_px) == 0)
        return Parts(
            parts.h + coverage * (h - parts.h),
            parts.e + coverage * (e - parts.e),
            np.maximum(np.where(coverage > 0.5, np.uint8(0), parts.holes), lumens),
            below.where(free).and_those_of(above),
        )

    def _capsule(self, frame: BlockFrame) -> Field | None:
        """Coverage by the capsule, which lies just outside the tumour; None where there is none."""
        if self.scene.capsule_um <= 0 or frame.clip(self.scene.tumour, self.scene.capsule_um + 20).is_empty:
            return None
        outside_um = -frame.signed_distance_um(self.scene.tumour)
        width_um = self.scene.capsule_um * (1 + 0.3 * self.textures.smooth(frame, 300.0, 19.0))
        return np.clip((width_um - outside_um) / 3 + 0.5, 0, 1)

    def _with_necrosis(self, frame: BlockFrame, parts: Parts, grain: Field) -> Parts:
        """Dead tumour: ghosts of cells, smeared eosin and nuclear dust."""
        if frame.clip(self.scene.necrosis, 2 * _NECROSIS_EDGE_UM).is_empty:
            return parts
        depth_um = frame.signed_distance_um(self.scene.necrosis) + 9 * self.textures.smooth(frame, 70.0, 23.0)
        dead = np.clip(depth_um / np.float32(_NECROSIS_EDGE_UM) + 0.5, 0, 1)
        ghosts = np.asarray(cv2.blur(self.bank.stamp(parts.nuclei, dead.shape[0]), (9, 9)), np.float32)
        h = 0.05 + 0.10 * ghosts + np.clip(grain - 1.9, 0, 1) * np.float32(0.9)
        e = np.clip(0.30 + 0.05 * grain + 0.05 * self.textures.fibres, 0.03, 0.6)
        alive = at(dead, parts.nuclei.x_px, parts.nuclei.y_px) < 0.5
        return Parts(
            parts.h + dead * (h - parts.h),
            parts.e + dead * (e - parts.e),
            np.where(dead > 0.5, np.uint8(0), parts.holes),
            parts.nuclei.where(alive),
        )
