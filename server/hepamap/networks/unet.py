"""U-Net on VGG16: a comparison model of the paper that answers for every pixel.

The encoder's layers are named as VGG16's, so that its weights fit by name; the decoder's begin with `decode`.
"""

from __future__ import annotations

from hepamap.networks.vgg16 import Tensor, encode

_CHANNELS = {4: 256, 3: 128, 2: 64, 1: 32}
"""Of the decoder's steps, by the block that each is joined with."""


def unet(inputs: Tensor) -> Tensor:
    """From images (N, P, P, 3) to softmax (N, P, P, 2); P is a multiple of 16."""
    from keras import layers

    features, _ = encode(inputs)
    x = features[4]
    for block, channels in _CHANNELS.items():
        x = layers.UpSampling2D(2, name=f"decode{block}_up")(x)
        x = layers.Concatenate(name=f"decode{block}_join")([x, features[block - 1]])
        for step in ("a", "b"):
            x = layers.Conv2D(
                channels, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"decode{block}_{step}"
            )(x)
    return layers.Conv2D(2, 1, activation="softmax", dtype="float32", name="predictions")(x)
