"""The networks of the paper as Keras 3 models: 8 backbones × 3 heads, and U-Net and FCN, which answer for every pixel.

Importing this package does not import keras: the builders do, when they are called.
"""

from __future__ import annotations

from hepamap.networks.registry import BACKBONES, HEADS, PIXELS, SEGMENTERS, NetworkInvalidError, build_network, window_side_m
from hepamap.networks.weights import read_weights, set_weights

__all__ = [
    "BACKBONES",
    "HEADS",
    "PIXELS",
    "SEGMENTERS",
    "NetworkInvalidError",
    "build_network",
    "read_weights",
    "set_weights",
    "window_side_m",
]
