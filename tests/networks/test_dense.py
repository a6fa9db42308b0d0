import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.networks import NetworkInvalidError, build_network
from hepamap.networks.dense import field_network
from hepamap.networks.strips import REACH_UNITS, lane_width_m, latency_units, strip_network

pytestmark = pytest.mark.usefixtures("thin_networks")


def random_network(backbone: str = "VGG16DrV2", patch_m: int = 64, head: str = "GAP") -> keras.Model:
    """Weights that keep the signal alive: biases and batch statistics are not what they begin with either."""
    keras.utils.set_random_seed(3)
    model = build_network(backbone, head, patch_m)
    rng = np.random.default_rng(3)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) == 4:
            variable.assign(rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape))
        elif "variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            variable.assign(rng.normal(0, 0.1, shape))
    if head == "GAP":
        spread_answers(model)
    return model


def spread_answers(model: keras.Model) -> None:
    """A last layer under which different patches get different answers: unit variance on some of them."""
    side = int(model.input_shape[1])
    features = keras.Model(model.input, model.get_layer("gap").output).predict_on_batch(noise(8, side, side, 3))
    kernel = np.random.default_rng(4).normal(size=(features.shape[1], 2)) * [0, 1]
    kernel /= (features @ kernel)[:, 1].std()
    model.get_layer("predictions").set_weights([kernel, -(features @ kernel).mean(axis=0)])


def noise(*shape: int) -> NDArray[np.float32]:
    """Noise of which every place has another contrast."""
    rng = np.random.default_rng(5)
    count, height, width, channels = shape
    contrast = rng.random((count, -(-height // 32), -(-width // 32), channels)).repeat(32, axis=1).repeat(32, axis=2)
    return (rng.random(shape) * contrast[:, :height, :width]).astype(np.float32)


@pytest.mark.parametrize("backbone", ["VGG16DrV2", "VGG16BnV1", "VGG16BnV2", "VGG16DrBnV1"])
@pytest.mark.parametrize("patch_m", [64, 128])
def test_a_field_of_one_patch_is_that_patch(backbone: str, patch_m: int) -> None:
    model = random_network(backbone, patch_m)
    patches = noise(2, patch_m, patch_m, 3)
    dense = field_network(model, patch_m).predict_on_batch(patches)
    assert dense.shape == (2, 1, 1, 2)
    assert dense[:, 0, 0] == pytest.approx(model.predict_on_batch(patches), abs=1e-6)


def test_the_dense_head_is_the_patch_head_on_the_same_features() -> None:
    """From given values of block5_conv3: pool and average each patch's own window, one at a time."""
    model = random_network(patch_m=128)
    field = field_network(model, 224)
    features = keras.Model(field.input, field.get_layer("block5_pool_dense").input)
    pixels = noise(1, 224, 224, 3)
    (values,) = np.asarray(features.predict_on_batch(pixels))
    (answers,) = field.predict_on_batch(pixels)
    kernel, bias = model.get_layer("predictions").get_weights()
    assert answers.shape == (7, 7, 2)
    for row in range(7):
        for column in range(7):
            window = values[row : row + 8, column : column + 8]
            pooled = window.reshape(4, 2, 4, 2, -1).max(axis=(1, 3))
            logits = pooled.mean(axis=(0, 1)) @ kernel + bias
            expected = np.exp(logits) / np.exp(logits).sum()
            assert answers[row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("backbone", "patch_m", "rows_m", "segments"),
    [
        ("VGG16DrV2", 64, 16, 1),
        ("VGG16DrV2", 64, 64, 4),
        ("VGG16DrV2", 128, 32, 3),
        ("VGG16BnV2", 64, 32, 2),
        ("VGG16DrBnV1", 128, 64, 5),
    ],
)
def test_strips_give_what_one_pass_over_the_whole_gives(backbone: str, patch_m: int, rows_m: int, segments: int) -> None:
    model = random_network(backbone, patch_m)
    positions, side = 3, 320 + patch_m
    width = lane_width_m(positions, patch_m)
    whole = noise(1, side, side, 3)
    # The lane's patches begin at x = 96 px: 6 units, as far as the network sees. Its feed begins at y = 10: 6 px above a unit.
    lane = whole[:, 10:, 6 : 6 + width]
    unpadded: dict[str, object] = {}
    network = strip_network(model, rows_m, positions, unpadded, segments=segments)
    carries, answers = network.first_carries(), []
    for top in range(0, lane.shape[1] // rows_m * rows_m, rows_m):
        answer, *carries = network.model.predict_on_batch([lane[:, top : top + rows_m], *carries])
        answers.append(answer[0])
    found = np.concatenate(answers)
    (expected,) = field_network(model, side).predict_on_batch(whole)
    late = latency_units(patch_m)
    # The feed's first unit is unit 1; rows are right from `REACH_UNITS` on, and as far as the whole sees no border of its own.
    rows = [unit for unit in range(1 + REACH_UNITS, side // 16 - late) if unit - 1 + late < len(found)]
    assert len(rows) > 3
    for unit in rows:
        assert found[unit - 1 + late] == pytest.approx(expected[unit, 6 : 6 + positions], abs=1e-5)
    assert np.ptp(expected[..., 1]) > 0.01  # the answers differ, so an error of place would show


def test_strips_of_other_heights_share_their_layers() -> None:
    model = random_network()
    unpadded: dict[str, object] = {}
    one, two = (strip_network(model, rows_m, 1, unpadded) for rows_m in (16, 32))
    assert one.model.get_layer("block3_conv2") is two.model.get_layer("block3_conv2")
    assert one.carry_shapes == two.carry_shapes


def test_a_head_that_flattens_has_no_dense_mode() -> None:
    model = build_network("VGG16Base", "FC512", 64)
    with pytest.raises(NetworkInvalidError, match="no dense mode"):
        field_network(model, 128)
    with pytest.raises(NetworkInvalidError, match="no dense mode"):
        strip_network(model, 64, 1, {})


def test_a_field_that_does_not_fit_is_refused() -> None:
    model = build_network("VGG16Base", "GAP", 64)
    for field_m in (48, 72):
        with pytest.raises(NetworkInvalidError, match=f"{field_m} px"):
            field_network(model, field_m)
