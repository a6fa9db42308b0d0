"""The paper's networks as Keras 2 writes them: built with tf-keras alone, by the tables of the paper, no line of ours."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

BLOCKS = ((1, 2, 64), (2, 2, 128), (3, 3, 256), (4, 3, 512), (5, 3, 512))
DROP_CONV = {"VGG16DrV1": {1: 0.1, 2: 0.15, 3: 0.2, 4: 0.25, 5: 0.25}, "VGG16DrV2": {3: 0.1, 4: 0.15, 5: 0.2}}
DROP_POOL = {"VGG16DrV3": {3: 0.1, 4: 0.1}, "VGG16DrBnV1": {3: 0.1, 4: 0.1}}
BN_CONV = {"VGG16BnV2": {1, 2, 3, 4, 5}, "VGG16DrBnV1": {2, 3, 4, 5}}
BN_POOL = {"VGG16BnV1": {1, 2, 3, 4}}


def keras2_model(backbone: str, head: str, side: int = 32, seed: int = 1) -> Any:
    """A model whose layers have the numbered names that Keras gives them, with lively random weights."""
    import tf_keras
    from tf_keras import layers

    inputs = tf_keras.Input((side, side, 3))
    if backbone == "VGG16":
        x = tf_keras.applications.VGG16(include_top=False, weights=None, input_tensor=inputs).output
    else:
        x = _trunk(layers, backbone, inputs)
    model = tf_keras.Model(inputs, _head(tf_keras, head, x))
    enliven(model, seed)
    return model


def _trunk(layers: Any, backbone: str, x: Any) -> Any:
    for block, count, channels in BLOCKS:
        for _ in range(count):
            x = layers.Conv2D(channels, (3, 3), activation="relu", padding="same", kernel_initializer="zeros")(x)
            if block in BN_CONV.get(backbone, ()):
                x = layers.BatchNormalization()(x)
            if block in DROP_CONV.get(backbone, {}):
                x = layers.Dropout(DROP_CONV[backbone][block])(x)
        x = layers.MaxPooling2D((2, 2), strides=(2, 2))(x)
        if block in BN_POOL.get(backbone, ()):
            x = layers.BatchNormalization()(x)
        if block in DROP_POOL.get(backbone, {}):
            x = layers.Dropout(DROP_POOL[backbone][block])(x)
    return x


def _head(tf_keras: Any, head: str, x: Any) -> Any:
    layers = tf_keras.layers
    if head == "GAP":
        return layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    x = layers.Flatten()(x)
    for units in (4096, 512):
        regularizer = tf_keras.regularizers.l2(1e-5) if head == "FC512L2" else None
        x = layers.Dense(units, use_bias=False, kernel_regularizer=regularizer, kernel_initializer="zeros")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
        x = layers.Dropout(0.5)(x)
    return layers.Dense(2, activation="softmax")(x)


_NORMAL = np.random.default_rng(0).standard_normal(2_400_000, np.float32)


def enliven(model: Any, seed: int = 1) -> None:
    """Weights that let the signal through, so that answers differ from patch to patch and from network to network."""
    rng = np.random.default_rng(seed)
    values: list[Any] = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        size = int(np.prod(shape))
        start = int(rng.integers(0, len(_NORMAL) - size))
        normal = _NORMAL[start : start + size].reshape(shape)
        if len(shape) > 1:
            values.append(normal * np.float32(np.sqrt(2 / np.prod(shape[:-1]))))
        elif "variance" in weight.name:
            values.append(1 + normal**2)
        elif "gamma" in weight.name:
            values.append(1 + 0.1 * normal)
        else:
            values.append(0.1 * normal)
    model.set_weights(values)


def in_float64(model: Any) -> Any:
    """The same model with the same weights, which computes in float64."""
    import tf_keras

    config = json.loads(json.dumps(model.get_config()).replace('"float32"', '"float64"'))
    twin = tf_keras.Model.from_config(config)
    twin.set_weights(model.get_weights())
    return twin


def spread(model: Any, patches: Any) -> Any:
    """Scale the last layer, so that the answers to some patches lie on both sides of 0.5, neither alike nor at an end.

    Noise looks much the same to a random network: scaling its small differences up further would scale float32's rounding up too.

    Returns:
        Its tumour probabilities (N,): what it answers by Keras 2.
    """
    import tf_keras

    last = model.layers[-1]
    features = tf_keras.Model(model.input, last.input)(patches, training=False).numpy()
    kernel = last.get_weights()[0]
    logits = features @ (kernel[:, 1] - kernel[:, 0])
    scale = 0.25 / logits.std()
    last.set_weights([kernel * scale, np.array([0, -logits.mean() * scale], np.float32)])
    return last(features).numpy()[:, 1]
