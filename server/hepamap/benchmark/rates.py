"""What the machine can do at best, and what a network asks of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.networks.dense import UNIT_M
from hepamap.predictor import Predictor

_AT_LEAST_S = 3.0
_AT_LEAST_RUNS = 3
_TURNS = 7
_CONVOLUTION = (4, 64, 64, 256)  # images, height, width, channels: the shape in which VGG16 spends most of its time
_MATRIX = 2048


def median_seconds(work: Callable[[], Any]) -> float:
    """Median time of a piece of work that was done once before, so that nothing is compiled in it."""
    work()
    times: list[float] = []
    while len(times) < _AT_LEAST_RUNS or sum(times) < _AT_LEAST_S:
        times.append(_seconds(work))
    return statistics.median(times)


def machine_gflops(policy: str) -> dict[str, float]:
    """Rates of a 3 × 3 convolution and of a matrix product in the backend and precision of a network, 10⁹ operations a second."""
    import keras

    from hepamap.predictor.backend import policy as under

    count, height, width, channels = _CONVOLUTION
    with under(policy):
        image = keras.Input((height, width, channels))
        convolved = keras.layers.Conv2D(channels, 3, padding="same", activation="relu")(image)
        convolution = keras.Model(image, keras.layers.GlobalAveragePooling2D(dtype="float32")(convolved))
        row = keras.Input((_MATRIX,))
        product = keras.Model(row, keras.layers.Dense(_MATRIX, use_bias=False)(row))
    found = {}
    for name, model, shape, operations in (
        ("convolution", convolution, _CONVOLUTION, 18 * count * height * width * channels**2),
        ("matrix_product", product, (_MATRIX, _MATRIX), 2 * _MATRIX**3),
    ):
        model.compile(jit_compile=False)
        values = np.random.default_rng(0).random(shape, np.float32)
        found[name] = operations / median_seconds(lambda m=model, v=values: m.predict_on_batch(v)) / 1e9  # type: ignore[misc]
    return found


def operations_per_pixel(model: Any) -> float:
    """Multiplications and additions of a network's convolutions for each of its pixels, borders counted in full."""
    import keras

    side = int(model.input_shape[1])
    total = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, channels = layer.output.shape
            kernel_height, kernel_width, incoming, _ = layer.kernel.shape
            total += 2.0 * kernel_height * kernel_width * incoming * channels * height * width
    return total / side**2


@dataclass(frozen=True, slots=True)
class Alone:
    """A network on arrays that are ready: no slide, no reading; medians."""

    patch: float
    """Patches a second, in batches."""
    dense: float
    """Patches a second out of a lane, those of a stride among its answers."""
    dense_over_patch: float
    """Not of the two above: of each turn, so that what slowed the machine down for a while slowed both ways."""
    fed_per_s: float
    """Pixels that the lane takes a second."""


def network_alone(predictor: Predictor, positions: int, stride_m: int) -> Alone:
    """Patch mode and a lane of a width in turns."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 256, (4 * predictor.batch_size, predictor.patch_m, predictor.patch_m, 3), np.uint8)
    lane = predictor.open_lane(positions)
    pixels = random.integers(0, 256, (4 * lane.rows_m, lane.width_m, 3), np.uint8)
    turns = [
        (len(patches) / of_patches, _answers(pixels, positions, stride_m) / of_lane, pixels[..., 0].size / of_lane)
        for of_patches, of_lane in seconds_in_turns(lambda: predictor.predict(patches), lambda: lane.feed(pixels))
    ]
    patch, dense, fed = (statistics.median(rates) for rates in zip(*turns, strict=True))
    return Alone(patch, dense, statistics.median(turn[1] / turn[0] for turn in turns), fed)


def seconds_in_turns(first: Callable[[], Any], second: Callable[[], Any]) -> list[tuple[float, float]]:
    """Times of two pieces of work, one after the other and again; both were done once before."""
    first()
    second()
    return [(_seconds(first), _seconds(second)) for _ in range(_TURNS)]


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _answers(pixels: NDArray[np.uint8], positions: int, stride_m: int) -> float:
    return len(pixels) / UNIT_M * positions / (stride_m / UNIT_M) ** 2
