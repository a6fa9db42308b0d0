"""Random changes of training patches (pure arrays)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepamap.training.recipe import AugmentationSection


def augment(patches: NDArray[np.uint8], options: AugmentationSection, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change each patch at random and scale it for the network.

    Args:
        patches: (N, P, P, 3).
        options: which changes, how strong.
        rng: where chance comes from.

    Returns:
        (N, P, P, 3), 0 to 1.
    """
    count = len(patches)
    tables = colour_tables(
        np.exp(rng.uniform(-1, 1, (count, 3)) * np.log1p(options.stain)),
        1 + rng.uniform(-options.brightness, options.brightness, count),
    )
    turns = rng.integers(0, 4, count) if options.rotations else np.zeros(count, np.intp)
    flips = rng.integers(0, 2, (count, 2)) if options.flips else np.zeros((count, 2), np.intp)
    out = np.empty(patches.shape, np.float32)
    for i in range(count):
        turned = np.rot90(patches[i], turns[i])[:: -1 if flips[i, 0] else 1, :: -1 if flips[i, 1] else 1]
        for channel in range(3):
            out[i, ..., channel] = tables[i, channel][turned[..., channel]]
    return out


def colour_tables(density: NDArray[np.float64], light: NDArray[np.float64]) -> NDArray[np.float32]:
    """What each pixel value becomes under another stain strength and another light.

    Stain changes the optical density -log(v / 255), so glass stays glass; light scales what comes through. Both act on
    single values, so a table of 256 stands for them: far cheaper than logarithms of every pixel.

    Args:
        density: (N, 3) factor of the optical density of each channel.
        light: (N,) factor of the light.

    Returns:
        (N, 3, 256) values 0 to 1.
    """
    value = np.arange(256) / 255
    table = value ** density[:, :, None] * light[:, None, None]
    return np.clip(table, 0, 1).astype(np.float32)
