"""What a network begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hepamap.cli.app import app
from hepamap.model_pack import NetworkSpec, write_pack
from hepamap.networks import BACKBONES, build_network, read_weights
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.errors import InitialWeightsMissingError
from hepamap.training.train import train
from tests.packs import manifest_body

from .test_train import recipe_file, tiny

RECIPES = Path(__file__).parents[2] / "models" / "recipes"
HEAD = ("fc1", "fc1_bn", "fc2", "fc2_bn", "predictions")


def test_lsuv_gives_every_convolution_unit_variance_before_its_relu() -> None:
    import keras

    from hepamap.training.initialise import lsuv

    rng = np.random.default_rng(0)
    # Patches of different colours: the last block sees each patch as 2 × 2 px only.
    batch = (rng.random((24, 1, 1, 3)) * rng.random((24, 64, 64, 3))).astype(np.float32)
    model = build_network("VGG16DrV2", "GAP", 64)
    lsuv(model, batch, seed=1)
    for name in ("block1_conv1", "block3_conv2", "block5_conv3"):
        layer = model.get_layer(name)
        before = keras.Model(model.inputs[0], layer.input)(batch)
        response = keras.ops.conv(before, layer.kernel, padding="same").numpy() + layer.bias.numpy()
        np.testing.assert_allclose(response.mean(axis=(0, 1, 2)), 0, atol=1e-3)
        np.testing.assert_allclose(response.std(axis=(0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(model(batch).numpy(), 0.5, atol=1e-6)  # undecided


def test_transplant_takes_convolutions_by_name_and_says_what_it_left() -> None:
    from hepamap.training.initialise import transplant

    source = read_weights(build_network("VGG16Base", "GAP", 64))
    target = build_network("VGG16DrV2", "FC512", 64)
    first = transplant(target, source, "pack:x")
    assert (len(first.taken), first.anew, first.left) == (13, HEAD, ("predictions",))
    assert str(first) == f"pack:x, 13 layers taken over; anew: {', '.join(HEAD)}; left behind: predictions"
    np.testing.assert_array_equal(read_weights(target)["block5_conv3/kernel"], source["block5_conv3/kernel"])


def test_batch_normalisation_of_one_side_only_is_said() -> None:
    from hepamap.training.initialise import transplant

    with_bn, without = build_network("VGG16BnV1", "GAP", 64), build_network("VGG16DrV3", "GAP", 64)
    names = tuple(f"block{block}_bn" for block in (1, 2, 3, 4))
    first = transplant(without, read_weights(with_bn), "pack:x")
    assert (len(first.taken), first.anew, first.left) == (14, (), names)
    first = transplant(with_bn, read_weights(without), "pack:x")
    assert (len(first.taken), first.anew, first.left) == (14, names, ())


def test_another_patch_side_begins_the_dense_head_anew() -> None:
    from hepamap.training.initialise import transplant

    target = build_network("VGG16", "FC512", 128)
    before = read_weights(target)
    first = transplant(target, read_weights(build_network("VGG16", "FC512", 64)), "pack:x")
    assert (len(first.taken), first.anew) == (13, HEAD)
    for name in ("fc1/kernel", "fc2/kernel", "predictions/kernel"):  # of fc2 the shape would fit
        np.testing.assert_array_equal(read_weights(target)[name], before[name])


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("", r"of the 26 weights .* 26 are not in it, or in another shape; block1_conv1/kernel"),
        ("block1", "22 are .* block2_conv1"),
    ],
)
def test_another_network_is_refused_and_nothing_is_taken(without: str, said: str) -> None:
    from hepamap.training.initialise import transplant

    model = build_network("VGG16DrV2", "GAP", 64)
    before = read_weights(model)
    source = {name: value + 1 for name, value in before.items() if without and name.startswith(without)}
    source["predictions/bias"] = before["predictions/bias"] + 1
    with pytest.raises(InitialWeightsMissingError, match=said) as caught:
        transplant(model, source, "pack:x")
    assert "same convolutions" in caught.value.cure
    for name, value in read_weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras writing HDF5 with NumPy 2
def test_imagenet_weights_from_a_file(tmp_path: Path) -> None:
    import keras

    from hepamap.training.initialise import initialise

    source = keras.applications.VGG16(include_top=False, weights=None)
    source.save_weights(tmp_path / "vgg16.weights.h5")
    model = build_network("VGG16DrV2", "GAP", 64)
    nothing = np.zeros((1, 64, 64, 3), np.float32)
    first = initialise(model, f"imagenet:{tmp_path / 'vgg16.weights.h5'}", nothing, tmp_path, 0)
    assert (len(first.taken), first.anew, first.left) == (13, ("predictions",), ())
    for name, value in read_weights(source).items():
        np.testing.assert_array_equal(read_weights(model)[name], value)
    with pytest.raises(InitialWeightsMissingError, match="ImageNet"):
        initialise(model, f"imagenet:{tmp_path / 'none.h5'}", nothing, tmp_path, 0)


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 8, "val": 2, "test": 2}))
    return folder


def test_a_pack_of_another_network_is_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "Tiny", tiny)
        network = NetworkSpec(backbone="Tiny", head="GAP")
        weights = read_weights(build_network("Tiny", "GAP", 64))
    write_pack(tmp_path / "tiny-5x" / "1.0.0", manifest_body().model_copy(update={"network": network}), weights, "")
    recipe = recipe_file(tmp_path, ('"Tiny"', '"VGG16DrV2"'), ('"lsuv"', '"pack:tiny-5x"'))
    told: list[object] = []
    with pytest.raises(InitialWeightsMissingError, match=r"“pack:tiny-5x@1\.0\.0” is of another network"):
        train(recipe, [data], tmp_path / "run", models_dir=tmp_path, begin=told.append, progress=told.append)
    assert not told


def test_the_terminal_says_what_a_network_begins_with(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)
    command = ["train", recipe_file(tmp_path), data, "--run", tmp_path / "run", "--models-dir", tmp_path / "models"]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[0] == "first weights: lsuv (nothing taken over)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras writing HDF5, and its plateau schedule
def test_the_papers_recipe_starts(data: Path, tmp_path: Path) -> None:
    import keras

    keras.applications.VGG16(include_top=False, weights=None).save_weights(tmp_path / "vgg16.weights.h5")
    text = (RECIPES / "paper-5x.toml").read_text(encoding="utf-8")
    for old, new in ('"imagenet" ', f'"imagenet:{tmp_path / "vgg16.weights.h5"}" '), ("epochs = 200", "epochs = 1"):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "paper.toml").write_text(text, encoding="utf-8")
    result = train(tmp_path / "paper.toml", [data], tmp_path / "run", models_dir=tmp_path / "models")
    assert result.history["steps"] == 1
    assert result.history["first_weights"].endswith("13 layers taken over; anew: predictions")
