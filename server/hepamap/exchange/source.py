"""What a model file holds, whatever its format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.exchange.errors import LayerRefusedError, ModelFileUnreadableError, ModelFileUnsafeError

MAX_FILE_BYTES = 4 * 2**30
"""A file larger than that is refused unread: the largest network of the paper with its optimiser has a tenth of it."""
MAX_WEIGHT_BYTES = 2 * 2**30
"""What all weights together may unpack to."""
MAX_JSON_BYTES = 16 * 2**20
"""What a description may have."""

VARIABLES = {
    "conv": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "norm": ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""Variables of each kind of layer, in Keras' order."""


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """A layer with weights.

    Attributes:
        name: as the file calls it.
        kind: a key of `VARIABLES`.
        arrays: float32, by the variable's name.
    """

    name: str
    kind: str
    arrays: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model file, read.

    Attributes:
        format: for people.
        written_by: what wrote it, where the file says so.
        layers: those with weights; within a kind in the order of the network.
        description: the file's own JSON of its graph; None where it holds weights alone.
    """

    format: str
    written_by: str | None
    layers: tuple[SourceLayer, ...]
    description: Mapping[str, Any] | None

    def of_kind(self, kind: str) -> list[SourceLayer]:
        """The layers of a kind, in order."""
        return [layer for layer in self.layers if layer.kind == kind]


def source_layer(name: str, arrays: Iterable[tuple[str, NDArray[Any]]]) -> SourceLayer:
    """A layer from its named variables.

    Raises:
        LayerRefusedError: they are those of no layer that is known.
    """
    found = {variable.partition(":")[0]: np.asarray(array, np.float32) for variable, array in arrays}
    if set(found) <= set(VARIABLES["norm"]):
        kind = "norm"
    elif "kernel" in found and set(found) <= set(VARIABLES["conv"]):
        kind = "conv" if found["kernel"].ndim == 4 else "dense"
    else:
        raise LayerRefusedError(
            f"The layer “{name}” has the weights {', '.join(sorted(found))}: no network of the paper has such a layer.",
            cure="Only convolutions, dense layers and batch normalisation can be imported.",
        )
    return SourceLayer(name, kind, found)


def check_size(shapes: Iterable[tuple[int, ...]]) -> None:
    """Refuse weights that would not fit a network of the paper, before any is read.

    Raises:
        ModelFileUnsafeError: they are more than `MAX_WEIGHT_BYTES`.
    """
    total = sum(4 * int(np.prod(shape, dtype=object)) for shape in shapes)
    if total > MAX_WEIGHT_BYTES:
        raise ModelFileUnsafeError(
            f"The weights in the file would need {total / 2**30:.1f} GiB of memory.",
            cure="The networks of the paper need a tenth of a GiB; check where the file comes from.",
        )


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts conv2d_2 before conv2d_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def unreadable(name: str, why: str) -> ModelFileUnreadableError:
    """The error for a file that is no model."""
    return ModelFileUnreadableError(
        f"The model file {name} cannot be read: {why}.",
        cure="Give a Keras .h5, .keras or .weights.h5 file, or the folder of a SavedModel; copy it again if it was cut.",
    )


def parse_json(text: str | bytes, name: str) -> dict[str, Any]:
    """A description; refuses what is too long, too deep or no object."""
    if len(text) > MAX_JSON_BYTES:
        raise ModelFileUnsafeError(
            f"The description in {name} has {len(text) / 2**20:.0f} MiB.", cure="Check where the file comes from."
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(name, "its description is no JSON") from error
    if not isinstance(value, dict):
        raise unreadable(name, "its description is no JSON object")
    return value
