"""What many tests share: tiny slides with known content, the folder of real slides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.postgres import Postgres, running_postgres
from tests.required import required

WriteSlide = Callable[..., Path]


def pytest_configure() -> None:
    required()  # a mistyped name is found before any test runs


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


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    def write(
        rgb: NDArray[np.uint8], mpp: float | tuple[float, float] | None = 0.46, *, levels: int = 1, name: str = "slide.tif"
    ) -> Path:
        return write_tiff_slide(tmp_path / name, rgb, mpp, levels)

    return write


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
