import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hepamap.resampling import AxisSampling, area_average


def slow_axis_weights(first: float, count: int, ratio: float, pixels: int) -> NDArray[np.float64]:
    """Share of each source pixel in each output pixel, one by one."""
    weights = np.zeros((count, pixels))
    for k in range(count):
        low, high = (first + k) * ratio, (first + k + 1) * ratio
        for p in range(pixels):
            weights[k, p] = max(0.0, min(high, p + 1) - max(low, p)) / (high - low)
    return weights


@settings(max_examples=60, deadline=None)
@given(st.floats(1.0, 9.0), st.floats(0, 3), st.integers(1, 6), st.integers(0, 2**31))
def test_equals_the_slow_average(ratio: float, first: float, count: int, seed: int) -> None:
    side = int(np.ceil((first + count) * ratio)) + 2
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    axis = AxisSampling(first, count, ratio)
    taps = axis.taps(1.0, range(count))
    window = image[taps.start : taps.end, taps.start : taps.end]
    weights = slow_axis_weights(first, count, ratio, side)
    slow = np.einsum("yp,xq,pqc->yxc", weights, weights, image.astype(np.float64))
    assert np.abs(area_average(window, taps, taps) - slow).max() <= 0.51


@given(st.floats(0.9, 9.0), st.integers(0, 200), st.integers(2, 40), st.data())
def test_a_pixel_has_the_same_weights_in_every_window(ratio: float, first: int, count: int, data: st.DataObject) -> None:
    axis = AxisSampling(float(first), count, ratio)
    k = data.draw(st.integers(0, count - 1))
    whole, alone = axis.taps(1.0, range(count)), axis.taps(1.0, range(k, k + 1))
    taps = alone.index.shape[1]
    assert np.array_equal(whole.index[k, :taps] + whole.start, alone.index[0] + alone.start)
    assert np.array_equal(whole.weight[k, :taps], alone.weight[0])
    assert not whole.weight[k, taps:].any()


def test_a_constant_stays_constant() -> None:
    window = np.full((40, 40, 3), 137, np.uint8)
    taps = AxisSampling(0.3, 5, 7.28).taps(1.0, range(5))
    assert np.all(area_average(window[taps.start : taps.end, taps.start : taps.end], taps, taps) == 137)


@pytest.mark.parametrize(("ratio", "whole"), [(4.0, 4), (1.0, 1), (3.65, None)])
def test_whole_ratios_are_recognised(ratio: float, whole: int | None) -> None:
    assert AxisSampling(8.0, 4, ratio).taps(1.0, range(4)).whole_ratio == whole


def test_the_number_of_pixels_is_rounded() -> None:
    assert AxisSampling.of(0, 100, 4.0).count == 25
    assert AxisSampling.of(0, 0.1, 4.0).count == 1
