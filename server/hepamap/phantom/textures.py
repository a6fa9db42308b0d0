"""Periodic noise textures, and how to look them up by world position."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import MARGIN_PX, SMOOTH_STEP_PX, BlockFrame, Field, enlarged
from hepamap.phantom.hashing import generator

TEXTURE_PX = 1024
"""Side of a texture. Equal to BLOCK_PX, so that a texture laid at one texel per working px repeats block by block."""
_BAND_CYCLES = 32
_CLOUD_CYCLES = 6


@dataclass(frozen=True)
class Textures:
    """The noises of one slide, float32, mean 0 and variance 1; the first three are periodic (TEXTURE_PX, TEXTURE_PX)."""

    band: Field
    """Labyrinth: one wavelength only, `_BAND_CYCLES` waves per side. Its zero lines are the sinusoids."""
    band2: Field
    """A second, independent labyrinth."""
    cloud: Field
    """Smooth: `_CLOUD_CYCLES` waves per side."""
    grain: Field
    """Granules of cytoplasm and chromatin, 1 to 4 px, laid over a padded block; the same on every block."""
    fibres: Field
    """Wavy collagen, laid over a padded block; the same on every block."""

    @classmethod
    def of_seed(cls, seed: int) -> Textures:
        """The textures of one slide."""
        rng = generator(seed, 11)
        return cls(
            band=_band_noise(rng, _BAND_CYCLES, 0.22),
            band2=_band_noise(rng, _BAND_CYCLES, 0.22),
            cloud=_band_noise(rng, _CLOUD_CYCLES, 0.5),
            grain=_laid(_grain(rng)),
            fibres=_laid(_fibres(rng)),
        )

    def labyrinth(
        self, frame: BlockFrame, wavelength_um: float, offset_um: float, step_px: int, warp_um: Field | None = None
    ) -> Field:
        """`band` at a wavelength in µm, on squares of `step_px`, bent by `warp_um` on the same squares."""
        scale = TEXTURE_PX / (_BAND_CYCLES * wavelength_um)
        return _lookup(self.band, frame, frame.grid_um(step_px), scale, offset_um, warp_um)

    def crosslinks(self, frame: BlockFrame, wavelength_um: float, offset_um: float, step_px: int) -> Field:
        """`band2` at a wavelength in µm, on squares of `step_px`."""
        scale = TEXTURE_PX / (_BAND_CYCLES * wavelength_um)
        return _lookup(self.band2, frame, frame.grid_um(step_px), scale, offset_um)

    def coarse(self, frame: BlockFrame, wavelength_um: float, offset_um: float) -> Field:
        """`cloud` at a wavelength of many µm, on squares of `SMOOTH_STEP_PX`."""
        scale = TEXTURE_PX / (_CLOUD_CYCLES * wavelength_um)
        return _lookup(self.cloud, frame, frame.grid_um(SMOOTH_STEP_PX), scale, offset_um)

    def smooth(self, frame: BlockFrame, wavelength_um: float, offset_um: float) -> Field:
        """`coarse` on every pixel of a block."""
        return enlarged(self.coarse(frame, wavelength_um, offset_um))


def _lookup(
    texture: Field,
    frame: BlockFrame,
    grid_um: tuple[Field, Field],
    texels_per_um: float,
    offset_um: float,
    warp_um: Field | None = None,
) -> Field:
    """A texture at world positions, bilinear."""
    x0_um, y0_um = frame.origin_um
    # The block's own position is reduced in float64: float32 would lose the texel far from the origin.
    base_x = ((x0_um + offset_um) * texels_per_um) % TEXTURE_PX
    base_y = ((y0_um - offset_um) * texels_per_um) % TEXTURE_PX
    map_x = grid_um[0] * np.float32(texels_per_um) + np.float32(base_x)
    map_y = grid_um[1] * np.float32(texels_per_um) + np.float32(base_y)
    if warp_um is not None:
        map_x += warp_um * np.float32(texels_per_um)
        map_y -= warp_um * np.float32(texels_per_um)
    return np.asarray(cv2.remap(texture, map_x, map_y, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _laid(texture: Field) -> Field:
    """A texture at one texel per working px over a padded block."""
    return np.pad(texture, MARGIN_PX, mode="wrap")


def _standardised(values: NDArray[np.float64]) -> Field:
    """Mean 0, variance 1, float32."""
    return np.asarray((values - values.mean()) / values.std(), np.float32)


def _frequencies() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cycles per side along x and y, for `rfft2`."""
    return (
        np.asarray(np.fft.rfftfreq(TEXTURE_PX, 1 / TEXTURE_PX)[None, :], np.float64),
        np.asarray(np.fft.fftfreq(TEXTURE_PX, 1 / TEXTURE_PX)[:, None], np.float64),
    )


def _filtered(rng: np.random.Generator, response: NDArray[np.float64]) -> Field:
    """White noise through a filter given in the frequency domain."""
    white = rng.standard_normal((TEXTURE_PX, TEXTURE_PX), np.float32)
    return _standardised(np.fft.irfft2(np.fft.rfft2(white) * response.astype(np.float32), s=white.shape))


def _band_noise(rng: np.random.Generator, cycles: float, bandwidth: float) -> Field:
    """Isotropic noise of about one wavelength."""
    fx, fy = _frequencies()
    radius = np.hypot(fx, fy)
    return _filtered(rng, np.exp(-((radius / cycles - 1) ** 2) / (2 * bandwidth**2)))


def _grain(rng: np.random.Generator) -> Field:
    """Two sizes of granules."""
    fx, fy = _frequencies()
    radius = np.hypot(fx, fy)
    return _filtered(rng, np.exp(-((radius / 220) ** 2)) + 2.5 * np.exp(-((radius / 90) ** 2)))


def _fibres(rng: np.random.Generator) -> Field:
    """Streaks, bent by a large displacement so that they run in all directions."""
    fx, fy = _frequencies()
    streaks = _filtered(rng, np.exp(-((fx / 9) ** 2) - ((fy / 130) ** 2)) * (fy != 0))
    bend = _band_noise(rng, 3, 0.5) * 45
    y, x = np.mgrid[:TEXTURE_PX, :TEXTURE_PX].astype(np.float32)
    bent = cv2.remap(streaks, x + bend, y + np.roll(bend, 300, 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return _standardised(np.asarray(bent, np.float64))
