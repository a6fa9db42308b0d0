"""Puts one block together: tissues, connective tissue, necrosis, stain."""

from __future__ import annotations

from collections import OrderedDict

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from hepamap.phantom import artefacts, parenchyma, stroma
from hepamap.phantom.frame import BLOCK_PX, MARGIN_PX, PADDED_PX, BlockFrame, Field
from hepamap.phantom.scene import Scene, build_scene
from hepamap.phantom.spec import PhantomSpec
from hepamap.phantom.sprites import Nuclei, SpriteBank
from hepamap.phantom.style import NUCLEAR_CLEARING, Architecture, carcinoma, liver, stain_of
from hepamap.phantom.textures import Textures, tiled

# Blocks kept for the windows next to them: 3 MB each.
_KEPT_BLOCKS = 64
_FRAY_UM = 2.5

Pixels = NDArray[np.uint8]
Stains = tuple[Field, Field]


class Painter:
    """Paints the blocks of one slide; pure in the sense that a block always comes out the same."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.scene: Scene = build_scene(spec)
        self.stain = stain_of(spec)
        self.artefacts = artefacts.draw(spec, self.scene)
        self._seed = spec.seed
        self._liver, self._tumour = liver(spec.seed), carcinoma(spec.seed)
        self._textures = Textures.of_seed(spec.seed)
        self._grain, self._fibres = tiled(self._textures.grain), tiled(self._textures.fibres)
        self._bank = SpriteBank.of(spec.seed, self._liver, self._tumour)
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
            h, e = self._tissue(frame, self._liver, tumour=False)
        elif tumour.all():
            h, e = self._tissue(frame, self._tumour, tumour=True)
        else:
            h, e = self._tissue(frame, self._liver, tumour=False)
            h_tumour, e_tumour = self._tissue(frame, self._tumour, tumour=True)
            np.copyto(h, h_tumour, where=tumour)
            np.copyto(e, e_tumour, where=tumour)
        return self._regional(frame, h, e)

    def _tissue(self, frame: BlockFrame, tissue: Architecture, *, tumour: bool) -> Stains:
        """One tissue over a whole block: parenchyma, then connective tissue, necrosis and nuclei, then holes."""
        layer = parenchyma.paint(frame, tissue, self._textures, self._grain, self._bank, self._seed)
        fibrous = stroma.paint(
            frame,
            tissue=tissue,
            with_tracts=not tumour,
            capsule=None if tumour else self._capsule(frame),
            textures=self._textures,
            bank=self._bank,
            seed=self._seed,
        )
        h, e, cells = layer.h, layer.e, layer.nuclei
        if fibrous.fibrous.any():
            h, e, cells = self._with_stroma(h, e, cells, fibrous)
        nuclei = self._bank.stamp(cells, PADDED_PX)
        chromatin = nuclei * (1 + 0.10 * self._grain)
        h = h + chromatin
        e = e * (1 - NUCLEAR_CLEARING * np.minimum(nuclei * 2.5, 1))
        if tumour and not self.scene.necrosis.is_empty:
            h, e = self._with_necrosis(frame, h, e)
        solid = 1 - stroma.unit(np.maximum(np.where(fibrous.fibrous > 0.5, 0, layer.holes), fibrous.lumens))
        return h * solid, e * solid

    def _with_stroma(self, h: Field, e: Field, cells: Nuclei, fibrous: stroma.Stroma) -> tuple[Field, Field, Nuclei]:
        """Connective tissue over parenchyma; the cells below it go, its own come."""
        h_fibrous, e_fibrous = stroma.shade(fibrous, self._fibres)
        h = h + fibrous.fibrous * (h_fibrous - h)
        e = e + fibrous.fibrous * (e_fibrous - e)
        rows = np.clip(cells.y_px, 0, PADDED_PX - 1).astype(int)
        columns = np.clip(cells.x_px, 0, PADDED_PX - 1).astype(int)
        kept = cells.where((fibrous.fibrous[rows, columns] < 0.5) & (fibrous.lumens[rows, columns] == 0))
        own = fibrous.nuclei
        return (
            h,
            e,
            Nuclei(
                np.concatenate([kept.x_px, own.x_px]),
                np.concatenate([kept.y_px, own.y_px]),
                np.concatenate([kept.sprite, own.sprite]),
            ),
        )

    def _capsule(self, frame: BlockFrame) -> Field | None:
        """Coverage by the capsule, which lies just outside the tumour; None where there is none."""
        if self.scene.capsule_um <= 0 or frame.clip(self.scene.tumour, self.scene.capsule_um + 20).is_empty:
            return None
        outside_um = -frame.signed_distance_um(self.scene.tumour)
        width_um = self.scene.capsule_um * (1 + 0.3 * self._textures.smooth(frame, 300.0, 19.0))
        return np.clip((width_um - outside_um) / 3 + 0.5, 0, 1)

    def _with_necrosis(self, frame: BlockFrame, h: Field, e: Field) -> Stains:
        """Dead tumour: ghosts of cells, smeared eosin and nuclear dust."""
        if frame.clip(self.scene.necrosis, 40.0).is_empty:
            return h, e
        depth_um = frame.signed_distance_um(self.scene.necrosis) + 9 * self._textures.smooth(frame, 70.0, 23.0)
        dead = np.clip(depth_um / 25 + 0.5, 0, 1)
        dust = np.clip(self._grain - 1.9, 0, 1) * 0.9
        ghost_h = 0.05 + 0.12 * cv2.blur(h, (9, 9)) + dust
        ghost_e = np.clip(0.30 + 0.05 * self._grain + 0.05 * self._fibres, 0.03, 0.6)
        return np.asarray(h + dead * (ghost_h - h), np.float32), np.asarray(e + dead * (ghost_e - e), np.float32)

    def _regional(self, frame: BlockFrame, h: Field, e: Field) -> Stains:
        """Uneven staining, in both tissues alike."""
        smooth, style = self._textures.smooth, self.stain
        shade_h = smooth(frame, 900.0, 31.0) + 0.7 * smooth(frame, 230.0, 37.0)
        shade_e = smooth(frame, 900.0, 41.0) + 0.7 * smooth(frame, 230.0, 43.0)
        factor_h = style.strength * np.clip(1 + style.shade_h * shade_h, 0.5, 1.6)
        factor_e = style.strength * np.clip(1 + style.shade_e * shade_e, 0.5, 1.6)
        return np.asarray(h * factor_h, np.float32), np.asarray(e * factor_e, np.float32)

    def _stained(self, h: Field, e: Field) -> Pixels:
        """Concentrations as colour, by Beer and Lambert; RGB uint8."""
        mixing = np.column_stack([self.stain.haematoxylin, self.stain.eosin]) * np.float32(-np.log(10))
        density = cv2.transform(cv2.merge([h.astype(np.float32), e.astype(np.float32)]), mixing)
        light = cv2.exp(density) * self.stain.white
        return np.asarray(cv2.convertScaleAbs(light), np.uint8)
