"""Batches for Keras' `fit`. Imports keras: import it only where training runs."""

from __future__ import annotations

import math

import keras
import numpy as np
from numpy.typing import NDArray

from hepamap.training.augmentation import augment
from hepamap.training.dataset import PatchSet
from hepamap.training.recipe import AugmentationSection

CLASSES = 2
Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Augmented random batches: every patch once before any comes again; the same seed gives the same batches."""

    def __init__(self, patches: PatchSet, batch_size: int, steps: int | None, options: AugmentationSection, seed: int) -> None:
        super().__init__(workers=1)
        self._patches = patches
        self._batch_size = batch_size
        self._steps = steps or math.ceil(len(patches) / batch_size)
        self._options = options
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Batch:
        number = self._epoch * self._steps + index
        rng = np.random.default_rng([self._seed, 1, number])
        chosen = self.indices(number)
        return augment(self._patches.take(chosen), self._options, rng), one_hot(self._patches.labels[chosen])

    def on_epoch_end(self) -> None:
        """Keras calls it after each epoch."""
        self._epoch += 1

    def indices(self, number: int) -> NDArray[np.intp]:
        """Which patches the batch of a number holds, counted over all epochs; (batch_size,)."""
        positions = np.arange(number * self._batch_size, (number + 1) * self._batch_size)
        decks, cards = np.divmod(positions, len(self._patches))
        order = {
            int(deck): np.random.default_rng([self._seed, 0, int(deck)]).permutation(len(self._patches))
            for deck in np.unique(decks)
        }
        return np.array([order[int(deck)][card] for deck, card in zip(decks, cards, strict=True)], np.intp)


class PlainBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Patches in order, unchanged but for the scaling."""

    def __init__(self, patches: PatchSet, indices: NDArray[np.intp], batch_size: int) -> None:
        super().__init__(workers=1)
        self._patches = patches
        self._indices = indices
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._indices) / self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._indices[index * self._batch_size : (index + 1) * self._batch_size]
        return scaled(self._patches.take(chosen)), one_hot(self._patches.labels[chosen])


def scaled(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB 0-255 to 0-1, as every network of this package wants it."""
    return np.asarray(patches / np.float32(255), np.float32)


def one_hot(labels: NDArray[np.int8]) -> NDArray[np.float32]:
    """Labels (N,) as (N, 2)."""
    return np.eye(CLASSES, dtype=np.float32)[labels]


def subset(patches: PatchSet, count: int | None, seed: int) -> NDArray[np.intp]:
    """Numbers of at most so many patches, drawn at random once, both classes alike; sorted, so reads go forward."""
    if count is None or count >= len(patches):
        return np.arange(len(patches))
    rng = np.random.default_rng([seed, 2])
    of_class = [np.flatnonzero(patches.labels == label) for label in range(CLASSES)]
    drawn = [rng.permutation(numbers)[: count // CLASSES] for numbers in of_class]
    return np.sort(np.concatenate(drawn))
