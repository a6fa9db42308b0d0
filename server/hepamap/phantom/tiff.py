"""A writer of tiled, pyramidal TIFF that never holds more than one tile of each level.

tifffile writes one level after the other, each row by row, so a pyramid would have to be painted several times or kept
whole. This writer takes tiles of all levels in any order as they are finished. A tile that nobody puts is blank, and all
blank tiles share their bytes, so glass costs nothing. It writes BigTIFF with one complete JPEG stream per tile, the way
technical note 2 to TIFF 6 says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.geometry import PixelSize, Size

TILE_PX = 512

_SHORT, _LONG, _RATIONAL, _LONG8, _ASCII = 3, 4, 5, 16, 2
_FORMATS = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
_JPEG, _YCBCR, _CENTIMETRE, _REDUCED = 7, 6, 3, 1

Entry = tuple[int, int, int, bytes]
"""tag, type, number of values, packed values."""


def level_sizes(size_l0: Size, factor: int) -> list[Size]:
    """Sizes of a pyramid's levels, finest first, down to one tile."""
    sizes = [size_l0]
    while max(sizes[-1].width, sizes[-1].height) > TILE_PX:
        last = sizes[-1]
        sizes.append(Size(math.ceil(last.width / factor), math.ceil(last.height / factor)))
    return sizes


class PyramidWriter:
    """An open file; tiles go in in any order, the directories are written on leaving the context."""

    def __init__(
        self,
        path: Path,
        sizes: Sequence[Size],
        pixel_size: PixelSize,
        *,
        blank: NDArray[np.uint8],
        description: str = "",
        quality: int = 85,
    ) -> None:
        self._sizes = list(sizes)
        self._pixel_size = pixel_size
        self._description = description
        self._quality = [cv2.IMWRITE_JPEG_QUALITY, quality]
        self._file = path.open("wb")
        # Signature of BigTIFF, little-endian; the place of the first directory is filled in at the end.
        self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        nothing = self._store(blank)
        self._places = [[nothing] * (columns * rows) for columns, rows in map(tiles_of, sizes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._write_directories()

    def put(self, level: int, column: int, row: int, pixels: NDArray[np.uint8]) -> None:
        """Store one tile.

        Args:
            level: level of the pyramid, 0 is the finest.
            column: the tile's column in its level.
            row: the tile's row in its level.
            pixels: RGB, shape (TILE_PX, TILE_PX, 3).
        """
        columns, _ = tiles_of(self._sizes[level])
        self._places[level][row * columns + column] = self._store(pixels)

    def fill(self, level: int, pixels: NDArray[np.uint8]) -> None:
        """Make every tile of a level this one; its bytes are stored once. Pixels as for `put`."""
        self._places[level] = [self._store(pixels)] * len(self._places[level])

    def _store(self, pixels: NDArray[np.uint8]) -> tuple[int, int]:
        """Append a tile; the offset and length of its bytes."""
        encoded = cv2.imencode(".jpg", pixels[..., ::-1], self._quality)[1].tobytes()
        place = (self._file.tell(), len(encoded))
        self._file.write(encoded)
        return place

    def _write_directories(self) -> None:
        """Append one directory per level and chain them."""
        link = 8
        for level in range(len(self._sizes)):
            entries = [self._placed(entry) for entry in self._entries(level)]
            self._file.seek(0, 2)
            here = self._file.tell()
            self._file.write(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
            self._file.seek(link)
            self._file.write(struct.pack("<Q", here))
            link = here + 8 + 20 * len(entries)

    def _placed(self, entry: Entry) -> bytes:
        """The 20 bytes of an entry; values that do not fit into 8 bytes go to the end of the file."""
        tag, kind, count, packed = entry
        if len(packed) > 8:
            self._file.seek(0, 2)
            offset = self._file.tell()
            self._file.write(packed)
            packed = struct.pack("<Q", offset)
        return struct.pack("<HHQ", tag, kind, count) + packed.ljust(8, b"\0")

    def _entries(self, level: int) -> list[Entry]:
        """The directory of a level, sorted by tag as TIFF demands."""
        size, finest = self._sizes[level], self._sizes[0]
        offsets, lengths = zip(*self._places[level], strict=True)
        text = self._description.encode() + b"\0"
        return [
            _numbers(254, _LONG, 0 if level == 0 else _REDUCED),
            _numbers(256, _LONG, size.width),
            _numbers(257, _LONG, size.height),
            _numbers(258, _SHORT, 8, 8, 8),
            _numbers(259, _SHORT, _JPEG),
            _numbers(262, _SHORT, _YCBCR),
            (270, _ASCII, len(text), text),
            _numbers(277, _SHORT, 3),
            _resolution(282, self._pixel_size.x_um * finest.width / size.width),
            _resolution(283, self._pixel_size.y_um * finest.height / size.height),
            _numbers(284, _SHORT, 1),
            _numbers(296, _SHORT, _CENTIMETRE),
            _numbers(322, _LONG, TILE_PX),
            _numbers(323, _LONG, TILE_PX),
            _numbers(324, _LONG8, *offsets),
            _numbers(325, _LONG8, *lengths),
            # OpenCV halves the colour channels of a JPEG in both directions; the directory has to say so.
            _numbers(530, _SHORT, 2, 2),
        ]


def tiles_of(size: Size) -> tuple[int, int]:
    """Columns and rows of tiles that cover a level."""
    return math.ceil(size.width / TILE_PX), math.ceil(size.height / TILE_PX)


def _numbers(tag: int, kind: int, *values: int) -> Entry:
    """An entry of whole numbers."""
    return tag, kind, len(values), struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)


def _resolution(tag: int, pixel_um: float) -> Entry:
    """Pixels per centimetre, as a fraction with nine digits: 10000 / µm."""
    # A denominator that keeps the numerator, up to 200,000 px/cm, within 32 bits.
    denominator = 20_000
    return tag, _RATIONAL, 1, struct.pack("<II", round(10_000 / pixel_um * denominator), denominator)
