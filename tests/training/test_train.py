from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hepamap.errors import ModelNotFoundError, OutputExistsError, OutputNotWritableError
from hepamap.model_pack import find_pack
from hepamap.networks import BACKBONES, build_network, set_weights
from hepamap.predictor import backend
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import combine, open_dataset
from hepamap.training.errors import (
    DatasetEmptyError,
    DatasetInvalidError,
    PrecisionUnavailableError,
    RecipeInvalidError,
    TrainingDivergedError,
)
from hepamap.training.recipe import ScheduleSection, read_recipe
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
epochs = 3
precision = "float32"
[augmentation]
[schedule]
kind = "cosine"
"""


def tiny(inputs: Any) -> Any:
    """Two convolutions: enough to tell red from blue."""
    from keras import layers

    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1")(inputs)
    x = layers.Dropout(0.2, name="block1_drop1")(x)
    x = layers.MaxPooling2D(8, name="block1_pool")(x)
    return layers.Conv2D(8, 3, padding="same", activation="relu", name="block2_conv1")(x)


@pytest.fixture(autouse=True)
def _tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 10}))
    return folder


def recipe_file(folder: Path, *edits: tuple[str, str]) -> Path:
    text = RECIPE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.toml").write_text(text, encoding="utf-8")
    return folder / "toy.toml"


def test_a_tiny_network_learns_and_becomes_a_pack(data: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    models = tmp_path / "models"
    result = train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=models, progress=told.append)

    assert result.metrics["test"] == {
        **{"patches": 20, "auc": 1.0, "accuracy": 1.0, "sensitivity": 1.0, "specificity": 1.0},
        "slides": 1,
    }
    assert result.history["epochs"] == 3
    assert result.history["steps"] == 3 * 80 // 8
    assert result.history["stopped_because"] == "all epochs done"
    assert told[-1].fraction == 1
    assert told[-1].val_loss == pytest.approx(result.history["best_val_loss"], abs=1e-3)

    pack = find_pack(models, "toy")
    manifest = pack.manifest
    assert (manifest.network.backbone, manifest.input.patch, manifest.default_stride) == ("Tiny", 64, 16)
    assert [point.name for point in manifest.operating_points] == ["sensitive", "balanced", "specific"]
    assert all((point.sensitivity or 0) > 0.7 for point in manifest.operating_points)
    assert manifest.training["data"][0]["slides"] == {"train": 2, "val": 1, "test": 1}
    said = manifest.evaluation["operating_points_remarks"]
    assert "sensitive and balanced coincide" in said[0]  # a network that makes no mistake has one threshold
    card = (pack.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(sentence in card for sentence in said)
    assert "synthetic tissue" in card.splitlines()[0]
    assert "no diagnostic value" in card.splitlines()[0]
    assert "hepamap train" in card
    assert "| specific |" in card

    with (tmp_path / "run" / "log.csv").open(encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["pack"] == "toy@1.0.0"
    # What ships is the best epoch, rounded to float16, and it gives the published answer.
    with np.load(tmp_path / "run" / "best.npz") as best:
        shipped = pack.read_weights()
        assert set(shipped) == set(best.files)
        for name in best.files:
            np.testing.assert_array_equal(shipped[name], best[name].astype(np.float16).astype(np.float32))
    model = build_network("Tiny", "GAP", 64)
    set_weights(model, shipped)
    patches = combine([open_dataset(data)], 1.84, 64)["test"]
    answer = model(patches.take(range(20)).astype(np.float32) / 255).numpy()
    assert ((answer[:, 1] > 0.5) == (patches.labels == 1)).all()


def test_the_same_recipe_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    one_epoch = ("epochs = 3", "epochs = 1")
    packs = [
        train(recipe_file(tmp_path, one_epoch), [data], tmp_path / name / "run", models_dir=tmp_path / name).pack
        for name in ("a", "b")
    ]
    for name, value in packs[0].read_weights().items():
        np.testing.assert_allclose(value, packs[1].read_weights()[name], atol=2e-3)


def test_a_network_starts_from_another_pack(data: Path, tmp_path: Path) -> None:
    train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=tmp_path / "models")
    edits = [('id = "toy"', 'id = "next"'), ('"lsuv"', '"pack:toy"'), ("learning_rate = 0.05", "learning_rate = 1e-9")]
    said: list[str] = []
    later = train(
        recipe_file(tmp_path / "2", *edits, ("epochs = 3", "epochs = 1")),
        [data],
        tmp_path / "run2",
        models_dir=tmp_path / "models",
        begin=said.append,
    )
    assert said == ["pack:toy@1.0.0, 3 layers taken over"]
    card = (later.pack.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| history, first weights | {said[0]} |" in card
    first = find_pack(tmp_path / "models", "toy").read_weights()
    for name, value in later.pack.read_weights().items():
        np.testing.assert_allclose(value, first[name], atol=1e-3)


@pytest.mark.parametrize("asked", ["mixed_bfloat16", "auto"])
def test_mixed_precision_trains_and_leaves_keras_as_it_was(
    data: Path, tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setattr(backend, "has_fast_bfloat16", lambda: True)
    edits = (('precision = "float32"', f'precision = "{asked}"'), ('optimiser = "sgd"', 'optimiser = "adam"'))
    result = train(recipe_file(tmp_path, *edits), [data], tmp_path / "run", models_dir=tmp_path / "models")
    assert result.metrics["test"]["auc"] == 1.0
    assert keras.config.dtype_policy().name == "float32"


def test_arithmetic_that_would_be_imitated_is_refused_before_hours_are_spent(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "has_fast_bfloat16", lambda: False)
    recipe = recipe_file(tmp_path, ('precision = "float32"', 'precision = "mixed_bfloat16"'))
    with pytest.raises(PrecisionUnavailableError):
        train(recipe, [data], tmp_path / "run", models_dir=tmp_path / "models")


def test_dropout_can_be_weakened_while_training(data: Path, tmp_path: Path) -> None:
    from hepamap.training.fitting import starting_model

    patches = combine([open_dataset(data)], 1.84, 64)["train"]
    recipe = read_recipe(recipe_file(tmp_path, ("batch_size = 8", "batch_size = 8\ndropout = 0.5")))
    assert starting_model(recipe, patches, tmp_path)[0].get_layer("block1_drop1").rate == pytest.approx(0.1)


def test_time_budget_ends_it_gracefully(data: Path, tmp_path: Path) -> None:
    edit = ("epochs = 3", "epochs = 500\nminutes = 0.001")
    result = train(recipe_file(tmp_path, edit), [data], tmp_path / "run", models_dir=tmp_path / "models")
    assert result.history["stopped_because"] == "time is up"
    assert result.history["steps"] < 500 * 10
    assert result.pack.manifest.id == "toy"


def test_what_cannot_work_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(DatasetInvalidError, match="no complete data set"):
        train(recipe_file(tmp_path), [tmp_path / "none"], tmp_path / "run", models_dir=models)
    with pytest.raises(DatasetInvalidError, match="recipe needs 128 px"):
        train(recipe_file(tmp_path, ("patch = 64", "patch = 128")), [data], tmp_path / "run", models_dir=models)
    with pytest.raises(ModelNotFoundError, match="hcc-5x"):
        train(recipe_file(tmp_path, ('"lsuv"', '"pack:hcc-5x"')), [data], tmp_path / "run", models_dir=models)
    (models / "toy" / "1.0.0").mkdir(parents=True)
    (models / "toy" / "1.0.0" / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputExistsError, match=r"toy/1\.0\.0"):
        train(recipe_file(tmp_path), [data], tmp_path / "run3", models_dir=models)


def test_a_data_set_without_validation_is_refused(cohort: Path, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4}))
    with pytest.raises(DatasetEmptyError, match="“val”"):
        train(recipe_file(tmp_path), [tmp_path / "set"], tmp_path / "run", models_dir=tmp_path / "models")


def test_every_patch_comes_once_before_any_comes_again(data: Path) -> None:
    from hepamap.training.batches import TrainingBatches, subset
    from hepamap.training.recipe import AugmentationSection

    patches = combine([open_dataset(data)], 1.84, 64)["train"]
    batches = TrainingBatches(patches, 12, None, AugmentationSection(), seed=1)
    assert len(batches) == math.ceil(80 / 12)
    drawn = np.concatenate([batches.indices(i) for i in range(20)])
    for deck in range(3):
        assert sorted(drawn[deck * 80 : (deck + 1) * 80].tolist()) == list(range(80))
    assert drawn[:80].tolist() != drawn[80:160].tolist()
    chosen = subset(patches, 20, seed=0)
    assert patches.labels[chosen].sum() == 10
    assert len(set(chosen.tolist())) == 20


def test_cosine_rate_warms_up_and_falls() -> None:
    from hepamap.training.callbacks import CosineRate, TimeKeeper

    keeper = TimeKeeper(epochs=1, steps=100, minutes=None)
    cosine = CosineRate(1.0, 10, keeper, falling=True)
    rates = []
    for step in range(101):
        keeper.step = step
        rates.append(cosine.rate())
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert rates[50] == pytest.approx((1 + 0.01) / 2)
    assert rates[100] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1, abs=0.03)


def test_time_counts_where_it_is_further_than_the_steps() -> None:
    from hepamap.training.callbacks import TimeKeeper

    now = [0.0]
    keeper = TimeKeeper(epochs=1, steps=100, minutes=1, clock=lambda: now[0])
    keeper.step = 10
    assert keeper.fraction == pytest.approx(0.1)
    now[0] = 30.0
    assert keeper.fraction == pytest.approx(0.5)


@pytest.mark.parametrize(("kind", "warm_up"), [("plateau", 0), ("plateau", 3), ("cosine", 0)])
def test_decay_divides_the_rate_of_each_step(kind: str, warm_up: int) -> None:
    """Beside the plateau rule, which here divides it by ten after step 5."""
    import keras

    from hepamap.training.callbacks import TimeKeeper, schedule_callbacks

    def rates(decay: float) -> list[float]:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.5))
        keeper = TimeKeeper(1, 10, None)
        schedule = ScheduleSection.model_validate({"kind": kind, "warm_up_steps": warm_up})
        rate = schedule_callbacks(schedule, 0.5, keeper, "val_accuracy", decay)[0]
        rate.set_model(model)
        found = []
        for step in range(10):
            keeper.step = step
            if step == 6 and kind == "plateau":
                model.optimizer.learning_rate = float(model.optimizer.learning_rate.numpy()) / 10
            rate.on_train_batch_begin(step)
            found.append(float(model.optimizer.learning_rate.numpy()))
        return found

    for step, (plain, decayed) in enumerate(zip(rates(0.0), rates(0.1), strict=True)):
        assert decayed == pytest.approx(plain / (1 + 0.1 * step), rel=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' plateau schedule
def test_a_recipes_decay_reaches_its_training(data: Path, tmp_path: Path) -> None:
    edits = ("learning_rate = 0.05", "learning_rate = 0.05\ndecay = 0.1"), ('kind = "cosine"', 'kind = "plateau"')
    train(recipe_file(tmp_path, *edits), [data], tmp_path / "run", models_dir=tmp_path / "models")
    with np.load(tmp_path / "run" / "checkpoint.npz") as file:
        numbers = [float(file[name]) for name in file.files if name != "state" and file[name].shape == ()]
    assert any(number == pytest.approx(0.05 / (1 + 0.1 * 29)) for number in numbers)  # of the last of 30 steps


def test_decay_is_of_sgd_and_changes_no_work_that_has_none(tmp_path: Path) -> None:
    recipe = read_recipe(recipe_file(tmp_path, ("learning_rate = 0.05", "learning_rate = 0.05\ndecay = 0.001")))
    assert recipe.training.decay == 0.001
    assert "decay" in recipe.model_dump_json()
    assert "decay" not in read_recipe(recipe_file(tmp_path)).model_dump_json()
    adam = ('optimiser = "sgd"', 'optimiser = "adam"\ndecay = 0.001')
    with pytest.raises(RecipeInvalidError, match="belongs to the optimiser sgd"):
        read_recipe(recipe_file(tmp_path, adam))


def test_plateau_is_the_papers_schedule() -> None:
    from hepamap.training.callbacks import TimeKeeper, schedule_callbacks

    callbacks = schedule_callbacks(ScheduleSection(kind="plateau"), 1e-3, TimeKeeper(1, 1, None), "val_accuracy")
    plateau, stop = callbacks[1:]
    assert (plateau.factor, plateau.patience, plateau.min_delta, plateau.cooldown) == (0.1, 8, 2e-4, 3)
    assert (stop.patience, abs(stop.min_delta), stop.monitor) == (15, 5e-4, "val_accuracy")


def test_a_loss_that_is_no_number_stops_at_once() -> None:
    from hepamap.training.callbacks import StopOnNaN

    network = build_network("Tiny", "GAP", 64)
    stop = StopOnNaN(network)
    stop.on_train_batch_end(3, {"loss": 0.7})
    stop.on_epoch_end(0, {"val_loss": 0.7})
    with pytest.raises(TrainingDivergedError, match="step 4") as caught:
        stop.on_train_batch_end(3, {"loss": math.nan})
    assert "learning_rate" in caught.value.cure
    with pytest.raises(TrainingDivergedError, match="validation loss"):
        stop.on_epoch_end(0, {"val_loss": math.inf})
    kernel = network.get_layer("block2_conv1").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(TrainingDivergedError, match="weights"):
        stop.on_epoch_end(0, {"val_loss": 0.7})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is of Linux, where no one may make a folder in it")
def test_a_models_folder_that_cannot_be_written_is_known_before_the_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError, match=r"toy/1\.0\.0 cannot be written"):
        train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=Path("/proc/hepamap"))
    assert not (tmp_path / "run").exists()


def test_a_disk_that_cannot_hold_the_state_is_known_before_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    with pytest.raises(OutputNotWritableError, match=r"may need 0\.5 GB for its state, but 0\.1 GB are free"):
        train(recipe_file(tmp_path), [data], tmp_path / "run", models_dir=tmp_path / "models")
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()


def test_a_pack_that_could_not_be_written_is_written_by_going_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models folder went away during the training: nothing of it is lost."""
    models, recipe = tmp_path / "models", recipe_file(tmp_path, ("epochs = 3", "epochs = 1"))

    def fill(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hepamap.model_pack.put_in_place", fill)
    with pytest.raises(OutputNotWritableError, match="No space left") as caught:
        train(recipe, [data], tmp_path / "run", models_dir=models)
    assert "--resume" in caught.value.cure
    monkeypatch.undo()
    monkeypatch.setitem(BACKBONES, "Tiny", tiny)
    log = (tmp_path / "run" / "log.csv").read_bytes()
    result = train(recipe, [data], tmp_path / "run", models_dir=models, resume=True)
    assert (tmp_path / "run" / "log.csv").read_bytes() == log
    assert find_pack(models, "toy").manifest == result.pack.manifest
