from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hepamap.errors import PackInvalidError
from hepamap.networks import BACKBONES, HEADS, NetworkInvalidError, build_network, read_weights, set_weights

# Trunk: 14,714,688. GAP: 512·2 + 2. FC512 at 64 px (2·2·512 features): 2048·4096 + 4·4096 + 4096·512 + 4·512 + 512·2 + 2.
# Batch normalisation has 4 numbers a channel: 3,840 (BnV1), 16,896 (BnV2), 16,384 (DrBnV1).
PARAMETERS_AT_64_PX = {
    ("VGG16", "FC512"): 25_219_906,
    ("VGG16", "FC512L2"): 25_219_906,
    ("VGG16", "GAP"): 14_715_714,
    ("VGG16Base", "FC512"): 25_219_906,
    ("VGG16Base", "FC512L2"): 25_219_906,
    ("VGG16Base", "GAP"): 14_715_714,
    ("VGG16DrV1", "FC512"): 25_219_906,
    ("VGG16DrV1", "FC512L2"): 25_219_906,
    ("VGG16DrV1", "GAP"): 14_715_714,
    ("VGG16DrV2", "FC512"): 25_219_906,
    ("VGG16DrV2", "FC512L2"): 25_219_906,
    ("VGG16DrV2", "GAP"): 14_715_714,
    ("VGG16DrV3", "FC512"): 25_219_906,
    ("VGG16DrV3", "FC512L2"): 25_219_906,
    ("VGG16DrV3", "GAP"): 14_715_714,
    ("VGG16BnV1", "FC512"): 25_223_746,
    ("VGG16BnV1", "FC512L2"): 25_223_746,
    ("VGG16BnV1", "GAP"): 14_719_554,
    ("VGG16BnV2", "FC512"): 25_236_802,
    ("VGG16BnV2", "FC512L2"): 25_236_802,
    ("VGG16BnV2", "GAP"): 14_732_610,
    ("VGG16DrBnV1", "FC512"): 25_236_290,
    ("VGG16DrBnV1", "FC512L2"): 25_236_290,
    ("VGG16DrBnV1", "GAP"): 14_732_098,
}

DROPOUT = {
    "VGG16": {},
    "VGG16Base": {},
    "VGG16DrV1": {
        **{f"block1_drop{i}": 0.1 for i in (1, 2)},
        **{f"block2_drop{i}": 0.15 for i in (1, 2)},
        **{f"block3_drop{i}": 0.2 for i in (1, 2, 3)},
        **{f"block{b}_drop{i}": 0.25 for b in (4, 5) for i in (1, 2, 3)},
    },
    "VGG16DrV2": {f"block{b}_drop{i}": rate for b, rate in ((3, 0.1), (4, 0.15), (5, 0.2)) for i in (1, 2, 3)},
    "VGG16DrV3": {"block3_drop": 0.1, "block4_drop": 0.1},
    "VGG16BnV1": {},
    "VGG16BnV2": {},
    "VGG16DrBnV1": {"block3_drop": 0.1, "block4_drop": 0.1},
}

CONVOLUTIONS = [f"block{b}_conv{i}" for b, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)) for i in range(1, count + 1)]
NORMALISED = {
    "VGG16BnV1": [f"block{b}_bn" for b in (1, 2, 3, 4)],
    "VGG16BnV2": [name.replace("conv", "bn") for name in CONVOLUTIONS],
    "VGG16DrBnV1": [name.replace("conv", "bn") for name in CONVOLUTIONS if not name.startswith("block1")],
}


@pytest.fixture(scope="module", params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> tuple[str, Any]:
    name = str(request.param)
    return name, build_network(name, "GAP", 64)


def test_every_registered_network_is_in_the_table() -> None:
    assert {(b, h) for b in BACKBONES for h in HEADS} == set(PARAMETERS_AT_64_PX)


@pytest.mark.parametrize(("names", "parameters"), PARAMETERS_AT_64_PX.items(), ids=str)
def test_parameter_count_and_output_shape(names: tuple[str, str], parameters: int) -> None:
    model = build_network(*names, 64)
    assert model.count_params() == parameters
    assert model.output_shape == (None, 2)
    assert model.layers[-1].name == "predictions"


def test_dropout_rates_and_positions(backbone: tuple[str, Any]) -> None:
    name, model = backbone
    assert {layer.name: layer.rate for layer in model.layers if "drop" in layer.name} == DROPOUT[name]
    order = [layer.name for layer in model.layers]
    for dropout in DROPOUT[name]:
        follows = dropout.replace("drop", "conv") if dropout[-1].isdigit() else dropout.replace("drop", "pool")
        assert order.index(dropout) == order.index(follows) + 1


def test_batch_normalisation_positions(backbone: tuple[str, Any]) -> None:
    name, model = backbone
    order = [layer.name for layer in model.layers]
    assert [layer for layer in order if "_bn" in layer] == NORMALISED.get(name, [])
    for layer in NORMALISED.get(name, []):
        follows = layer.replace("bn", "conv") if layer[-1].isdigit() else layer.replace("bn", "pool")
        assert order.index(layer) == order.index(follows) + 1


def test_layers_are_named_as_in_keras_vgg16(backbone: tuple[str, Any]) -> None:
    _, model = backbone
    names = [layer.name for layer in model.layers]
    assert [name for name in names if "conv" in name] == CONVOLUTIONS
    assert [name for name in names if "pool" in name] == [f"block{b}_pool" for b in (1, 2, 3, 4, 5)]


def test_fc512_head_layers_in_order() -> None:
    model = build_network("VGG16Base", "FC512L2", 64)
    head = ["flatten", "fc1", "fc1_bn", "fc1_relu", "fc1_drop", "fc2", "fc2_bn", "fc2_relu", "fc2_drop", "predictions"]
    assert [layer.name for layer in model.layers][-10:] == head
    assert [model.get_layer(name).rate for name in ("fc1_drop", "fc2_drop")] == [0.5, 0.5]
    assert [float(model.get_layer(name).kernel_regularizer.l2) for name in ("fc1", "fc2")] == pytest.approx([1e-5, 1e-5])
    assert not model.get_layer("fc1").use_bias
    assert build_network("VGG16Base", "FC512", 64).get_layer("fc1").kernel_regularizer is None


def test_output_is_a_probability_of_two_classes() -> None:
    model = build_network("VGG16DrV2", "GAP", 64)
    answer = model(np.random.default_rng(0).random((3, 64, 64, 3), dtype=np.float32)).numpy()
    assert answer.shape == (3, 2)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-6)


def test_gap_weights_fit_any_patch_side() -> None:
    small, large = build_network("VGG16DrV2", "GAP", 64), build_network("VGG16DrV2", "GAP", 128)
    set_weights(large, read_weights(small))
    for name, value in read_weights(small).items():
        np.testing.assert_array_equal(value, read_weights(large)[name])


def test_set_weights_refuses_another_network_and_changes_nothing() -> None:
    model = build_network("VGG16Base", "GAP", 64)
    before = read_weights(model)
    foreign = {**before, "predictions/bias": np.zeros(3, np.float32)}
    with pytest.raises(PackInvalidError, match=r"predictions/bias.*\(3,\).*\(2,\)"):
        set_weights(model, foreign)
    with pytest.raises(PackInvalidError, match="1 missing, 1 too many"):
        set_weights(model, {("extra" if k == "predictions/bias" else k): v for k, v in before.items()})
    for name, value in read_weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("names", "patch", "message"),
    [(("VGG19", "GAP"), 64, "VGG19"), (("VGG16", "gap"), 64, "gap"), (("VGG16", "GAP"), 65, "65"), (("VGG16", "GAP"), 0, "0")],
)
def test_unknown_network_or_patch_is_refused(names: tuple[str, str], patch: int, message: str) -> None:
    with pytest.raises(NetworkInvalidError, match=message) as caught:
        build_network(*names, patch)
    assert caught.value.cure


def test_importing_the_package_does_not_import_keras() -> None:
    code = "import sys, hepamap.networks; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
