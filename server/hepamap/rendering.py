"""Pictures of a map: grey, colour, pyramidal OME-TIFF, and laid over the slide. Each carries what it was made from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from shapely.geometry.base import BaseGeometry

from hepamap import RESEARCH_USE_ONLY
from hepamap.contours import TumourRegion
from hepamap.geometry import Region
from hepamap.probability_map import ProbabilityMap

_COLOUR_MAP = cv2.COLORMAP_PLASMA  # the authors' colours, even to the eye
_MAP_OPACITY = 0.4
_CONTOUR_BGR = (0, 200, 0)
_ALARM_BGR = (0, 0, 160)
_NO_CONTOURS = "NOT EVALUABLE: no contours"
_MIN_LEVEL_PX = 128  # a pyramid ends where its next level would be smaller
_TILE_PX = 256
_MIN_WIDTH_PX = 400
_COMPRESSION = 1  # of PNG: a tenth of the time of the usual 6, for files a fifth larger
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def grey_png(probability_map: ProbabilityMap) -> bytes:
    """One pixel per cell, 0-255 for probability 0-1, transparent where there is no data."""
    grey, alpha = _grey_and_alpha(probability_map.values)
    return _png(np.dstack([grey, grey, grey, alpha]), probability_map)


def index_png(probability_map: ProbabilityMap) -> bytes:
    """One grey pixel per cell: 0 where there is no data, else v from 1 to 255 for the probability (v - 1) / 254."""
    values = probability_map.values
    return _png(np.where(np.isfinite(values), np.rint(np.nan_to_num(values) * 254) + 1, 0).astype(np.uint8), probability_map)


def colour_png(probability_map: ProbabilityMap) -> bytes:
    """One pixel per cell, plasma colours, transparent where there is no data."""
    grey, alpha = _grey_and_alpha(probability_map.values)
    return _png(np.dstack([cv2.applyColorMap(grey, _COLOUR_MAP)[..., ::-1], alpha]), probability_map)


def write_ome_tiff(probability_map: ProbabilityMap, path: Path) -> None:
    """A pyramidal OME-TIFF of float32 probabilities (NaN: no data) with the physical size of its pixels.

    Source: OME-TIFF specification, sub-resolutions in SubIFDs.
    """
    lattice = probability_map.lattice
    cell_um = lattice.grid.stride_m * lattice.grid.mpp
    levels = list(_pyramid(probability_map.values))
    per_cm = 10_000 / cell_um
    metadata = {
        "axes": "YX",
        "Name": "Tumour probability (AI)",
        "Description": f"{RESEARCH_USE_ONLY}\n{_provenance_text(probability_map)}",
        "PhysicalSizeX": cell_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": cell_um,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["Tumour probability"]},
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=False) as tiff:
        for index, level in enumerate(levels):
            options = {"subifds": len(levels) - 1, "metadata": metadata} if index == 0 else {"subfiletype": 1, "metadata": None}
            tiff.write(
                level,
                photometric="minisblack",
                tile=(_TILE_PX, _TILE_PX),
                compression="zlib",
                resolution=(per_cm / 2**index, per_cm / 2**index),
                resolutionunit="CENTIMETER",
                **options,
            )


def overlay_png(
    thumbnail: NDArray[np.uint8],
    view_l0: Region,
    probability_map: ProbabilityMap,
    regions: Sequence[TumourRegion] | None,
    region_of_interest_l0: BaseGeometry | None = None,
) -> bytes:
    """Map and contours on a picture of the slide, with scale bar and legend.

    Args:
        thumbnail: RGB (H, W, 3) of the part of the slide that is shown.
        view_l0: that part, level-0 px.
        probability_map: the map.
        regions: the tumour regions at its threshold; None for a map that is not evaluable: the legend says so.
        region_of_interest_l0: what was asked for, outlined too.
    """
    height, width = thumbnail.shape[:2]
    scale_x, scale_y = width / view_l0.width, height / view_l0.height
    picture = np.ascontiguousarray(thumbnail[..., ::-1])
    picture = _blend(picture, probability_map, view_l0)
    thickness = max(1, round(max(width, height) / 800))
    for region in regions or ():
        _draw(picture, region.polygon_l0, view_l0, (scale_x, scale_y), _CONTOUR_BGR, thickness)
    if region_of_interest_l0 is not None:
        _draw(picture, region_of_interest_l0, view_l0, (scale_x, scale_y), (160, 80, 0), thickness)
    um_per_px = view_l0.width * probability_map.lattice.grid.pixel_size.x_um / width
    # A needle core may be narrower than the legend's words.
    picture = np.pad(picture, [(0, 0), (0, max(0, _MIN_WIDTH_PX - width)), (0, 0)], constant_values=255)
    return _png(
        np.vstack([picture, _legend(picture.shape[1], um_per_px, evaluable=regions is not None)])[..., ::-1], probability_map
    )


def _grey_and_alpha(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    grey = np.rint(np.nan_to_num(values) * 255).astype(np.uint8)
    return grey, np.where(np.isfinite(values), 255, 0).astype(np.uint8)


def _png(picture: NDArray[np.uint8], probability_map: ProbabilityMap) -> bytes:
    """A picture (grey, grey with alpha, RGB or RGBA) with the map's provenance as text, by the keywords of the PNG standard."""
    texts = PngInfo()
    texts.add_itxt("Disclaimer", RESEARCH_USE_ONLY)
    texts.add_itxt("Description", _provenance_text(probability_map))
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", pnginfo=texts, compress_level=_COMPRESSION)
    return file.getvalue()


def _provenance_text(probability_map: ProbabilityMap) -> str:
    return json.dumps(dict(probability_map.provenance), sort_keys=True)


def _pyramid(values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The map, then its halves: means of 2 × 2 cells with data; no data only where none of the four has any."""
    level = values
    yield level
    while min(level.shape) >= 2 * _MIN_LEVEL_PX:
        padded = np.pad(level, [(0, side % 2) for side in level.shape], constant_values=np.nan)
        four = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
        known = np.isfinite(four).sum(axis=(1, 3))
        mean = np.nansum(four, axis=(1, 3)) / np.maximum(known, 1)
        level = np.where(known > 0, mean, np.nan).astype(np.float32)
        yield level


def _blend(picture: NDArray[np.uint8], probability_map: ProbabilityMap, view_l0: Region) -> NDArray[np.uint8]:
    """The map's colours over the picture; each cell exactly where it lies."""
    height, width = picture.shape[:2]
    lattice = probability_map.lattice
    x_l0 = view_l0.x + (np.arange(width) + 0.5) * view_l0.width / width
    y_l0 = view_l0.y + (np.arange(height) + 0.5) * view_l0.height / height
    column = np.floor((x_l0 - lattice.origin_l0.x) / lattice.cell_size_l0.x).astype(int)
    row = np.floor((y_l0 - lattice.origin_l0.y) / lattice.cell_size_l0.y).astype(int)
    inside_x, inside_y = (column >= 0) & (column < lattice.columns), (row >= 0) & (row < lattice.rows)
    grey, alpha = _grey_and_alpha(probability_map.values)
    colour = cv2.applyColorMap(grey, _COLOUR_MAP)
    cells = np.ix_(np.clip(row, 0, lattice.rows - 1), np.clip(column, 0, lattice.columns - 1))
    shown = (alpha[cells] > 0) & inside_y[:, None] & inside_x[None, :]
    mixed = cv2.addWeighted(picture, 1 - _MAP_OPACITY, colour[cells], _MAP_OPACITY, 0)
    return np.where(shown[..., None], mixed, picture).astype(np.uint8)


def _draw(
    picture: NDArray[np.uint8],
    shape_l0: BaseGeometry,
    view_l0: Region,
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    shift = 4  # sixteenths of a pixel
    for part in getattr(shape_l0, "geoms", [shape_l0]):
        for ring in [part.exterior, *part.interiors]:
            points = (shapely.get_coordinates(ring) - (view_l0.x, view_l0.y)) * scale - 0.5
            fixed = np.rint(points * 2**shift).astype(np.int32)
            cv2.polylines(picture, [fixed], True, colour, thickness, cv2.LINE_AA, shift)


def _legend(width: int, um_per_px: float, *, evaluable: bool) -> NDArray[np.uint8]:
    """A white strip with a scale bar, the colours of the map and the notice."""
    unit = max(10, width // 60)
    strip = np.full((unit * 6, width, 3), 255, np.uint8)
    size, line = unit / 26, max(1, unit // 14)
    bar_um = _round_length_um(width * um_per_px / 4)
    bar_px = round(bar_um / um_per_px)
    cv2.rectangle(strip, (unit, unit), (unit + bar_px, unit + unit // 3), (0, 0, 0), -1)
    text = f"{bar_um / 1000:g} mm" if bar_um >= 1000 else f"{bar_um:g} um"
    cv2.putText(strip, text, (unit, unit * 5 // 2), _FONT, size, (0, 0, 0), line, cv2.LINE_AA)
    left, length = width // 2, width * 2 // 5
    ramp = cv2.applyColorMap(np.linspace(0, 255, length).astype(np.uint8)[None].repeat(unit, axis=0), _COLOUR_MAP)
    strip[unit // 2 : unit // 2 + unit, left : left + length] = ramp
    caption = "0   tumour probability (AI)   1"
    cv2.putText(strip, caption, (left, unit * 5 // 2), _FONT, size, (0, 0, 0), line, cv2.LINE_AA)
    if evaluable:
        cv2.line(strip, (unit, unit * 7 // 2), (unit * 3, unit * 7 // 2), _CONTOUR_BGR, max(2, line * 2), cv2.LINE_AA)
        cv2.putText(strip, "contour at the threshold", (unit * 7 // 2, unit * 4), _FONT, size, (0, 0, 0), line, cv2.LINE_AA)
    else:
        cv2.putText(strip, _NO_CONTOURS, (unit, unit * 4), _FONT, size, _ALARM_BGR, line * 2, cv2.LINE_AA)
    cv2.putText(strip, RESEARCH_USE_ONLY, (unit, unit * 11 // 2), _FONT, size, _ALARM_BGR, line, cv2.LINE_AA)
    return strip


def _round_length_um(limit_um: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ µm under a limit."""
    power = 10.0 ** np.floor(np.log10(limit_um))
    return float(max(step * power for step in (1, 2, 5) if step * power <= limit_um))
