"""Model packs for tests: real networks with known weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from hepamap.model_pack import InputSpec, ManifestBody, ModelPack, NetworkSpec, write_pack

STRIDES = {64: (8, 16, 32, 48, 64), 128: (16, 32, 64, 96, 128)}


def manifest_body(identifier: str = "tiny-5x", version: str = "1.0.0", *, patch: int = 64) -> ManifestBody:
    return ManifestBody(
        id=identifier,
        version=version,
        title="For tests",
        network=NetworkSpec(backbone="VGG16DrV2", head="GAP"),
        input=InputSpec(mpp=1.84 * 64 / patch, patch=patch),
        strides=STRIDES[patch],
        default_stride=patch // 4,
        training={},
        evaluation={},
        licence="Apache-2.0",
        intended_use="Tests only.",
    )


def write_network_pack(
    models_dir: Path, identifier: str, *, patch: int = 64, bias: tuple[float, float] | None = None
) -> ModelPack:
    """A pack with the real network and random weights; with `bias` the network answers softmax(bias) everywhere."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from hepamap.networks import build_network

    network = build_network("VGG16DrV2", "GAP", patch)
    rng = np.random.default_rng(5)
    weights = {}
    for layer in network.layers:
        for variable in layer.weights:
            if "seed_generator" in variable.path:
                continue
            shape = tuple(variable.shape)
            scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.0
            weights[f"{layer.name}/{variable.name}"] = rng.normal(0, scale, shape) if scale else np.zeros(shape)
    last = [key for key in weights if key.startswith(network.layers[-1].name)]
    if bias is not None:
        for key in last:
            weights[key] = np.array(bias) if key.endswith("bias") else np.zeros_like(weights[key])
    return write_pack(models_dir / identifier / "1.0.0", manifest_body(identifier, patch=patch), weights, "# For tests\n")
