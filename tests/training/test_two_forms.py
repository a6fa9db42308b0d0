from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepamap.networks import BACKBONES, HEADS, build_network, read_weights, set_weights
from hepamap.networks.dense import field_network
from hepamap.predictor import backend
from hepamap.training.augmentation import augment_fields
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import combine, open_dataset
from hepamap.training.errors import DatasetEmptyError, RecipeInvalidError
from hepamap.training.fields import combine_fields
from hepamap.training.recipe import AugmentationSection, read_recipe
from hepamap.training.train import train

RECIPE = """
[pack]
id = "toy"
version = "1.0.0"
title = "Red against blue"
origin = "synthetic"
strides = [16, 64]
default_stride = 16
[network]
backbone = "Tiny"
head = "GAP"
mpp = 1.84
patch = 64
initialise = "lsuv"
[training]
optimiser = "sgd"
learning_rate = 0.05
batch_size = 8
steps_per_epoch = 10
epochs = 3
precision = "float32"
[fields]
per_step = 2
weight = 0.5
[augmentation]
[schedule]
kind = "cosine"
"""


def tiny(inputs: Any) -> Any:
    """The skeleton of VGG16: one value for 16 px before the last pooling."""
    from keras import layers

    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1")(inputs)
    x = layers.MaxPooling2D(16, name="block4_pool")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="block5_conv3")(x)
    return layers.MaxPooling2D(2, name="block5_pool")(x)


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 10}, fields=12))
    return folder


def recipe_file(folder: Path, *edits: tuple[str, str]) -> Path:
    text = RECIPE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / "toy.toml").write_text(text, encoding="utf-8")
    return folder / "toy.toml"


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_training_in_both_forms_is_right_in_both(
    data: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "has_fast_bfloat16", lambda: True)
    recipe = recipe_file(tmp_path, ('precision = "float32"', f'precision = "{precision}"'))
    result = train(recipe, [data], tmp_path / "run", models_dir=tmp_path / "models")
    assert result.metrics["test"]["auc"] == 1.0
    assert result.pack.manifest.training["recipe"]["fields"] == {"per_step": 2, "weight": 0.5, "validation": None}
    columns = (tmp_path / "run" / "log.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"val_loss", "val_patches_loss", "val_fields_loss", "val_patches_accuracy"} <= set(columns)

    network = build_network("Tiny", "GAP", 64)
    set_weights(network, result.pack.read_weights())  # exactly the patch network's variables
    pixels, labels = combine_fields([open_dataset(data)])["val"].take(range(20))
    answers = field_network(network, 192)(pixels.astype(np.float32) / 255).numpy()
    is_right = (answers[..., 1] > 0.5) == (labels == 1)
    assert is_right[labels >= 0].mean() > 0.99


def test_loss_is_that_of_patches_plus_the_weighted_mean_of_labelled_positions(data: Path, tmp_path: Path) -> None:
    from hepamap.training.forms import training_model

    rng = np.random.default_rng(0)
    network = build_network("Tiny", "GAP", 64)
    model = training_model(network, read_recipe(recipe_file(tmp_path)), 192)
    patches, fields = rng.random((6, 64, 64, 3), np.float32), rng.random((3, 192, 192, 3), np.float32)
    labels, maps = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 6)], rng.integers(-1, 2, (3, 9, 9)).astype(np.int8)
    of_patches = network(patches).numpy()
    of_fields = field_network(network, 192)(fields).numpy()
    patch_loss = -np.log(of_patches[labels == 1]).mean()
    right = np.where(maps == 1, of_fields[..., 1], of_fields[..., 0])
    field_loss = -np.log(right[maps >= 0]).mean()
    told = model.test_on_batch({"patches": patches, "fields": fields}, {"patches": labels, "fields": maps}, return_dict=True)
    assert told["patches_loss"] == pytest.approx(patch_loss, rel=1e-5)
    assert told["fields_loss"] == pytest.approx(field_loss, rel=1e-5)
    assert told["loss"] == pytest.approx(patch_loss + 0.5 * field_loss, rel=1e-5)


def test_ignored_positions_have_no_loss_and_no_gradient() -> None:
    import keras

    from hepamap.training.forms import field_loss

    maps = np.full((1, 2, 2), -1, np.float32)
    maps[0, 0, 1] = 1
    answers = np.array([[[[0.9, 0.1], [0.25, 0.75]], [[0.0, 1.0], [1.0, 0.0]]]], np.float32)
    loss = field_loss()
    assert float(loss(maps, answers)) == pytest.approx(-np.log(0.75), rel=1e-5)
    other = answers.copy()
    other[maps == -1] = 0.5
    assert float(loss(maps, other)) == float(loss(maps, answers))
    nothing = keras.ops.convert_to_numpy(loss(np.full((1, 2, 2), -1, np.float32), answers))
    assert float(nothing) == 0


def test_batches_of_fields_are_random_complete_and_the_same_for_a_seed(data: Path) -> None:
    from hepamap.training.batches import FieldBatches, PlainBatches, TrainingBatches, some_fields

    dataset = open_dataset(data)
    patches, fields = combine([dataset], 1.84, 64), combine_fields([dataset])

    def batches(seed: int) -> TrainingBatches:
        chosen = FieldBatches(fields["train"], np.arange(24), 2)
        return TrainingBatches(patches["train"], 8, 12, AugmentationSection(flips=False, rotations=False), seed, fields=chosen)

    inputs, targets = batches(1)[5]
    again, _ = batches(1)[5]
    np.testing.assert_array_equal(inputs["fields"], again["fields"])
    assert (inputs["patches"].shape, targets["patches"].shape) == ((8, 64, 64, 3), (8, 2))
    assert (inputs["fields"].shape, targets["fields"].shape) == ((2, 192, 192, 3), (2, 9, 9))
    stored = {(pixels / np.float32(255)).astype(np.float32).round(5).tobytes() for pixels in fields["train"].take(range(24))[0]}
    drawn = [pixels.round(5).tobytes() for i in range(12) for pixels in batches(1)[i][0]["fields"]]
    assert set(drawn) == stored
    assert len(drawn) == 24

    # 20 patches in steps of 8 are 3 steps; 7 fields among them: 3, 3 and 1 with the first two again.
    chosen = some_fields(fields["val"], 7, seed=0)
    assert len(set(chosen.tolist())) == 7
    plain = PlainBatches(patches["val"], np.arange(20), 8, fields=FieldBatches(fields["val"], chosen, 2))
    maps = np.concatenate([plain[i][1]["fields"] for i in range(3)])
    np.testing.assert_array_equal(maps, fields["val"].take(chosen)[1][[0, 1, 2, 3, 4, 5, 6, 0, 1]])


def test_batches_are_made_beside_the_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return augment_fields(*args)

    monkeypatch.setattr("hepamap.training.batches.augment_fields", noted)
    train(recipe_file(tmp_path, ("epochs = 3", "epochs = 1")), [data], tmp_path / "run", models_dir=tmp_path / "models")
    # Keras looks at two batches to learn their shapes; the 10 steps of the epoch come from another thread.
    assert threads.count(False) == 10
    assert threads.count(True) <= 2


def test_fields_that_cannot_be_are_refused(cohort: Path, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4, "val": 4}))
    with pytest.raises(DatasetEmptyError, match="none in the split “train”") as caught:
        train(recipe_file(tmp_path), [tmp_path / "set"], tmp_path / "run", models_dir=tmp_path / "models")
    assert "--fields" in caught.value.cure
    assert not (tmp_path / "run").exists()
    for head in HEADS:
        if head != "GAP":
            with pytest.raises(RecipeInvalidError, match=f"the head {head} has none"):
                read_recipe(recipe_file(tmp_path, ('"GAP"', f'"{head}"')))


def test_both_forms_share_every_weight(tmp_path: Path) -> None:
    from hepamap.training.forms import training_model

    network = build_network("VGG16DrV2", "GAP", 64)
    model = training_model(network, read_recipe(recipe_file(tmp_path)), 192)
    assert {id(variable) for variable in model.weights} == {id(variable) for variable in network.weights}
    assert set(read_weights(model)) == set(read_weights(network))
