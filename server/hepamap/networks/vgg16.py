"""The eight backbones: VGG16 and the paper's changes to it.

Each builder takes a Keras tensor (N, P, P, 3) and returns the features (N, P/32, P/32, 512). Layers are named as in
Keras' VGG16, so that its weights fit by name: `block1_conv1`, `block1_pool`. What the paper adds is named by the layer
that it follows: `block3_drop1` and `block3_bn1` follow `block3_conv1`, `block3_drop` and `block3_bn` follow
`block3_pool`. The order inside a step is the authors': convolution with ReLU, batch normalisation, dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Tensor = Any
"""A symbolic Keras tensor (keras ships no types)."""

_BLOCKS = ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512))
"""Number, convolutions and channels of each block."""


def _trunk(
    inputs: Tensor,
    *,
    drop_conv: Mapping[int, float] | None = None,
    drop_pool: Mapping[int, float] | None = None,
    bn_conv: frozenset[int] = frozenset(),
    bn_pool: frozenset[int] = frozenset(),
) -> Tensor:
    """VGG16's five blocks with additions.

    Args:
        inputs: images (N, P, P, 3).
        drop_conv: dropout rate after each convolution of a block, by the block's number.
        drop_pool: dropout rate after the max-pooling of a block.
        bn_conv: blocks with batch normalisation after each convolution.
        bn_pool: blocks with batch normalisation after their max-pooling.

    Returns:
        Features (N, P/32, P/32, 512).
    """
    from keras import layers

    drop_conv, drop_pool = drop_conv or {}, drop_pool or {}
    x = inputs
    for block, convolutions, channels in _BLOCKS:
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv{i}")(x)
            if block in bn_conv:
                x = layers.BatchNormalization(name=f"block{block}_bn{i}")(x)
            if block in drop_conv:
                x = layers.Dropout(drop_conv[block], name=f"block{block}_drop{i}")(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        if block in bn_pool:
            x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        if block in drop_pool:
            x = layers.Dropout(drop_pool[block], name=f"block{block}_drop")(x)
    return x


def encode(inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """VGG16's blocks for a network that needs them all.

    Returns:
        What comes out of the last convolution of each block, and of each block's pooling.
    """
    from keras import layers

    features, pooled = [], []
    x = inputs
    for block, convolutions, channels in _BLOCKS:
        for i in range(1, convolutions + 1):
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"block{block}_conv{i}")(x)
        features.append(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        pooled.append(x)
    return features, pooled


def vgg16(inputs: Tensor) -> Tensor:
    """Keras' own VGG16."""
    import keras

    return keras.applications.VGG16(include_top=False, weights=None, input_tensor=inputs).output


def vgg16_base(inputs: Tensor) -> Tensor:
    """The same, built by hand."""
    return _trunk(inputs)


def vgg16_dr_v1(inputs: Tensor) -> Tensor:
    """Dropout after each convolution, from 0.1 in block 1 to 0.25 in blocks 4 and 5."""
    return _trunk(inputs, drop_conv={1: 0.1, 2: 0.15, 3: 0.2, 4: 0.25, 5: 0.25})


def vgg16_dr_v2(inputs: Tensor) -> Tensor:
    """Dropout after each convolution of the last three blocks; the paper's best."""
    return _trunk(inputs, drop_conv={3: 0.1, 4: 0.15, 5: 0.2})


def vgg16_dr_v3(inputs: Tensor) -> Tensor:
    """Dropout after the max-pooling of blocks 3 and 4."""
    return _trunk(inputs, drop_pool={3: 0.1, 4: 0.1})


def vgg16_bn_v1(inputs: Tensor) -> Tensor:
    """Batch normalisation after the max-pooling of the first four blocks."""
    return _trunk(inputs, bn_pool=frozenset({1, 2, 3, 4}))


def vgg16_bn_v2(inputs: Tensor) -> Tensor:
    """Batch normalisation after each convolution."""
    return _trunk(inputs, bn_conv=frozenset({1, 2, 3, 4, 5}))


def vgg16_dr_bn_v1(inputs: Tensor) -> Tensor:
    """VGG16DrV3 with batch normalisation after each convolution of the last four blocks."""
    return _trunk(inputs, drop_pool={3: 0.1, 4: 0.1}, bn_conv=frozenset({2, 3, 4, 5}))


BACKBONES: dict[str, Callable[[Tensor], Tensor]] = {
    "VGG16": vgg16,
    "VGG16Base": vgg16_base,
    "VGG16DrV1": vgg16_dr_v1,
    "VGG16DrV2": vgg16_dr_v2,
    "VGG16DrV3": vgg16_dr_v3,
    "VGG16BnV1": vgg16_bn_v1,
    "VGG16BnV2": vgg16_bn_v2,
    "VGG16DrBnV1": vgg16_dr_bn_v1,
}
