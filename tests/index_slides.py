"""Slides of many files that are small enough to be made by a test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

INDEX = """[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=1
NoJpegRows=1
ImageFile=image.jpg
MapFile={overview}
OptimisationFile=
MacroImage=macro.jpg
PhysicalWidth=235520
PhysicalHeight=117760
"""


def write_picture(path: Path, colour: tuple[int, int, int]) -> Path:
    """A JPEG of 512 × 256 px as OpenSlide takes it for a part of a VMS slide."""
    made = cv2.imwrite(str(path), np.full((256, 512, 3), colour, np.uint8), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])
    assert made
    return path


def write_vms(folder: Path, *, overview: str = "map.jpg") -> Path:
    """A VMS slide of 0.46 µm/px: the index, and three pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, colour in (("image.jpg", (90, 60, 100)), ("map.jpg", (245, 245, 245)), ("macro.jpg", (245, 245, 245))):
        write_picture(folder / name, colour)
    path = folder / "slide.vms"
    path.write_text(INDEX.format(overview=overview))
    return path
