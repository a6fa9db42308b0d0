"""One function that builds any of the paper's networks from its two names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hepamap.errors import ModelError
from hepamap.networks.fcn import fcn8s
from hepamap.networks.heads import HEADS
from hepamap.networks.unet import unet
from hepamap.networks.vgg16 import BACKBONES, Tensor

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "HEADS", "PIXELS", "SEGMENTERS", "NetworkInvalidError", "build_network", "window_side_m"]

SEGMENTERS: dict[str, Callable[[Tensor], Tensor]] = {"UNet": unet, "FCN8s": fcn8s}
"""Networks that answer for every pixel; their head is called `PIXELS`."""
PIXELS = "PIXELS"

# Five poolings halve the side five times.
PATCH_STEP_M = 32


class NetworkInvalidError(ModelError):
    """There is no such backbone or head, or the patch side does not fit the network."""

    code = "network_invalid"


def build_network(backbone: str, head: str, patch_m: int) -> keras.Model:
    """Build a network with random weights.

    Args:
        backbone: a key of `BACKBONES`, or of `SEGMENTERS`.
        head: a key of `HEADS`, or `PIXELS`.
        patch_m: side of the patch, model px; a multiple of 32.

    Returns:
        A model from float RGB/255 (N, P, P, 3) to softmax probabilities (N, 2), or (N, P, P, 2) with `PIXELS`; index 1 is tumour.

    Raises:
        NetworkInvalidError: for an unknown name or a patch side that five poolings do not divide.
    """
    check_network(backbone, head, patch_m)
    import keras

    inputs = keras.Input((patch_m, patch_m, 3), name="patches")
    outputs = SEGMENTERS[backbone](inputs) if head == PIXELS else HEADS[head](BACKBONES[backbone](inputs))
    return keras.Model(inputs, outputs, name=f"{backbone}_{head}")


def check_network(backbone: str, head: str, patch_m: int) -> None:
    """Refuse what `build_network` cannot build, without importing keras."""
    backbones, heads = (SEGMENTERS, {PIXELS: None}) if head == PIXELS else (BACKBONES, HEADS)
    for kind, name, known in (("backbone", backbone, backbones), ("head", head, heads)):
        if name not in known:
            raise NetworkInvalidError(
                f"There is no {kind} named “{name}”.", cure=f"Use one of {', '.join(known)} (letter case matters)."
            )
    if patch_m < PATCH_STEP_M or patch_m % PATCH_STEP_M:
        raise NetworkInvalidError(
            f"A patch of {patch_m} px does not fit a VGG16, which halves its side five times.",
            cure="Use a multiple of 32, such as 64 or 128.",
        )


def window_side_m(patch_m: int) -> int:
    """Side of what a network with the head `PIXELS` looks at on a slide, model px: a patch with half a patch around it."""
    return 2 * patch_m
