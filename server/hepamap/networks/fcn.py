"""FCN-8s on VGG16 (Long, Shelhamer and Darrell, 2015): a comparison model of the paper that answers for every pixel.

VGG16's two large dense layers, as convolutions, have 512 channels and not 4096, and the first sees 3 × 3 and not 7 × 7 values: a
patch of 64 px has only 2 × 2 of them. Scores of three depths are enlarged and added; enlarging is bilinear and not learned.
"""

from __future__ import annotations

from hepamap.networks.vgg16 import Tensor, encode

_CHANNELS, _DROPOUT = 512, 0.5


def fcn8s(inputs: Tensor) -> Tensor:
    """From images (N, P, P, 3) to softmax (N, P, P, 2); P is a multiple of 32."""
    from keras import layers

    _, pooled = encode(inputs)
    x = pooled[4]
    for name, side in (("fc6", 3), ("fc7", 1)):
        x = layers.Conv2D(_CHANNELS, side, padding="same", activation="relu", kernel_initializer="he_normal", name=name)(x)
        x = layers.Dropout(_DROPOUT, name=f"{name}_drop")(x)
    scores = layers.Conv2D(2, 1, name="score5")(x)
    for block in (4, 3):
        scores = layers.UpSampling2D(2, interpolation="bilinear", name=f"enlarge{block}")(scores)
        scores = layers.Add(name=f"add{block}")([scores, layers.Conv2D(2, 1, name=f"score{block}")(pooled[block - 1])])
    scores = layers.UpSampling2D(8, interpolation="bilinear", name="enlarge")(scores)
    return layers.Activation("softmax", dtype="float32", name="predictions")(scores)
