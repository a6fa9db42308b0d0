from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hepamap.geometry import Point
from hepamap.networks import SEGMENTERS, build_network, read_weights
from hepamap.training.batches import PlainBatches
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import PatchSet, combine, open_dataset
from hepamap.training.errors import DatasetEmptyError, DatasetInvalidError, PatchesTooFewError, RecipeInvalidError
from hepamap.training.pixel_masks import pixel_mask
from hepamap.training.recipe import read_recipe
from hepamap.training.train import patch_answers, train

from .conftest import SIDE

RECIPES = Path(__file__).resolve().parents[2] / "models" / "recipes"
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
head = "PIXELS"
mpp = 1.84
patch = 64
initialise = "lsuv"
[training]
optimiser = "sgd"
learning_rate = 0.1
batch_size = 8
steps_per_epoch = 10
epochs = 3
[segmentation]
tumour_patches = 20
non_tumour_patches = 10
[augmentation]
[schedule]
kind = "cosine"
"""


def tiny(inputs: Any) -> Any:
    """An encoder, a decoder and a bridge between them."""
    from keras import layers

    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1")(inputs)
    low = layers.MaxPooling2D(2, name="block1_pool")(x)
    joined = layers.Concatenate(name="join")([x, layers.UpSampling2D(2, name="up")(low)])
    return layers.Conv2D(2, 1, activation="softmax", dtype="float32", name="predictions")(joined)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEGMENTERS, "Tiny", tiny)


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 30, "val": 10, "test": 10}, masks=True))
    return folder


def recipe_file(folder: Path, *edits: tuple[str, str]) -> Path:
    text = RECIPE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / "toy.toml").write_text(text, encoding="utf-8")
    return folder / "toy.toml"


def test_a_mask_is_what_was_drawn_without_hairs() -> None:
    square, hair = shapely.box(10, 10, 40, 100), shapely.box(50, 0, 52, 100)
    areas = {1: shapely.union(square, hair), 0: shapely.box(40, 10, 50, 100)}
    mask = pixel_mask(areas, Point(20, 20), 32)
    expected = np.full((32, 32), -1)
    expected[:, :20] = 1
    expected[:, 20:30] = 0
    np.testing.assert_array_equal(mask, expected)


def test_masks_stand_beside_their_patches(data: Path) -> None:
    dataset = open_dataset(data)
    assert dataset.manifest["masks"] == {"median_px": 9}
    patches = combine([dataset], 1.84, 64)["train"]
    masks = patches.take_masks(range(len(patches)))
    rows = [row for row in dataset.rows if row["split"] == "train"]
    for mask, row in zip(masks, rows, strict=True):
        columns = round(float(row["x_l0"])) + np.arange(64)
        expected = np.where(columns < 0, -1, np.where(columns < 320, 1, np.where(columns < 640, 0, -1)))
        inside = slice(max(0, 4 - round(float(row["y_l0"]))), max(0, min(64, SIDE - 4 - round(float(row["y_l0"])))))
        np.testing.assert_array_equal(mask[inside], np.broadcast_to(expected, (64, 64))[inside])


def test_a_network_for_pixels_learns_and_answers_for_pixels(data: Path, tmp_path: Path) -> None:
    result = train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=tmp_path / "models")
    manifest = result.pack.manifest
    assert (manifest.network.kind, manifest.modes, manifest.default_mode) == ("segmentation", ("segment",), "segment")
    assert result.metrics["test"]["auc"] == 1.0
    again = train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=tmp_path / "again", resume=True)
    for name, value in again.pack.read_weights().items():
        np.testing.assert_array_equal(value, result.pack.read_weights()[name])


class LeftIsTumour:
    """Answers 1 on the left quarter of each patch."""

    def predict_on_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = np.zeros((*batch.shape[:3], 2), np.float32)
        answer[:, :, : batch.shape[2] // 4, 1] = 1
        return answer


def test_the_scores_of_many_patches_need_no_memory_for_their_pixels() -> None:
    count = 3000  # of 64 × 64 px with two numbers each: 98 MB
    nothing, names = np.zeros(count, np.intp), np.full(count, "s")
    patches = PatchSet((np.zeros((1, 64, 64, 3), np.uint8),), nothing, nothing, nothing.astype(np.int8), names, names)
    batches = PlainBatches(patches, np.arange(count), 16)
    tracemalloc.start()
    try:
        answers = patch_answers(LeftIsTumour(), batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(answers, np.full(count, 0.25, np.float32))
    assert peak < 10e6


def test_pixels_without_a_label_do_not_count() -> None:
    import keras

    from hepamap.training.forms import LabelledAccuracy, field_loss

    rng = np.random.default_rng(0)
    answers = keras.ops.softmax(rng.normal(size=(2, 8, 8, 2)).astype(np.float32)).numpy()
    labels = rng.integers(-1, 2, (2, 8, 8)).astype(np.int8)
    known = labels >= 0
    right = np.where(labels == 1, answers[..., 1], answers[..., 0])
    assert float(field_loss()(labels, answers)) == pytest.approx(-np.log(right[known]).mean(), rel=1e-5)
    accuracy = LabelledAccuracy()
    accuracy.update_state(labels, answers)
    assert float(accuracy.result()) == pytest.approx((right[known] > 0.5).mean())


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (("[segmentation]\ntumour_patches = 20\nnon_tumour_patches = 10\n", ""), RecipeInvalidError),
        (("[augmentation]", "[fields]\nper_step = 2\n[augmentation]"), RecipeInvalidError),
        (('head = "PIXELS"', 'head = "GAP"'), RecipeInvalidError),
    ],
)
def test_recipes_that_contradict_themselves(data: Path, tmp_path: Path, edit: tuple[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        train(recipe_file(tmp_path, edit), [data], tmp_path / "run", models_dir=tmp_path / "models")


def test_a_data_set_without_masks_or_with_lost_ones(cohort: Path, data: Path, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "plain", DatasetSpec(1.84, 64, {"train": 4, "val": 2}))
    with pytest.raises(DatasetEmptyError, match="masks"):
        train(recipe_file(tmp_path), [tmp_path / "plain"], tmp_path / "run", models_dir=tmp_path / "models")
    build_dataset(cohort, tmp_path / "lost", DatasetSpec(1.84, 64, {"train": 4, "val": 2}, masks=True))
    next((tmp_path / "lost" / "masks").iterdir()).unlink()
    with pytest.raises(DatasetInvalidError, match="masks/"):
        combine([open_dataset(tmp_path / "lost")], 1.84, 64)


def test_fewer_patches_than_the_recipe_asks_for(data: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, ("[segmentation]\ntumour_patches = 20\n", "[segmentation]\ntumour_patches = 31\n"))
    with pytest.raises(PatchesTooFewError, match="tumour_patches = 31, but the data sets have 30 training patches of tumour"):
        train(recipe, [data], tmp_path / "run", models_dir=tmp_path / "models")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "backbone", "parameters"), [("unet", "UNet", 18_632_514), ("fcn", "FCN8s", 17_339_718)])
def test_the_comparison_models(name: str, backbone: str, parameters: int, tmp_path: Path) -> None:
    from hepamap.training.initialise import initialise
    from tests.packs import write_network_pack

    recipe = read_recipe(RECIPES / f"{name}-5x.toml")
    assert recipe.network.backbone == backbone
    assert recipe.segmentation is not None
    assert (recipe.segmentation.tumour_patches, recipe.segmentation.non_tumour_patches) == (10_000, 5_000)
    model = build_network(backbone, "PIXELS", 64)
    assert model.output_shape == (None, 64, 64, 2)
    assert model.count_params() == parameters
    # The encoder's weights come by name from a classifier's pack; a network from nothing is undecided everywhere.
    pack = write_network_pack(tmp_path, "hcc-5x")
    patches = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    initialise(model, "pack:hcc-5x", patches, tmp_path, 0)
    source, weights = pack.read_weights(), read_weights(model)
    encoder = [key for key in source if key.startswith("block")]
    assert len(encoder) == 26
    for key in encoder:
        np.testing.assert_array_equal(weights[key], source[key])
    initialise(model, "lsuv", patches, tmp_path, 0)
    np.testing.assert_allclose(model(patches).numpy(), 0.5, atol=1e-6)
