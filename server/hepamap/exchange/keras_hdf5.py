"""The two ways in which Keras lays weights out in HDF5.

Keras 2 (and `.h5` of Keras 3): `layer_names` lists the layers in order, each layer's `weight_names` its variables. Keras 3
(`.weights.h5`, and inside `.keras`): a group per layer, named by class and number, its variables numbered in `vars`.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.exchange.errors import LayerRefusedError, NetworkAmbiguousError
from hepamap.exchange.hdf5 import Hdf5Content
from hepamap.exchange.source import VARIABLES, SourceLayer, natural, source_layer

_KINDS = {"conv2d": "conv", "dense": "dense", "batch_normalization": "norm"}
_NESTED = ("functional", "sequential", "model")
_VARIABLE = re.compile(r"(?P<layer>.+)/vars/(?P<number>\d+)")


def read_named(content: Hdf5Content, root: str) -> list[SourceLayer]:
    """The layers of Keras 2's layout.

    Args:
        content: the file.
        root: group that lists the layers: `model_weights`, or "" for weights alone.
    """
    places: list[tuple[str, str, str]] = []  # layer, variable, path of its array
    for group in content.texts(root, "layer_names"):
        below = f"{root}/{group}".lstrip("/")
        parts = [(name.rpartition("/"), f"{below}/{name}") for name in content.texts(below, "weight_names")]
        is_nested = len({layer for (layer, _, _), _ in parts}) > 1
        places += [(layer if is_nested else group, variable, path) for (layer, _, variable), path in parts]
    arrays = content.arrays([path for _, _, path in places])
    found: dict[str, list[tuple[str, NDArray[Any]]]] = {}
    for (layer, variable, _), array in zip(places, arrays, strict=True):
        found.setdefault(layer, []).append((variable, array))  # a nested model lists moving means after all the rest
    return [source_layer(layer.rpartition("/")[2], parts) for layer, parts in found.items()]


def read_numbered(content: Hdf5Content) -> list[SourceLayer]:
    """The layers of Keras 3's layout; within a kind in the order of the network.

    Raises:
        LayerRefusedError: a layer with weights is of another class.
        NetworkAmbiguousError: several models are nested in the file's, and their order is not in it.
    """
    matches = [(path, match) for path in content.datasets if (match := _VARIABLE.fullmatch(path))]
    wanted = sorted(
        ((match["layer"], int(match["number"]), path) for path, match in matches if _is_layer(match["layer"], path, content)),
        key=lambda item: (-item[0].count("/"), natural(item[0]), item[1]),
    )
    _require_one_nested({_folder(layer) for layer, _, _ in wanted})
    arrays = content.arrays([path for _, _, path in wanted])
    layers = []
    for layer, group in groupby(zip(wanted, arrays, strict=True), key=lambda item: item[0][0]):
        parts = [array for _, array in group]
        stem = _stem(layer)
        if stem not in _KINDS or len(parts) > len(VARIABLES[_KINDS[stem]]):
            raise LayerRefusedError(
                f"The file has weights of a layer of the kind “{stem}”: no network of the paper has such a layer.",
                cure="Only convolutions, dense layers and batch normalisation can be imported.",
            )
        name = content.text(f"{layer}/vars", "name") or layer.rpartition("/")[2]
        layers.append(source_layer(name, zip(VARIABLES[_KINDS[stem]], parts, strict=False)))
    return layers


def _is_layer(layer: str, path: str, content: Hdf5Content) -> bool:
    """Whether a variable is a weight: optimisers and the random states of dropout are none."""
    if layer.startswith("optimizer") or "seed_generator" in layer:
        return False
    return bool(np.issubdtype(content.datasets[path].dtype, np.floating))


def _stem(layer: str) -> str:
    return re.sub(r"_\d+$", "", layer.rpartition("/")[2])


def _folder(layer: str) -> str:
    return layer.rpartition("/")[0]


def _require_one_nested(folders: set[str]) -> None:
    nested = {folder for folder in folders if folder.count("/") > 0}
    known = all(_stem(_folder(folder)) in _NESTED for folder in nested)
    if len(nested) > 1 or not known:
        raise NetworkAmbiguousError(
            "Several models are nested in the file's, and it does not say which comes first.",
            cure="Save the model with its graph (model.save), as .h5, or flatten it before saving.",
        )
