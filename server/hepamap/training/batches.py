"""Batches for Keras' `fit`. Imports keras: import it only where training runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hepamap.training.augmentation import augment, augment_fields
from hepamap.training.dataset import PatchSet
from hepamap.training.fields import FieldSet
from hepamap.training.recipe import AugmentationSection

CLASSES = 2
PATCHES, FIELDS = "patches", "fields"
"""Names of inputs and outputs where a network is trained in both forms."""

Batch = tuple[Any, Any]
"""What `fit` takes: pixels (N, P, P, 3) and labels (N, 2), or masks (N, P, P); or two dictionaries that hold these under
`patches`, and under `fields` pixels (M, F, F, 3) and label maps (M, S, S)."""


@dataclass(frozen=True, slots=True)
class FieldBatches:
    """The fields that go with the patches of each step."""

    fields: FieldSet
    indices: NDArray[np.intp]
    """Which of them."""
    per_step: int


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Augmented random batches: every patch once before any comes again; the same seed gives the same batches.

    On TensorFlow, Keras makes batches in another thread and ahead of the training, also with one worker. More workers would
    share a queue that outlives an epoch, and a training that ends early could leave batches in it.
    """

    def __init__(
        self,
        patches: PatchSet,
        batch_size: int,
        steps: int | None,
        options: AugmentationSection,
        seed: int,
        *,
        fields: FieldBatches | None = None,
        masks: bool = False,
    ) -> None:
        super().__init__(workers=1)
        self._patches = patches
        self._masks = masks
        self._batch_size = batch_size
        self._steps = steps or math.ceil(len(patches) / batch_size)
        self._options = options
        self._seed = seed
        self._fields = fields
        self.epoch = 0
        """Which epoch's batches are asked for; the training sets it (Keras' own calls after an epoch begin before the first)."""

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Batch:
        number = self.epoch * self._steps + index
        rng = np.random.default_rng([self._seed, 1, number])
        chosen = self.indices(number)
        if self._masks:
            return augment_fields(self._patches.take(chosen), self._patches.take_masks(chosen), self._options, rng)
        pixels, labels = augment(self._patches.take(chosen), self._options, rng), one_hot(self._patches.labels[chosen])
        if self._fields is None:
            return pixels, labels
        drawn = _cards(number, self._fields.per_step, len(self._fields.indices), [self._seed, 4])
        taken = self._fields.fields.take(self._fields.indices[drawn])
        rng = np.random.default_rng([self._seed, 3, number])
        fields, maps = augment_fields(*taken, self._options, rng)
        return {PATCHES: pixels, FIELDS: fields}, {PATCHES: labels, FIELDS: maps}

    def indices(self, number: int) -> NDArray[np.intp]:
        """Which patches the batch of a number holds, counted over all epochs; (batch_size,)."""
        return _cards(number, self._batch_size, len(self._patches), [self._seed, 0])


def _cards(number: int, size: int, total: int, seed: list[int]) -> NDArray[np.intp]:
    """Hand `number` of `size` cards from decks of `total`, each deck shuffled by itself; (size,)."""
    decks, cards = np.divmod(np.arange(number * size, (number + 1) * size), total)
    order = {int(deck): np.random.default_rng([*seed, int(deck)]).permutation(total) for deck in np.unique(decks)}
    return np.array([order[int(deck)][card] for deck, card in zip(decks, cards, strict=True)], np.intp)


class PlainBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Patches in order, unchanged but for the scaling; with fields, each step has as many, all of them once before any again."""

    def __init__(
        self,
        patches: PatchSet,
        indices: NDArray[np.intp],
        batch_size: int,
        *,
        fields: FieldBatches | None = None,
        masks: bool = False,
    ) -> None:
        super().__init__(workers=1)
        self._patches = patches
        self._indices = indices
        self._masks = masks
        self._batch_size = batch_size
        self._fields = fields

    def __len__(self) -> int:
        return math.ceil(len(self._indices) / self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._indices[index * self._batch_size : (index + 1) * self._batch_size]
        if self._masks:
            return scaled(self._patches.take(chosen)), self._patches.take_masks(chosen)
        pixels, labels = scaled(self._patches.take(chosen)), one_hot(self._patches.labels[chosen])
        if self._fields is None:
            return pixels, labels
        total = len(self._fields.indices)
        count = math.ceil(total / len(self))
        fields, maps = self._fields.fields.take(self._fields.indices[np.arange(index * count, (index + 1) * count) % total])
        return {PATCHES: pixels, FIELDS: scaled(fields)}, {PATCHES: labels, FIELDS: maps}


def some_fields(fields: FieldSet, count: int | None, seed: int) -> NDArray[np.intp]:
    """Numbers of at most so many fields, drawn at random once; sorted."""
    most = len(fields) if count is None else min(count, len(fields))
    return np.sort(np.random.default_rng([seed, 5]).permutation(len(fields))[:most])


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


def some_of_each(patches: PatchSet, counts: Sequence[int | None], seed: int) -> PatchSet:
    """At most so many patches of each class (non-tumour, tumour), drawn at random once; None is all."""
    rng = np.random.default_rng([seed, 6])
    drawn = [rng.permutation(np.flatnonzero(patches.labels == label))[:count] for label, count in enumerate(counts)]
    return patches.only(np.sort(np.concatenate(drawn)))
