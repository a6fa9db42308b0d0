"""The same networks over a field: convolutions once, an answer for every patch in it (design: dense mode).

For a head of global average pooling, moving the patch by a multiple of 16 model px moves nothing inside the network
but whole values of `block5_conv3`. So the answers of all patches of a field follow from one pass: `block5_pool` becomes a
2 × 2 maximum with stride 1, and a patch's own pooling is every second of its values. Only the border of a patch sees
something else than in patch mode: its real neighbours, where a single patch has zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hepamap.networks.registry import NetworkInvalidError
from hepamap.networks.vgg16 import Tensor

if TYPE_CHECKING:
    import keras

UNIT_M = 16
"""Side of what one value of `block5_conv3` stands for, model px: four poolings before it."""
LAST_POOL = "block5_pool"

_DENSE_HEADS = frozenset({"GAP"})


def can_be_dense(head: str) -> bool:
    """Whether a head's network works on fields: it must not flatten."""
    return head in _DENSE_HEADS


def require_dense(model: keras.Model) -> None:
    """Check that a network works on fields.

    Raises:
        NetworkInvalidError: its head is none of global average pooling.
    """
    if not any(layer.name == "gap" for layer in model.layers):
        raise NetworkInvalidError(
            f"The network {model.name} has no dense mode: its head flattens the features of one patch.",
            cure="Use mode “patch”, or a network with the GAP head.",
        )


def field_network(model: keras.Model, field_m: int) -> keras.Model:
    """The dense form of a patch network, on fields of one size; shares every layer, and so every weight, with it.

    Zeros stand around the field, as around a patch in patch mode.

    Args:
        model: a network of the registry with a GAP head.
        field_m: side of the field, model px; a multiple of 16, at least the patch side.

    Returns:
        A model from float RGB/255 (N, F, F, 3) to softmax (N, rows, columns, 2); rows and columns are (F - P) / 16 + 1, the
        patch of row i and column j begins at model px (16 j, 16 i).

    Raises:
        NetworkInvalidError: the network has no dense mode, or the field's side does not fit it.
    """
    import keras

    require_dense(model)
    patch_m = int(model.input_shape[1])
    if field_m % UNIT_M or field_m < patch_m:
        raise NetworkInvalidError(
            f"A field of {field_m} px does not fit a patch of {patch_m} px.",
            cure="Use a multiple of 16, not below the patch side.",
        )
    inputs = keras.Input((field_m, field_m, 3), name="fields")
    x = inputs
    for layer in trunk_layers(model):
        x = layer(x)
    return keras.Model(inputs, dense_head(x, patch_m, model.get_layer("predictions")), name=f"{model.name}_field")


def trunk_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers between a network's input and its last pooling, in order."""
    names = [layer.name for layer in model.layers]
    return list(model.layers[1 : names.index(LAST_POOL)])


def dense_head(features: Tensor, patch_m: int, predictions: keras.Layer) -> Tensor:
    """From the values of `block5_conv3` to an answer for each patch.

    Args:
        features: (N, h, w, 512), one value for 16 model px.
        patch_m: patch side, model px.
        predictions: the network's last layer.

    Returns:
        Softmax (N, h - P/16 + 1, w - P/16 + 1, 2).
    """
    from keras import layers, ops

    pooled = layers.MaxPooling2D(2, strides=1, name=f"{LAST_POOL}_dense")(features)
    # As global average pooling does it: sums of 16-bit numbers lose what they are there for.
    exact = ops.cast(pooled, "float32")
    return predictions(_mean_of_every_second(exact, patch_m // (2 * UNIT_M)))


def _mean_of_every_second(pooled: Tensor, count: int) -> Tensor:
    """Mean over count × count values, two apart: what a patch's own pooling would have given to its average.

    One axis after the other: 2 · count sums instead of count².
    """
    down = pooled[:, : _end(0, count)]
    for i in range(1, count):
        down = down + pooled[:, 2 * i : _end(i, count)]
    across = down[:, :, : _end(0, count)]
    for i in range(1, count):
        across = across + down[:, :, 2 * i : _end(i, count)]
    return across / float(count**2)


def _end(i: int, count: int) -> int | None:
    """Where the i-th of `count` equally long slices ends, two apart, the last of which reaches the end of an axis."""
    return 2 * (i - count + 1) or None
