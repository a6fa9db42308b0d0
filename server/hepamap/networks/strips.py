"""The dense form as an endless strip: rows of pixels in at the top, rows of answers out at the bottom, nothing computed twice.

A lane of a slide is fed from above in strips of equal height. Every convolution keeps the last two rows that it saw (its
carry) and goes on from there, so neither a seam nor a halo comes between strips. Along the lane's width nothing is padded:
a lane reads 90 model px more on each side than its answers need, the exact reach of `block5_conv3`, and what comes out is what
one pass over the whole slide would give.

Rows come out late: answers of a patch follow when the last row that it depends on was fed. A lane starts in the middle of a
slide after `REACH_UNITS` rows of units, by when the carries hold nothing of what was there before.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap.networks.dense import UNIT_M, dense_head, require_dense, trunk_layers
from hepamap.networks.vgg16 import Tensor

if TYPE_CHECKING:
    import keras

REACH_M = 90
"""How far `block5_conv3` sees beyond the 16 px that a value stands for, model px: (196 - 16) / 2 of VGG16's receptive field."""
REACH_UNITS = 6
"""The same in whole units of 16 px."""
PHASE_M = 6
"""A lane's feed begins so many px above a multiple of 16: every pooling then finds its pairs as on the whole slide."""

# Blocks that carry once, before their first convolution, and compute four rows of a strip twice: with as many rows as the
# first blocks have, that costs less than copying their activations for each convolution.
_CARRY_ONCE = frozenset({"block1", "block2"})


def lane_width_m(positions: int, patch_m: int) -> int:
    """Width of a lane that has so many patches beside each other, 16 px apart, model px."""
    return (positions - 1) * UNIT_M + patch_m + 2 * REACH_M


def latency_units(patch_m: int) -> int:
    """Rows of units by which an answer comes after its patch's first row."""
    return REACH_UNITS + patch_m // UNIT_M - 1


@dataclass(frozen=True, slots=True)
class StripNetwork:
    """A network for strips of one size.

    Attributes:
        model: from [strip (1, H, W, 3), *carries] to [softmax (1, H / 16, positions, 2), *carries].
        carry_shapes: shape of each carry.
        carry_dtypes: NumPy type of each carry.
    """

    model: keras.Model
    carry_shapes: tuple[tuple[int, ...], ...]
    carry_dtypes: tuple[str, ...]

    def first_carries(self) -> list[NDArray[Any]]:
        """Carries to begin with: zeros, which the first `REACH_UNITS` rows push out."""
        return [np.zeros(shape, dtype) for shape, dtype in zip(self.carry_shapes, self.carry_dtypes, strict=True)]


Unpadded = dict[str, Any]
"""Convolutions without padding, by name: one set serves the strip networks of all sizes."""


def strip_network(
    model: keras.Model, rows_m: int | None, positions: int, unpadded: Unpadded, *, segments: int = 1
) -> StripNetwork:
    """Build the strip form of a network with a GAP head, with the network's weights.

    Args:
        model: a network of the registry.
        rows_m: height of a strip, model px, a multiple of 16; None: each strip may have another one.
        positions: patches beside each other, 16 px apart.
        unpadded: filled at the first call; give it again for strips of another size of the same network.
        segments: into how many the strip's width is cut in each block, where they are computed as one batch.

    Raises:
        NetworkInvalidError: the network has no dense mode.
    """
    import keras

    require_dense(model)
    patch_m = int(model.input_shape[1])
    builder = _Builder(unpadded, segments)
    strip = keras.Input((rows_m, lane_width_m(positions, patch_m), 3), batch_size=1, name="strip")
    x: Tensor = strip
    for name, block in groupby(trunk_layers(model), key=lambda layer: layer.name.split("_")[0]):
        x = builder.block(name, list(block), x)
    answers = dense_head(builder.carry(x, patch_m // UNIT_M - 1), patch_m, model.get_layer("predictions"))
    strips = keras.Model([strip, *builder.states], [answers, *builder.next_states], name=f"{model.name}_strip")
    for name, layer in unpadded.items():
        layer.set_weights(model.get_layer(name).get_weights())
    return StripNetwork(
        strips, tuple(tuple(state.shape) for state in builder.states), tuple(str(state.dtype) for state in builder.states)
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the width of a strip is cut for one block: segments overlap by what its convolutions see, so nothing changes.

    On CPUs a convolution of one wide image was measured at half the rate of the same work in a batch of narrow ones.
    """

    columns: int
    """Of the block's output, all segments together."""
    of_segment: int
    """Of a segment's output."""
    reach: int
    """By how many columns the block's convolutions make their input narrower."""
    shrinks: int
    """Columns of the convolved for one of the output: 2 where the block ends in a pooling."""

    @classmethod
    def of(cls, width: int, reach: int, shrinks: int, segments: int) -> _Cut:
        """For an input of a width."""
        columns = (width - reach) // shrinks
        return cls(columns, -(-columns // segments), reach, shrinks)

    @property
    def starts(self) -> list[int]:
        """First output column of each segment; the last begins earlier where the columns do not divide evenly."""
        return [min(start, self.columns - self.of_segment) for start in range(0, self.columns, self.of_segment)]

    def apart(self, x: Tensor) -> Tensor:
        """(1, H, W, C) to (segments, H, w, C)."""
        import keras

        width = self.shrinks * self.of_segment + self.reach
        first = [self.shrinks * start for start in self.starts]
        return x if len(first) == 1 else keras.ops.concatenate([x[:, :, left : left + width] for left in first], axis=0)

    def together(self, x: Tensor) -> Tensor:
        """(segments, h, w, C) to (1, h, W, C); what two segments have is taken from the first."""
        import keras

        starts = self.starts
        if len(starts) == 1:
            return x
        parts = [x[i : i + 1, :, i * self.of_segment - start :] for i, start in enumerate(starts)]
        return keras.ops.concatenate(parts, axis=2)


class _Builder:
    """Puts a strip network together and collects its carries."""

    def __init__(self, unpadded: Unpadded, segments: int) -> None:
        self._unpadded = unpadded
        self._segments = segments
        self.states: list[Tensor] = []
        self.next_states: list[Tensor] = []

    def block(self, name: str, block: list[keras.layers.Layer], x: Tensor) -> Tensor:
        """One block of VGG16 on a strip."""
        from keras import layers

        convolutions = sum(isinstance(layer, layers.Conv2D) for layer in block)
        shrinks = 2 if any(isinstance(layer, layers.MaxPooling2D) for layer in block) else 1
        once = name in _CARRY_ONCE
        if once:
            x = self.carry(x, 2 * convolutions)
        cut = _Cut.of(x.shape[2], 2 * convolutions, shrinks, self._segments)
        x = cut.apart(x)
        for layer in block:
            x = self._without_padding(layer)(x if once else self.carry(x, 2)) if isinstance(layer, layers.Conv2D) else layer(x)
        return cut.together(x)

    def carry(self, x: Tensor, rows: int) -> Tensor:
        """Put the last rows of the strip before on top of x."""
        import keras

        state = keras.Input((rows, *x.shape[2:]), batch_size=x.shape[0], dtype=x.dtype, name=f"carry{len(self.states)}")
        joined = keras.ops.concatenate([state, x], axis=1)
        self.states.append(state)
        self.next_states.append(joined[:, -rows:])
        return joined

    def _without_padding(self, layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
        if layer.name not in self._unpadded:
            self._unpadded[layer.name] = type(layer).from_config({**layer.get_config(), "padding": "valid"})
        return self._unpadded[layer.name]
