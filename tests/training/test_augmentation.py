from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.training.augmentation import augment, colour_tables
from hepamap.training.recipe import AugmentationSection

NONE = AugmentationSection(flips=False, rotations=False)


def patches(count: int = 64, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_nothing_asked_for_is_only_scaling() -> None:
    out = augment(patches(), NONE, np.random.default_rng(0))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, patches() / 255, atol=1e-6)


def test_turns_and_flips_give_the_eight_views_and_no_other() -> None:
    one = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(3, axis=3)
    views = {np.rot90(view, turn).tobytes() for turn in range(4) for view in (one[0], one[0][::-1])}
    many = augment(one.repeat(200, axis=0), AugmentationSection(), np.random.default_rng(0))
    assert {np.rint(view * 255).astype(np.uint8).tobytes() for view in many} == views


def test_stain_is_a_factor_of_optical_density_and_light_of_brightness() -> None:
    table = colour_tables(np.array([[2.0, 1.0, 0.5]]), np.array([0.9]))[0]
    value = 64 / 255
    np.testing.assert_allclose(table[:, 64], 0.9 * np.array([value**2, value, value**0.5]), rtol=1e-6)
    assert -np.log(table[0, 64] / 0.9) == pytest.approx(2 * -np.log(value), rel=1e-5)
    np.testing.assert_allclose(table[:, 255], 0.9, rtol=1e-6)  # glass keeps its colour, under less light
    np.testing.assert_array_equal(table[:, 0], 0)


def test_colour_stays_within_its_limits() -> None:
    grey = np.full((500, 2, 2, 3), 128, np.uint8)
    out = augment(grey, AugmentationSection(flips=False, rotations=False, stain=0.25), np.random.default_rng(0))
    density = np.log(out[:, 0, 0]) / np.log(128 / 255)
    assert 1 / 1.25 <= density.min() < 0.82
    assert 1.23 < density.max() <= 1.25 + 1e-5
    bright = augment(grey, AugmentationSection(flips=False, rotations=False, brightness=0.1), np.random.default_rng(0))
    assert 0.9 * 128 / 255 <= bright.min() < bright.max() <= 1.1 * 128 / 255 + 1e-6
    assert np.ptp(bright, axis=3).max() == 0


def test_the_same_seed_gives_the_same_patches() -> None:
    options = AugmentationSection(brightness=0.1, stain=0.2)
    first, second = (augment(patches(), options, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
