"""A slide's pixel size: who says it, and whether it can be true."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openslide

from hepamap.errors import PixelSizeInvalidError
from hepamap.geometry import PixelSize

SANE_PIXEL_SIZE_UM = (0.05, 100.0)
"""A microscope slide's pixel is at least 0.05 µm (past 100X) and at most 100 µm (an overview) wide."""

PIXEL_SIZE_TOLERANCE = 0.02
"""Viewers and servers round a pixel size differently; sides this share apart are another slide or another scale."""

_MAX_ANISOTROPY = 1.5


@dataclass(frozen=True, slots=True)
class PixelSizeSource:
    """A pixel size, and where it was found: `metadata`, `client` or `override`."""

    pixel_size: PixelSize
    source: str


def agree(one: PixelSize, known: PixelSize) -> bool:
    """Whether two are the same but for rounding, along each axis: two errors can cancel in a mean."""
    sides = ((one.x_um, known.x_um), (one.y_um, known.y_um))
    return all(abs(side_um - known_um) <= PIXEL_SIZE_TOLERANCE * known_um for side_um, known_um in sides)


def find_pixel_size(
    path: Path, properties: Mapping[str, str], override_um: float | None, client: PixelSize | None
) -> PixelSizeSource | None:
    """What counts of a user's word, the slide's and the viewer's; None where nobody says anything.

    Args:
        path: the slide, for the message.
        properties: OpenSlide's.
        override_um: the user's word, µm/px.
        client: the viewer's.

    Raises:
        PixelSizeInvalidError: what counts is no pixel size of a microscope slide.
    """
    if override_um is not None:
        return PixelSizeSource(_require_sane(PixelSize(override_um, override_um), "The pixel size that was given"), "override")
    own, stated = metadata_pixel_sizes(properties)
    if own is not None:
        return PixelSizeSource(own, "metadata")
    if client is not None:
        return PixelSizeSource(_require_sane(client, "The pixel size that the viewer sent"), "client")
    if stated is not None:
        _require_sane(stated, f"The pixel size in the slide {path.name}")
    return None


def _require_sane(pixel_size: PixelSize, subject: str) -> PixelSize:
    if _is_sane(pixel_size):
        return pixel_size
    low, high = SANE_PIXEL_SIZE_UM
    raise PixelSizeInvalidError(
        f"{subject} is {pixel_size.x_um:.6g} × {pixel_size.y_um:.6g} µm, which no microscope slide has ({low:g} to {high:g} µm, "
        "nearly square).",
        cure="Give the true pixel size in µm (command line: --mpp 0.25; REST: mpp_um).",
    )


def _is_sane(pixel_size: PixelSize) -> bool:
    low, high = SANE_PIXEL_SIZE_UM
    sides = (pixel_size.x_um, pixel_size.y_um)
    if not all(math.isfinite(side) and low <= side <= high for side in sides):
        return False
    return max(sides) / min(sides) <= _MAX_ANISOTROPY


def metadata_pixel_sizes(properties: Mapping[str, str]) -> tuple[PixelSize | None, PixelSize | None]:
    """The first sane pixel size in the file, and the first stated at all."""
    stated = [size for size in (_openslide_mpp(properties), _tiff_mpp(properties)) if size is not None]
    return next((size for size in stated if _is_sane(size)), None), next(iter(stated), None)


def _openslide_mpp(properties: Mapping[str, str]) -> PixelSize | None:
    x = _number(properties.get(openslide.PROPERTY_NAME_MPP_X))
    y = _number(properties.get(openslide.PROPERTY_NAME_MPP_Y))
    return None if x is None or y is None else PixelSize(x, y)


def _tiff_mpp(properties: Mapping[str, str]) -> PixelSize | None:
    um_per_unit = {"centimeter": 10_000.0, "inch": 25_400.0}.get(properties.get("tiff.ResolutionUnit", ""))
    x, y = _number(properties.get("tiff.XResolution")), _number(properties.get("tiff.YResolution"))
    if um_per_unit is None or not x or not y:
        return None
    return PixelSize(um_per_unit / x, um_per_unit / y)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
