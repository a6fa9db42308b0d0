"""Every network of the paper, as Keras 2 saves it, whole and weights only."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.exchange.formats import read_model_file
from hepamap.exchange.importing import ImportRequest, comparison_patches, import_model
from hepamap.networks import BACKBONES, HEADS, build_network
from hepamap.predictor.backend import policy
from tests.exchange.keras2 import in_float64, keras2_model, spread

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:tf_keras")


def save(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather write another format
        model.save(path)
    return path


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_keras_2_model_answers_as_before(backbone: str, head: str, tmp_path: Path) -> None:
    model = keras2_model(backbone, head)
    patches = comparison_patches(32)
    expected = spread(model, patches / np.float32(255))
    assert expected.max() - expected.min() > 0.1
    request = ImportRequest(save(model, tmp_path / "whole.h5"), "mine", "1.0.0", 1.84, 1, "1/255")
    imported = import_model(request, tmp_path / "models")
    # Keras' own VGG16 and the one built by hand are the same network.
    assert imported.pack.manifest.network.backbone == ("VGG16" if backbone == "VGG16Base" else backbone)
    assert (imported.pack.manifest.network.head, imported.pack.manifest.input.patch) == (head, 32)
    assert imported.max_abs_difference <= 1e-5
    weights = imported.pack.read_weights()
    # In float64: how the rounding of float32 adds up through the layers depends on the CPU, and is not what is imported.
    from hepamap.networks import set_weights

    with policy("float64"):
        network = build_network(backbone, head, 32)
    set_weights(network, weights)
    ours, theirs = (np.asarray(twin(patches / 255.0, training=False))[:, 1] for twin in (network, in_float64(model)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)

    # The weights alone, of the same model: the same numbers have to come to the same places.
    from hepamap.exchange.identify import identify, pack_weights, place

    model.save_weights(tmp_path / "weights.h5")
    source = read_model_file(tmp_path / "weights.h5")
    named = identify(source, None, backbone, head)
    assert (named.backbone, named.head) == (backbone, head)
    placed = pack_weights(place(source, network, None))
    assert placed.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(placed[name], value)
