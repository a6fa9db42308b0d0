"""The slide's pixels: windows cut from the world's blocks, seen through one scanner."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.phantom.frame import BLOCK_PX, WORKING_UM
from hepamap.phantom.hashing import generator
from hepamap.phantom.painter import Painter
from hepamap.phantom.spec import PhantomSpec

Pixels = NDArray[np.uint8]

# Working px that a window needs around it for blurs and interpolation.
_RIM_PX = 16
_NOISE_PX = 512


class Canvas:
    """Level 0 of one synthetic slide, window by window."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec = spec
        self.painter = Painter(spec)
        stain = self.painter.stain
        self.glass: NDArray[np.uint8] = np.round(stain.white).astype(np.uint8)
        """R, G, B of blank glass."""
        rng = generator(spec.seed, 61)
        self._noise = np.round(rng.standard_normal((_NOISE_PX, _NOISE_PX, 3)) * stain.noise).astype(np.int8)

    def is_glass(self, x_l0: int, y_l0: int, width: int, height: int) -> bool:
        """Whether a rectangle of level 0 is all blank glass; known without painting."""
        return self.painter.is_glass(self._box_um(x_l0, y_l0, width, height))

    def _box_um(self, x_l0: int, y_l0: int, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of a rectangle of level 0, µm."""
        size = self.spec.pixel_size
        return x_l0 * size.x_um, y_l0 * size.y_um, (x_l0 + width) * size.x_um, (y_l0 + height) * size.y_um

    def window(self, x_l0: int, y_l0: int, width: int, height: int) -> Pixels | None:
        """A rectangle of level 0.

        Args:
            x_l0: left edge, level-0 px.
            y_l0: upper edge, level-0 px.
            width: its width, px.
            height: its height, px.

        Returns:
            RGB, shape (height, width, 3); None where it is all blank glass.
        """
        if self.is_glass(x_l0, y_l0, width, height):
            return None
        size = self.spec.pixel_size
        box_um = self._box_um(x_l0, y_l0, width, height)
        scale_x, scale_y = size.x_um / WORKING_UM, size.y_um / WORKING_UM
        left, top = math.floor(box_um[0] / WORKING_UM) - _RIM_PX, math.floor(box_um[1] / WORKING_UM) - _RIM_PX
        right, bottom = math.ceil(box_um[2] / WORKING_UM) + _RIM_PX, math.ceil(box_um[3] / WORKING_UM) + _RIM_PX
        world = self._mosaic(left, top, right, bottom)
        world = self._optics(world, scale_x, scale_y)
        # Output px (u, v) is centred at ((u + ½) · scale − ½) working px.
        shift_x = box_um[0] / WORKING_UM - left + scale_x / 2 - 0.5
        shift_y = box_um[1] / WORKING_UM - top + scale_y / 2 - 0.5
        matrix = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
        kind = cv2.INTER_CUBIC if max(scale_x, scale_y) < 1 else cv2.INTER_LINEAR
        flags = kind | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpAffine(world, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return self._sensor(np.asarray(pixels, np.uint8), x_l0, y_l0)

    def _mosaic(self, left: int, top: int, right: int, bottom: int) -> Pixels:
        """A rectangle of the world in working px, put together from blocks."""
        world = np.empty((bottom - top, right - left, 3), np.uint8)
        world[:] = self.glass
        for row in range(top // BLOCK_PX, (bottom - 1) // BLOCK_PX + 1):
            for column in range(left // BLOCK_PX, (right - 1) // BLOCK_PX + 1):
                block = self.painter.block(column, row)
                if block is None:
                    continue
                x0, y0 = column * BLOCK_PX, row * BLOCK_PX
                x1, y1 = max(left, x0), max(top, y0)
                x2, y2 = min(right, x0 + BLOCK_PX), min(bottom, y0 + BLOCK_PX)
                world[y1 - top : y2 - top, x1 - left : x2 - left] = block[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
        return world

    def _optics(self, world: Pixels, scale_x: float, scale_y: float) -> Pixels:
        """Blur of the objective and of the pixel's own area, then the scanner's sharpening."""
        stain = self.painter.stain
        optics_px = stain.blur_um / WORKING_UM
        # A pixel `scale` wide averages a box of that width: variance (scale² − 1) / 12 more than a working px.
        sigma_x, sigma_y = (math.sqrt(optics_px**2 + max(0.0, scale**2 - 1) / 12) for scale in (scale_x, scale_y))
        if max(sigma_x, sigma_y) > 0.45:
            world = np.asarray(cv2.GaussianBlur(world, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y), np.uint8)
        if stain.sharpening > 0.05:
            soft = cv2.GaussianBlur(world, (0, 0), sigmaX=1.2 * sigma_x, sigmaY=1.2 * sigma_y)
            world = np.asarray(cv2.addWeighted(world, 1 + stain.sharpening, soft, -stain.sharpening, 0), np.uint8)
        return world

    def _sensor(self, pixels: Pixels, x_l0: int, y_l0: int) -> Pixels:
        """Pixel noise, which depends on the slide's pixel grid, as on a real scanner; none on blank glass."""
        height, width = pixels.shape[:2]
        rows, columns = (np.arange(start, start + count) % _NOISE_PX for start, count in ((y_l0, height), (x_l0, width)))
        noise = self._noise.take(rows, axis=0).take(columns, axis=1)
        specimen = cv2.bitwise_not(cv2.inRange(pixels, self.glass, self.glass))
        return np.asarray(cv2.add(pixels, noise, dst=pixels.copy(), mask=specimen, dtype=cv2.CV_8U), np.uint8)
