"""Whole-slide images: with what it is made of (`slide_files`, `pixel_size`), the only module that knows OpenSlide.

Reads are asked for in µm per pixel; which pyramid level is decoded and how it is brought to the exact resolution stays
in here. Every pixel of an answer depends only on its place on the slide, never on the window that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import openslide
from numpy.typing import NDArray

from hepamap.errors import (
    PixelSizeInvalidError,
    PixelSizeMissingError,
    ResolutionTooCoarseError,
    SlideDamagedError,
)
from hepamap.geometry import PixelSize, Region, Size
from hepamap.kept import LastKept
from hepamap.pixel_size import PixelSizeSource, find_pixel_size, metadata_pixel_sizes
from hepamap.resampling import AxisSampling, area_average
from hepamap.slide_files import fingerprint_of, open_openslide
from hepamap.timing import StageClock

_COARSER_TOLERANCE = 1.05  # a slide up to 5 % coarser than the model is interpolated, not refused
_LEVEL_TOLERANCE = 1.01  # a level up to 1 % coarser than asked for still serves: scanners round their pixel sizes
_BLOCK_PX = 1024  # longest side of what is decoded at once, level px: bounds the memory of any read
_ANCHOR_PX = 1024  # where OpenSlide's place on a level is not whole, reads begin at multiples of this many level px
_ANCHORED_KEPT = 32  # such blocks that are kept, 3 MB each: strips are lower than they, and each strip needs all that it touches
_CACHE_BYTES = 64 * 2**20  # decoded tiles that OpenSlide keeps: of most slides, a row of tiles under the widest strip
_MARGIN_PX = 2  # read around such a block and cut off: OpenSlide blends its outermost pixels with nothing


@dataclass(frozen=True, slots=True)
class _Level:
    """One pyramid level: its size, level-0 px per level px along x and y, and what OpenSlide takes for both."""

    index: int
    size: Size
    downsample_x: float
    downsample_y: float
    openslide_downsample: float


class Slide:
    """One open whole-slide image; safe to read from several threads.

    Open it by `Slide.open`, close it by `close` or as a context manager.
    """

    def __init__(self, path: Path, handle: openslide.OpenSlide, pixel_size_source: PixelSizeSource | None) -> None:
        self.path = path
        self._handle = handle
        self._pixel_size_source = pixel_size_source
        # Copied once: after one failed read OpenSlide answers every question, from any thread, with that failure.
        self._properties = _properties_of(handle)
        width, height = handle.dimensions
        self.size_l0 = Size(width, height)
        self._levels = [
            _Level(i, Size(w, h), _downsample(width, w), _downsample(height, h), float(handle.level_downsamples[i]))
            for i, (w, h) in enumerate(handle.level_dimensions)
        ]
        self.fingerprint = fingerprint_of(path, handle)
        self.clock = StageClock()
        """Seconds spent on decoding and on resampling, over all threads."""
        handle.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
        self._anchored = LastKept[NDArray[np.uint8]](_ANCHORED_KEPT)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        mpp_override_um: float | None = None,
        client_pixel_size: PixelSize | None = None,
        senseless_is_missing: bool = False,
    ) -> Slide:
        """Open a slide.

        Args:
            path: a slide file, or a folder with the files of one DICOM slide.
            mpp_override_um: the user's word for the pixel size, µm/px; stands above everything else.
            client_pixel_size: what the client's viewer says; used where the slide itself says nothing.
            senseless_is_missing: a pixel size out of range is as good as none, for who only wants to know which slide it is.

        Raises:
            SlideError: not found, not readable, not a slide, damaged, or a pixel size out of range.
        """
        handle, path = open_openslide(path)
        try:
            found: PixelSizeSource | None = None
            with suppress(PixelSizeInvalidError) if senseless_is_missing else nullcontext():
                found = find_pixel_size(path, _properties_of(handle), mpp_override_um, client_pixel_size)
            return cls(path, handle, found)
        except BaseException:
            handle.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; reads after it fail."""
        self._handle.close()

    @property
    def vendor(self) -> str:
        """OpenSlide's name of the format, e.g. `hamamatsu`."""
        return str(self._properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"))

    @property
    def properties(self) -> Mapping[str, str]:
        """OpenSlide's properties of the slide."""
        return dict(self._properties)

    @property
    def bounds_l0(self) -> Region:
        """The part of level 0 that was scanned (OpenSlide's bounds), or all of it; level-0 px."""
        keys = ("openslide.bounds-x", "openslide.bounds-y", "openslide.bounds-width", "openslide.bounds-height")
        values = [self._properties.get(key) for key in keys]
        whole = Region.of_size(self.size_l0)
        if any(value is None for value in values):
            return whole
        return Region(*(float(value) for value in values if value is not None)).intersection(whole) or whole

    @property
    def pixel_size(self) -> PixelSize:
        """Pixel size of level 0.

        Raises:
            PixelSizeMissingError: nobody says it.
        """
        return self.pixel_size_source.pixel_size

    @property
    def pixel_size_source(self) -> PixelSizeSource:
        """Pixel size of level 0, and who says so.

        Raises:
            PixelSizeMissingError: nobody says it.
        """
        if self._pixel_size_source is None:
            raise PixelSizeMissingError(
                f"The slide {self.path.name} does not say how large its pixels are.",
                cure="Give the pixel size in µm (command line: --mpp 0.25; REST: mpp_um). It stands in the scanner's settings.",
            )
        return self._pixel_size_source

    @property
    def metadata_pixel_size(self) -> PixelSize | None:
        """What the file itself says, if it is sane; to compare with an override."""
        return metadata_pixel_sizes(self._properties)[0]

    @property
    def override_pixel_size(self) -> PixelSize | None:
        """What a person gave, where one did; to compare with the rest."""
        found = self._pixel_size_source
        return found.pixel_size if found is not None and found.source == "override" else None

    def require_resolution(self, mpp: float) -> None:
        """Check that the slide is fine enough for a model.

        Raises:
            ResolutionTooCoarseError: its pixels are more than 5 % larger than asked for.
        """
        own = max(self.pixel_size.x_um, self.pixel_size.y_um)
        if own > mpp * _COARSER_TOLERANCE:
            raise ResolutionTooCoarseError(
                f"The slide {self.path.name} has {own:.4g} µm per pixel; the model needs {mpp:g} µm or finer.",
                cure="Use a scan at a higher magnification, or a model of a coarser resolution.",
            )

    def read_region(self, region_l0: Region, mpp: float) -> NDArray[np.uint8]:
        """Read a region, area-averaged to a resolution.

        Args:
            region_l0: region in level-0 px; parts outside the slide come back white.
            mpp: resolution of the result, µm per pixel, the same along x and y.

        Returns:
            RGB array of shape (height, width, 3), values 0-255.

        Raises:
            PixelSizeMissingError: the slide's scale is unknown.
            SlideDamagedError: OpenSlide cannot decode the region.
        """
        step_x, step_y = mpp / self.pixel_size.x_um, mpp / self.pixel_size.y_um
        return self._read_sampled(
            AxisSampling.of(region_l0.x, region_l0.width, step_x),
            AxisSampling.of(region_l0.y, region_l0.height, step_y),
        )

    def decoded_share(self, mpp: float, of_mpp: float) -> float:
        """Pixels that a read at one resolution decodes, over those that a read of the same region at another does."""
        shares = []
        for step_um in (mpp, of_mpp):
            level = self._level_for(min(step_um / self.pixel_size.x_um, step_um / self.pixel_size.y_um))
            shares.append(1 / (level.downsample_x * level.downsample_y))
        return shares[0] / shares[1]

    def thumbnail(self, max_side_px: int) -> NDArray[np.uint8]:
        """The whole of level 0, its longer side `max_side_px` at most; RGB of shape (height, width, 3)."""
        return self.thumbnail_of(Region.of_size(self.size_l0), max_side_px)

    def thumbnail_of(self, region_l0: Region, max_side_px: int) -> NDArray[np.uint8]:
        """A region, its longer side `max_side_px` at most; needs no pixel size; RGB of shape (height, width, 3)."""
        step = max(1.0, region_l0.width / max_side_px, region_l0.height / max_side_px)
        return self._read_sampled(
            AxisSampling.of(region_l0.x, region_l0.width, step), AxisSampling.of(region_l0.y, region_l0.height, step)
        )

    def _read_sampled(self, x: AxisSampling, y: AxisSampling) -> NDArray[np.uint8]:
        level = self._level_for(min(x.step_l0, y.step_l0))
        out = np.full((y.count, x.count, 3), 255, np.uint8)
        for rows in _blocks(y, level.downsample_y):
            for columns in _blocks(x, level.downsample_x):
                self._read_block(out, level, x, y, columns, rows)
        return out

    def _level_for(self, step_l0: float) -> _Level:
        """The coarsest level that still holds the detail: least to decode."""
        fitting = [lv for lv in self._levels if max(lv.downsample_x, lv.downsample_y) <= step_l0 * _LEVEL_TOLERANCE]
        return fitting[-1] if fitting else self._levels[0]

    def _read_block(
        self, out: NDArray[np.uint8], level: _Level, x: AxisSampling, y: AxisSampling, columns: range, rows: range
    ) -> None:
        """Fill the part of `out` that a block of output pixels covers; leaves it white off the slide."""
        x_taps = x.taps(level.downsample_x, columns)
        y_taps = y.taps(level.downsample_y, rows)
        x_start, x_end = max(0, x_taps.start), min(level.size.width, x_taps.end)
        y_start, y_end = max(0, y_taps.start), min(level.size.height, y_taps.end)
        if x_start >= x_end or y_start >= y_end:
            return
        window = np.full((y_taps.end - y_taps.start, x_taps.end - x_taps.start, 3), 255, np.uint8)
        with self.clock.measure("decode"):
            pixels = self._decode(level, x_start, y_start, x_end - x_start, y_end - y_start)
        with self.clock.measure("resample"):
            window[y_start - y_taps.start : y_end - y_taps.start, x_start - x_taps.start : x_end - x_taps.start] = pixels
            out[rows.start : rows.stop, columns.start : columns.stop] = area_average(window, x_taps, y_taps)

    def _decode(self, level: _Level, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels of one level on white, shape (height, width, 3); x, y, width, height in level px.

        OpenSlide takes places in whole level-0 px and divides by its own downsample. Where that is not whole, a place falls
        between pixels and OpenSlide interpolates; so such levels are read in blocks that are anchored to the level, and a
        pixel's value depends on its place alone.
        """
        if level.openslide_downsample.is_integer():
            return self._decode_at(level, x, y, width, height)
        pixels = np.full((height, width, 3), 255, np.uint8)
        for top in range(y // _ANCHOR_PX * _ANCHOR_PX, y + height, _ANCHOR_PX):
            for left in range(x // _ANCHOR_PX * _ANCHOR_PX, x + width, _ANCHOR_PX):
                right, bottom = min(left + _ANCHOR_PX, level.size.width), min(top + _ANCHOR_PX, level.size.height)
                block = self._decode_anchored(level, left, top, right, bottom)
                x0, y0, x1, y1 = max(x, left), max(y, top), min(x + width, right), min(y + height, bottom)
                pixels[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        return pixels

    def _decode_anchored(self, level: _Level, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """One anchored block, decoded once for all strips that touch it."""
        place = (level.index, left, top, right, bottom)
        return self._anchored.get(place, lambda: self._decode_with_margin(level, left, top, right, bottom))

    def _decode_with_margin(self, level: _Level, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """One anchored block, read with a margin where the level goes on."""
        x0, y0 = max(0, left - _MARGIN_PX), max(0, top - _MARGIN_PX)
        x1, y1 = min(level.size.width, right + _MARGIN_PX), min(level.size.height, bottom + _MARGIN_PX)
        pixels = self._decode_at(level, x0, y0, x1 - x0, y1 - y0)
        # A copy: what is kept is not to hold the margin and the transparency.
        return pixels[top - y0 : bottom - y0, left - x0 : right - x0].copy()

    def _decode_at(self, level: _Level, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        location_l0 = (round(x * level.openslide_downsample), round(y * level.openslide_downsample))
        try:
            rgba = np.asarray(self._handle.read_region(location_l0, level.index, (width, height)))
        except openslide.OpenSlideError as error:
            raise SlideDamagedError(
                f"The slide {self.path.name} is damaged: level {level.index} cannot be read at level-0 px "
                f"({location_l0[0]}, {location_l0[1]}), {width} × {height} px of that level ({_without_paths(error)}).",
                cure="Copy the slide again from the scanner, with all its files, or scan it again.",
            ) from error
        return _on_white(rgba)


def _downsample(size_l0: int, size_level: int) -> float:
    """Level-0 px per level px along one axis.

    Scanners halve (or quarter) and round the level's size, so that the ratio of sizes is a little off: a whole ratio
    that explains the size is taken as the true one, or contours would drift by several pixels along a slide.
    """
    ratio = size_l0 / size_level
    whole = round(ratio)
    if whole >= 1 and size_l0 // whole <= size_level <= -(-size_l0 // whole):
        return float(whole)
    return ratio


def _blocks(axis: AxisSampling, downsample: float) -> Iterator[range]:
    """Output pixels along one axis, cut so that a block decodes at most about `_BLOCK_PX` level px."""
    length = max(1, int(_BLOCK_PX * downsample / axis.step_l0))
    for start in range(0, axis.count, length):
        yield range(start, min(axis.count, start + length))


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA over white, shape (H, W, 3): what was never scanned is glass, not black."""
    alpha = rgba[..., 3]
    if alpha.min() == 255:
        return rgba[..., :3]
    share = alpha[..., None].astype(np.uint16)
    mixed = (rgba[..., :3] * share + 255 * (255 - share) + 127) // 255
    return mixed.astype(np.uint8)


def _without_paths(error: Exception) -> str:
    """OpenSlide's words, less folder names: they may reach a client."""
    return " ".join(Path(word).name if "/" in word else word for word in str(error).split())


def _properties_of(handle: openslide.OpenSlide) -> dict[str, str]:
    """What a slide says of itself. A name that is damaged cannot be asked for, and is left out."""
    found = {}
    for name in handle.properties:
        with suppress(KeyError):
            found[name] = handle.properties[name]
    return found
