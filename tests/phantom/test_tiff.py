"""The pyramid writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from hepamap.geometry import PixelSize, Size
from hepamap.phantom import PhantomSpec, write_phantom
from hepamap.phantom.tiff import TILE_PX, PyramidWriter, level_sizes

BLANK = np.full((TILE_PX, TILE_PX, 3), 240, np.uint8)


def test_levels_end_with_a_single_tile() -> None:
    assert level_sizes(Size(100_000, 70_000), 4) == [
        Size(100_000, 70_000),
        Size(25_000, 17_500),
        Size(6_250, 4_375),
        Size(1_563, 1_094),
        Size(391, 274),
    ]
    assert level_sizes(Size(512, 300), 4) == [Size(512, 300)]


def test_tiles_in_any_order_come_back_in_place(tmp_path: Path) -> None:
    path, size = tmp_path / "tiles.tif", Size(2 * TILE_PX, 2 * TILE_PX)
    with PyramidWriter(path, [size], PixelSize(0.25, 0.2527), blank=BLANK) as file:
        for column, row, grey in ((1, 1, 200), (0, 1, 150), (1, 0, 100), (0, 0, 50)):
            file.put(0, column, row, np.full((TILE_PX, TILE_PX, 3), grey, np.uint8))
    with openslide.OpenSlide(path) as slide:
        seen = np.asarray(slide.read_region((0, 0), 0, (1024, 1024)))[::TILE_PX, ::TILE_PX, 0]
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.2527, rel=1e-8)
    np.testing.assert_array_equal(seen, [[50, 100], [150, 200]])


def test_tiles_that_nobody_puts_are_blank_and_stored_once(tmp_path: Path) -> None:
    path, size = tmp_path / "blank.tif", Size(8 * TILE_PX, TILE_PX)
    with PyramidWriter(path, [size], PixelSize(1, 1), blank=BLANK) as file:
        file.put(0, 3, 0, np.full((TILE_PX, TILE_PX, 3), 90, np.uint8))
    with tifffile.TiffFile(path) as tiff:
        assert len(set(tiff.pages.first.dataoffsets)) == 2
        assert tiff.pages.first.tags["ResolutionUnit"].value == 3
    with openslide.OpenSlide(path) as slide:
        seen = np.asarray(slide.read_region((0, 0), 0, (8 * TILE_PX, 1)))[0, ::TILE_PX, 0]
    assert seen.tolist() == [240, 240, 240, 90, 240, 240, 240, 240]


def test_blank_glass_is_nearly_free(tmp_path: Path) -> None:
    spec = PhantomSpec.of_pixels(100_000, 70_000, mpp_x=0.23, content="glass", artefacts=False)
    write_phantom(spec, tmp_path / "glass.tif")
    assert (tmp_path / "glass.tif").stat().st_size < 1_000_000
    with openslide.OpenSlide(tmp_path / "glass.tif") as slide:
        assert slide.dimensions == (100_000, 70_000)
        assert np.asarray(slide.read_region((99_000, 69_000), 0, (99, 99)))[..., :3].min() > 220


def test_an_unfinished_slide_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(PhantomSpec.of_pixels(1000, 1000, mpp_x=1.0), tmp_path / "slide.tif", progress=stop)
    assert list(tmp_path.iterdir()) == []
