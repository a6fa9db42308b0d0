"""Weights of a network as a plain dictionary, the form in which a model pack keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import PackInvalidError

if TYPE_CHECKING:
    import keras

_SHOWN = 3


def read_weights(model: keras.Model) -> dict[str, NDArray[Any]]:
    """Copy the weights out of a model.

    Returns:
        Float32 arrays by "<layer>/<variable>", such as "block1_conv1/kernel" (3, 3, 3, 64). Random states of dropout
        layers are not weights and not in it.
    """
    return {variable.path: np.asarray(variable.numpy(), np.float32) for variable in model.weights}


def set_weights(model: keras.Model, weights: Mapping[str, NDArray[Any]]) -> None:
    """Put weights into a model; it must have exactly these variables, in these shapes.

    Raises:
        PackInvalidError: a name or a shape differs; the model is then unchanged.
    """
    variables = {variable.path: variable for variable in model.weights}
    _check_names(set(variables), set(weights))
    for name, variable in variables.items():
        if tuple(variable.shape) != weights[name].shape:
            raise PackInvalidError(
                f"The weights “{name}” have the shape {weights[name].shape}, but the network needs {tuple(variable.shape)}.",
                cure="Check that backbone, head and patch side in model.json are those that were trained.",
            )
    for name, variable in variables.items():
        variable.assign(np.asarray(weights[name], np.float32))


def _check_names(wanted: set[str], given: set[str]) -> None:
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    if missing or extra:
        listed = ", ".join([*(f"no “{name}”" for name in missing[:_SHOWN]), *(f"“{name}” too many" for name in extra[:_SHOWN])])
        raise PackInvalidError(
            f"The weights do not belong to this network: {listed} ({len(missing)} missing, {len(extra)} too many).",
            cure="Check that backbone and head in model.json are those that were trained.",
        )
