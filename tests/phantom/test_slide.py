from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from shapely.geometry import shape

from hepamap.phantom import PhantomSpec, truth_of, write_phantom


@pytest.fixture(scope="module")
def spec() -> PhantomSpec:
    return PhantomSpec("resection", 1500, 1200, 1.0, 1.25, seed=4)


@pytest.fixture(scope="module")
def files(spec: PhantomSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(spec, folder / "slide.tif", folder / "truth.geojson")
    return folder / "slide.tif", folder / "truth.geojson"


def test_openslide_reads_pyramid_and_pixel_size(files: tuple[Path, Path]) -> None:
    with openslide.OpenSlide(files[0]) as slide:
        assert slide.level_dimensions == ((1500, 960), (375, 240))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.0, rel=1e-6)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(1.25, rel=1e-6)


def test_levels_show_the_same_picture(files: tuple[Path, Path]) -> None:
    with openslide.OpenSlide(files[0]) as slide:
        fine = np.asarray(slide.read_region((0, 0), 0, (1500, 960)).convert("RGB"), float)
        coarse = np.asarray(slide.read_region((0, 0), 1, (375, 240)).convert("RGB"), float)
    # JPEG halves the colour channels of the coarse level only, so it is the brightness that must agree.
    averaged = fine.mean(axis=2).reshape(240, 4, 375, 4).mean(axis=(1, 3))
    here = np.abs(averaged - coarse.mean(axis=2)).mean()
    shifted = [np.abs(np.roll(averaged, step, axis) - coarse.mean(axis=2)).mean() for step in (-1, 1) for axis in (0, 1)]
    assert here < 4
    assert min(shifted) > 2.5 * here


def test_truth_file_is_truth_in_level0_px(spec: PhantomSpec, files: tuple[Path, Path]) -> None:
    features = json.loads(files[1].read_text())["features"]
    truth = truth_of(spec)
    for name, expected_um in (("Tumor", truth.tumour), ("Non-tumor", truth.liver)):
        parts = [shape(f["geometry"]) for f in features if f["properties"]["classification"]["name"] == name]
        assert all(part.is_valid for part in parts)
        assert sum(part.area for part in parts) * 1.25 == pytest.approx(expected_um.area, rel=1e-4)
