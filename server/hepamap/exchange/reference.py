"""What a file's weights answer, computed without Keras: the steps of a chain one after the other, in NumPy, float64.

Slow and plain on purpose. It is the “before” of an import: it shares no code with the network that the weights go into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hepamap.exchange.errors import NetworkMismatchError
from hepamap.exchange.graph import Step
from hepamap.exchange.source import SourceLayer

Array = NDArray[np.float64]


def answers(steps: Sequence[Step], layers: Mapping[str, SourceLayer], patches: NDArray[Any]) -> Array:
    """Run a chain.

    Args:
        steps: of the network.
        layers: weights, by the name that the steps use.
        patches: (N, P, P, 3), as the network wants them scaled.

    Returns:
        (N, classes).

    Raises:
        NetworkMismatchError: the weights do not fit the steps.
    """
    try:
        # BLAS' threads wait for each other actively: beside other programs one thread is many times faster than all.
        with threadpool_limits(1, "blas"):
            return np.stack([_one(steps, layers, patch) for patch in patches.astype(np.float64)])
    except (KeyError, ValueError) as error:
        raise NetworkMismatchError(
            f"The weights in the file do not fit its own network ({error}).", cure="Save the model again with Keras."
        ) from error


def _one(steps: Sequence[Step], layers: Mapping[str, SourceLayer], x: Array) -> Array:
    for step in steps:
        weights = layers[step.layer].arrays if step.kind in ("conv", "dense", "norm") else {}
        x = _step(step, weights, x)
    return x


def _step(step: Step, weights: Mapping[str, NDArray[np.float32]], x: Array) -> Array:
    result: Any = x
    match step.kind:
        case "conv":
            result = _convolution(x, weights["kernel"], weights.get("bias"), same=step.settings[4] == "same")
        case "dense":
            result = x @ weights["kernel"] + weights.get("bias", 0.0)
        case "norm":
            scale = weights["gamma"] / np.sqrt(weights["moving_variance"].astype(np.float64) + step.settings[0])
            result = (x - weights["moving_mean"]) * scale + weights["beta"]
        case "relu":
            result = np.maximum(x, 0.0)
        case "pool":
            height, width = x.shape[0] // 2, x.shape[1] // 2
            result = x[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1).max(axis=(1, 3))
        case "gap":
            result = x.mean(axis=(0, 1))
        case "flatten":
            result = x.reshape(-1)
        case "softmax":
            powers = np.exp(x - x.max())
            result = powers / powers.sum()
    return np.asarray(result, np.float64)


def _convolution(x: Array, kernel: NDArray[np.float32], bias: NDArray[np.float32] | None, *, same: bool) -> Array:
    """A sum over the places of the kernel, each a product of matrices."""
    rows, columns, inputs, outputs = kernel.shape
    if same:
        x = np.pad(x, ((rows // 2, (rows - 1) // 2), (columns // 2, (columns - 1) // 2), (0, 0)))
    height, width = x.shape[0] - rows + 1, x.shape[1] - columns + 1
    total = np.zeros((height * width, outputs))
    for i in range(rows):
        for j in range(columns):
            total += x[i : i + height, j : j + width].reshape(-1, inputs) @ kernel[i, j].astype(np.float64)
    return (total + (0.0 if bias is None else bias)).reshape(height, width, outputs)
