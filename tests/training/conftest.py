from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

# Toy tissue: strong random texture (so that it is in focus), red where tumour, blue where not.
TUMOUR_RGB, NON_TUMOUR_RGB = (200, 40, 60), (60, 40, 200)
SIDE = 768


def toy_pixels(seed: int) -> NDArray[np.uint8]:
    """(768, 768, 3): tumour in the left 320 columns, non-tumour to column 640, then white."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[:, :320], pixels[:, 320:640] = TUMOUR_RGB, NON_TUMOUR_RGB
    dots = rng.random((SIDE, SIDE)) < 0.3
    pixels[dots] = pixels[dots] // 3
    return pixels


def write_slide(path: Path, pixels: NDArray[np.uint8], mpp: float = 1.84) -> Path:
    resolution = (10_000 / mpp, 10_000 / mpp)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", resolution=resolution, resolutionunit="CENTIMETER")
    return path


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(rings: Sequence[Any], kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": list(rings)}, "properties": properties}


def tumour_and_liver() -> dict[str, Any]:
    return {
        "type": "FeatureCollection",
        "features": [
            feature([box(0, 0, 320, SIDE)], classification={"name": "Tumor", "color": [200, 0, 0]}),
            feature([box(320, 0, 640, SIDE)], classification={"name": "Non-tumor", "color": [0, 128, 0]}),
        ],
    }


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of four toy slides: two to train, one to validate, one to test."""
    folder = tmp_path_factory.mktemp("cohort")
    lines = ["slide,annotations,group,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        write_slide(folder / f"s{number}.tif", toy_pixels(number))
        (folder / f"s{number}.geojson").write_text(json.dumps(tumour_and_liver()), encoding="utf-8")
        lines.append(f"s{number}.tif,s{number}.geojson,patient{number},{split}")
    table = folder / "cohort.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table
