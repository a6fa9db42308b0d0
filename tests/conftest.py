"""What many tests share: tiny slides with known content, the folder of real slides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import hepamap
from tests.postgres import Postgres, running_postgres
from tests.required import required

WriteSlide = Callable[..., Path]


def pytest_configure() -> None:
    required()  # a mistyped name is found before any test runs


def pytest_report_header() -> str:
    # Imported here before any test imports keras, hepamap has settled by what it computes.
    arithmetic = {name: os.environ.get(name) for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS")}
    return f"hepamap {hepamap.__version__}: {arithmetic}"


def write_tiff_slide(path: Path, rgb: NDArray[np.uint8], mpp: float | tuple[float, float] | None, levels: int = 1) -> Path:
    """Write a tiled TIFF that OpenSlide reads, lossless; each further level is the mean of 2 × 2 pixels."""
    mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    with tifffile.TiffWriter(path) as tiff:
        level = rgb
        for index in range(levels):
            scale = 2**index
            resolution: dict[str, Any] = {}
            if mpp_x is not None and mpp_y is not None:
                per_cm = (10_000 / (mpp_x * scale), 10_000 / (mpp_y * scale))
                resolution = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
            kind = 1 if index else 0  # a further level is a reduced image: OpenSlide asks for the mark
            tiff.write(
                level, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None, subfiletype=kind, **resolution
            )
            height, width = (side // 2 * 2 for side in level.shape[:2])
            four = level[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
            level = np.rint(four.mean(axis=(1, 3))).astype(np.uint8)
    return path


def write_bounded_slide(path: Path, rgb: NDArray[np.uint8], mpp: float, corner: tuple[int, int], level0: tuple[int, int]) -> Path:
    """Write a slide of which only a part was scanned, as Leica's SCN: OpenSlide tells its bounds, and QuPath crops to them.

    Args:
        path: where, ending in .scn.
        rgb: what was scanned.
        mpp: µm per pixel.
        corner: where that begins in level 0, px.
        level0: width and height of level 0.
    """
    height, width = rgb.shape[:2]
    nm = round(mpp * 1000)
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{level0[0] * nm}" sizeY="{level0[1] * nm}"><image name="i">'
        '<creationDate>2026-01-01T00:00:00Z</creationDate><device model="m" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}"><dimension sizeX="{width}" sizeY="{height}" r="0" ifd="0"/></pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{corner[0] * nm}" offsetY="{corner[1] * nm}"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image></collection></scn>"
    )
    per_cm = (10_000 / mpp, 10_000 / mpp)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            rgb,
            tile=(256, 256),
            photometric="rgb",
            compression="zlib",
            metadata=None,
            description=description,
            resolution=per_cm,
            resolutionunit="CENTIMETER",
        )
    return path


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    def write(
        rgb: NDArray[np.uint8], mpp: float | tuple[float, float] | None = 0.46, *, levels: int = 1, name: str = "slide.tif"
    ) -> Path:
        return write_tiff_slide(tmp_path / name, rgb, mpp, levels)

    return write


def readers_at_close(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads that read ahead live whenever a slide is closed, from now on; its handle is freed then."""
    from hepamap.slide import Slide

    found: list[int] = []
    real = Slide.close

    def close(slide: Slide) -> None:
        found.append(sum(thread.name.startswith("hepamap-read") for thread in threading.enumerate()))
        real(slide)

    monkeypatch.setattr(Slide, "close", close)
    return found


@pytest.fixture(scope="module")
def thin_networks() -> Iterator[None]:
    """VGG16 with an eighth of its channels, in this process: every value has the same place, for little arithmetic."""
    from hepamap.networks import vgg16

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg16, "_BLOCKS", tuple((block, layers, channels // 8) for block, layers, channels in vgg16._BLOCKS))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides, where there is one: beside the checkout, or named by HEPAMAP_TEST_DATA."""
    folder = Path(os.environ.get("HEPAMAP_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"there are no real slides at {folder.name}/ beside the checkout (HEPAMAP_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the tests' own; skips where it is not installed."""
    with running_postgres() as server:
        yield server
