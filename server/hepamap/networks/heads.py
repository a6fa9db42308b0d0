"""The three heads: from features to the probabilities of (non-tumour, tumour).

Layers of FC512: `flatten`, `fc1`, `fc1_bn`, `fc1_relu`, `fc1_drop`, `fc2` … `fc2_drop`, `predictions`; of GAP: `gap`,
`predictions`. `predictions` is always the last dense layer and always float32, also under mixed precision, because
probabilities near 0 and 1 need it.
"""

from __future__ import annotations

from collections.abc import Callable

from hepamap.networks.vgg16 import Tensor

CLASSES = 2
_L2 = 1e-5


def _predictions(x: Tensor) -> Tensor:
    from keras import layers

    return layers.Dense(CLASSES, activation="softmax", dtype="float32", name="predictions")(x)


def _fully_connected(features: Tensor, l2: float | None) -> Tensor:
    from keras import layers, regularizers

    x = layers.Flatten(name="flatten")(features)
    for name, units in (("fc1", 4096), ("fc2", 512)):
        regularizer = regularizers.L2(l2) if l2 else None
        x = layers.Dense(units, use_bias=False, kernel_regularizer=regularizer, name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.Dropout(0.5, name=f"{name}_drop")(x)
    return _predictions(x)


def fc512(features: Tensor) -> Tensor:
    """Two dense layers of 4096 and 512, each with batch normalisation, ReLU and dropout 0.5."""
    return _fully_connected(features, None)


def fc512_l2(features: Tensor) -> Tensor:
    """FC512 with L2 = 1e-5 on the kernels of its two dense layers."""
    return _fully_connected(features, _L2)


def gap(features: Tensor) -> Tensor:
    """Global average pooling; the only head whose network does not depend on the patch side."""
    from keras import layers

    return _predictions(layers.GlobalAveragePooling2D(name="gap")(features))


HEADS: dict[str, Callable[[Tensor], Tensor]] = {"FC512": fc512, "FC512L2": fc512_l2, "GAP": gap}
