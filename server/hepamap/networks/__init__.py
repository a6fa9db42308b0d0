"""The networks of the paper, 8 backbones × 3 heads, as Keras 3 models.

Importing this package does not import keras: the builders do, when they are called.
"""

from __future__ import annotations

from hepamap.networks.registry import BACKBONES, HEADS, NetworkInvalidError, build_network
from hepamap.networks.weights import read_weights, set_weights

__all__ = ["BACKBONES", "HEADS", "NetworkInvalidError", "build_network", "read_weights", "set_weights"]
