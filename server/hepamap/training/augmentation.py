"""Random changes of training patches (pure arrays)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    return _changed(patches, _Changes.draw(len(patches), options, rng))


def augment_fields(
    fields: NDArray[np.uint8], labels: NDArray[np.int8], options: AugmentationSection, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Change each field at random; its label map turns with it.

    Args:
        fields: (N, F, F, 3).
        labels: (N, S, S), a label for each patch of a field.
        options: which changes, how strong.
        rng: where chance comes from.

    Returns:
        Fields (N, F, F, 3), 0 to 1, and their labels (N, S, S).
    """
    changes = _Changes.draw(len(fields), options, rng)
    return _changed(fields, changes), np.stack([changes.turned(i, labels[i]) for i in range(len(labels))])


@dataclass(frozen=True, slots=True)
class _Changes:
    """What is done to each of N pictures."""

    tables: NDArray[np.float32]
    """(N, 3, 256), see `colour_tables`."""
    turns: NDArray[np.intp]
    """(N,) quarter turns."""
    flips: NDArray[np.intp]
    """(N, 2) whether along y, along x."""

    @classmethod
    def draw(cls, count: int, options: AugmentationSection, rng: np.random.Generator) -> _Changes:
        tables = colour_tables(
            np.exp(rng.uniform(-1, 1, (count, 3)) * np.log1p(options.stain)),
            1 + rng.uniform(-options.brightness, options.brightness, count),
        )
        turns = rng.integers(0, 4, count) if options.rotations else np.zeros(count, np.intp)
        flips = rng.integers(0, 2, (count, 2)) if options.flips else np.zeros((count, 2), np.intp)
        return cls(tables, turns, flips)

    def turned(self, i: int, picture: NDArray[Any]) -> NDArray[Any]:
        """Picture i (H, W, …), turned and mirrored; a view."""
        flip = self.flips[i]
        return np.rot90(picture, self.turns[i])[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]


def _changed(pictures: NDArray[np.uint8], changes: _Changes) -> NDArray[np.float32]:
    out = np.empty(pictures.shape, np.float32)
    for i in range(len(pictures)):
        turned = changes.turned(i, pictures[i])
        for channel in range(3):
            out[i, ..., channel] = changes.tables[i, channel][turned[..., channel]]
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
