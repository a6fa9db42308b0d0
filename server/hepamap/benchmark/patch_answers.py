"""What hepamap looks at on a slide, and what it answers there, for other programs: `python -m hepamap.benchmark.patch_answers`.

The file says which patches have tissue, so that all programs are timed on the same ones, and holds some of them, pixels and
probabilities, so that it can be checked that all of them run the same network. `peers.py` reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.errors import HepamapError, PackInvalidError, RegionEmptyError, RegionInvalidError
from hepamap.geometry import Point
from hepamap.model_pack import ModelPack, find_pack
from hepamap.pipeline import AnalysisParameters, analyse
from hepamap.predictor import Predictor
from hepamap.regions import parse_region
from hepamap.settings import Settings
from hepamap.slide import Slide

SAMPLE = 20
_NETWORK = ("VGG16DrV2", "GAP")


class _TissueOnly:
    """Stands in for a network where only the patches that it would be asked for are of interest."""

    batch_size = 4096

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros(len(patches), np.float32)


def patch_answers(
    slide: Slide, pack: ModelPack, *, region_l0: BaseGeometry | None = None, sample: int = SAMPLE, seed: int = 0
) -> dict[str, NDArray[np.generic]]:
    """Find the patches with tissue and answer for some of them.

    Args:
        slide: the open slide.
        pack: the model; its network must be VGG16DrV2 with GAP, the one that `peers.py` can build.
        region_l0: only this part, level-0 px.
        sample: how many patches are answered for.
        seed: of their choice.

    Returns:
        `corners_m` int (N, 2), the corner (x, y) of each patch with tissue, model px; `sample` int (K,), indices into it;
        `pixels` uint8 (K, patch, patch, 3), `probabilities` float32 (K,) in float32 arithmetic; `scale` (2,), level-0 px per
        model px along x and y; `size_l0` (2,), width and height of the slide; `mpp`, `patch`, `stride`; `weights`, a path.

    Raises:
        PackInvalidError: the network is another one.
        RegionEmptyError: there is no tissue.
        SlideError: the slide cannot be read.
    """
    spec = pack.manifest
    if (spec.network.backbone, spec.network.head) != _NETWORK:
        raise PackInvalidError(
            f"{pack.name} is a {spec.network.backbone} with {spec.network.head}.",
            cure=f"Compare a model that is a {' with '.join(_NETWORK)}, such as hcc-5x.",
        )
    parameters = AnalysisParameters(spec.input.mpp, spec.input.patch, spec.default_stride, 0.5, 1e4, 1e4, region_l0)
    found = analyse(slide, _TissueOnly(), parameters, {}).map
    cells = np.argwhere(np.isfinite(found.values))
    if not len(cells):
        raise RegionEmptyError("There is no tissue to compare programs on.", cure="Take another slide or region.")
    grid, lattice = found.lattice.grid, found.lattice
    chosen = np.sort(np.random.default_rng(seed).choice(len(cells), min(sample, len(cells)), replace=False))
    regions_m = [lattice.patch_region_m(int(column), int(row)) for row, column in cells]
    pixels = np.stack([slide.read_region(grid.l0_from_m(regions_m[index]), grid.mpp) for index in chosen])
    return {
        "corners_m": np.array([(region.x, region.y) for region in regions_m], np.int64),
        "sample": chosen,
        "pixels": pixels,
        "probabilities": Predictor.load(pack, "float32").predict(pixels),
        "scale": np.array([grid.scale_x, grid.scale_y]),
        "size_l0": np.array([slide.size_l0.width, slide.size_l0.height]),
        "mpp": np.array(grid.mpp),
        "patch": np.array(grid.patch_m),
        "stride": np.array(grid.stride_m),
        "weights": np.array(str((pack.folder / spec.weights.file).resolve())),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the answers for one slide; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hepamap.benchmark.patch_answers", description=main.__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", default="hcc-5x", help="model pack: id or id@version")
    parser.add_argument("--region", type=Path, help="GeoJSON file with the region to look at, in level-0 px")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file")
    given = parser.parse_args(arguments)
    try:
        pack = find_pack(Settings().models_dir, given.model)
        with Slide.open(given.slide) as slide:
            region = None if given.region is None else parse_region(_read(given.region), Point(0.0, 0.0), slide.size_l0)
            np.savez_compressed(given.out, **patch_answers(slide, pack, region_l0=region))  # type: ignore[arg-type]
    except HepamapError as error:
        sys.stderr.write(f"{error.message} {error.cure}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{given.out} cannot be written: {error.strerror}. Name a file in a folder that exists.\n")
        return 2
    return 0


def _read(region: Path) -> object:
    try:
        return json.loads(region.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegionInvalidError(
            f"The region file {region.name} cannot be read as GeoJSON.", cure="Export the region from QuPath as GeoJSON."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
