"""What a network starts from: data-dependent random weights, another pack, or ImageNet. Imports keras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hepamap.model_pack import find_pack
from hepamap.training.errors import InitialWeightsMissingError
from hepamap.training.run_files import read_npz

LSUV_PATCHES = 64
"""Patches that LSUV looks at: enough for the 512 channels of the last block, which sees each as 2 × 2 to 4 × 4 px."""

_MIN_DEVIATION = 1e-4  # a channel that varies less is dead on this batch; scaling it up would only amplify noise


@dataclass(frozen=True, slots=True)
class FirstWeights:
    """What a network began with, by layer."""

    origin: str
    """As in the recipe, a pack with its version."""
    taken: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    """Layers of the network that begin as if there were no other: at random, batch normalisation as if it were not there."""
    left: tuple[str, ...] = ()
    """Layers of the origin that this network has no use for."""

    def __str__(self) -> str:
        """One line for people."""
        if not self.taken:
            return f"{self.origin} (nothing taken over)"
        parts = [f"{self.origin}, {len(self.taken)} layers taken over"]
        parts += [f"{word}: {', '.join(names)}" for word, names in (("anew", self.anew), ("left behind", self.left)) if names]
        return "; ".join(parts)


def initialise(model: keras.Model, how: str, batch: NDArray[np.float32], models_dir: Path, seed: int) -> FirstWeights:
    """Give a network its first weights, and say which these are.

    Args:
        model: float32 network of the registry.
        how: `lsuv`, `pack:<id>[@version]`, `weights:<file.npz>`, `imagenet` or `imagenet:<file>`, as in a recipe.
        batch: patches (N, P, P, 3), 0 to 1, that LSUV looks at.
        models_dir: where packs are.
        seed: of the random start.

    Raises:
        ModelNotFoundError, PackDamagedError: the pack is not there or damaged.
        InitialWeightsMissingError: the weights cannot be had, or do not fit the network.
    """
    kind, _, name = how.partition(":")
    if kind == "lsuv":
        lsuv(model, batch, seed)
        return FirstWeights(how)
    if kind == "pack":
        pack = find_pack(models_dir, name)
        return transplant(model, pack.read_weights(), f"pack:{pack.name}")
    return transplant(model, _run_weights(Path(name)) if kind == "weights" else _imagenet_weights(name), how)


def lsuv(model: keras.Model, batch: NDArray[np.float32], seed: int) -> None:
    """Layer-sequential unit-variance initialisation (Mishkin and Matas, “All you need is a good init”, 2015).

    Every convolution starts orthogonal; then, from the first to the last, each of its channels is scaled and shifted to
    mean 0 and variance 1 on the batch, before its ReLU. Without it, a VGG16 without batch normalisation hardly leaves
    chance: its signal fades from layer to layer.

    The last layer (of an FCN: each that scores) starts at zero, i.e. undecided: the first gradients then say what is there and do
    not undo what chance said.

    Args:
        model: a network of the registry.
        batch: (N, P, P, 3), 0 to 1.
        seed: of the orthogonal start.
    """
    known: dict[int, Any] = {id(model.inputs[0]): keras.ops.convert_to_tensor(batch)}
    for number, layer in enumerate(model.layers[1:]):
        x = [known[id(tensor)] for tensor in layer.input] if isinstance(layer.input, list) else known[id(layer.input)]
        if isinstance(layer, keras.layers.Conv2D) and not _decides(layer):
            start = keras.initializers.Orthogonal(seed=seed * 1000 + number)(layer.kernel.shape)
            response = keras.ops.convert_to_numpy(keras.ops.conv(x, start, padding=layer.padding))
            mean, deviation = response.mean(axis=(0, 1, 2)), response.std(axis=(0, 1, 2))
            deviation = np.maximum(deviation, _MIN_DEVIATION)
            layer.kernel.assign(keras.ops.convert_to_numpy(start) / deviation)
            layer.bias.assign(-mean / deviation)
        elif _decides(layer):
            layer.kernel.assign(np.zeros(layer.kernel.shape, np.float32))
        known[id(layer.output)] = layer(x, training=False)


def _decides(layer: keras.layers.Layer) -> bool:
    return layer.name.startswith(("predictions", "score")) and hasattr(layer, "kernel")


def transplant(model: keras.Model, weights: Mapping[str, NDArray[Any]], origin: str) -> FirstWeights:
    """Take over weights by name.

    Every convolution of the backbone must find its own. Batch normalisation of the backbone may be new. A head is taken
    over whole or stays random: half of another head would be worse than none.

    Raises:
        InitialWeightsMissingError: a convolution finds no weights of its shape; nothing was taken over.
    """

    def fits(variable: Any) -> bool:
        return variable.path in weights and weights[variable.path].shape == tuple(variable.shape)

    kernels = [variable for variable in model.weights if "_conv" in variable.path]
    if homeless := [variable for variable in kernels if not fits(variable)]:
        raise InitialWeightsMissingError(
            f"“{origin}” is of another network: of the {len(kernels)} weights of this one's convolutions {len(homeless)} are not "
            f"in it, or in another shape; {homeless[0].path} is the first.",
            cure="Start from a pack with a backbone of the same convolutions, such as hcc-5x for all of VGG16's, or from lsuv.",
        )
    is_head_whole = all(fits(variable) for variable in model.weights if not variable.path.startswith("block"))
    taken = [variable for variable in model.weights if fits(variable) and (is_head_whole or variable.path.startswith("block"))]
    for variable in taken:
        variable.assign(np.asarray(weights[variable.path], np.float32))
    names = {variable.path: None for variable in taken}
    anew = (variable.path for variable in model.weights if variable.path not in names)
    return FirstWeights(origin, _layers(names), _layers(anew), _layers(name for name in weights if name not in names))


def _layers(paths: Iterable[str]) -> tuple[str, ...]:
    """The layers of variables, each once, in their order."""
    return tuple(dict.fromkeys(path.split("/")[0] for path in paths))


def _run_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Weights that a training left behind (`best.npz` of its run folder)."""
    try:
        return read_npz(path)
    except (OSError, ValueError) as error:
        raise InitialWeightsMissingError(
            f"The weights {path.name} cannot be read ({error}).", cure="Give the best.npz of a run folder."
        ) from error


def _imagenet_weights(file: str) -> dict[str, NDArray[Any]]:
    """The convolutions of Keras' VGG16, from a file (`vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`) or its download."""
    try:
        source = keras.applications.VGG16(include_top=False, weights=file or "imagenet")
    except Exception as error:  # keras raises whatever its downloader and h5py do
        raise InitialWeightsMissingError(
            f"The ImageNet weights of VGG16 cannot be had ({type(error).__name__}).",
            cure='Download Keras\' "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" where there is internet and write '
            'initialise = "imagenet:<file>".',
        ) from error
    return {variable.path: np.asarray(variable.numpy()) for variable in source.weights}
