"""Recipe and data sets to a model pack: what `hepamap train` does. Keras is imported when training begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hepamap import __version__
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.model_pack import InputSpec, ManifestBody, ModelPack, NetworkSpec, write_pack
from hepamap.networks import build_network, read_weights, set_weights
from hepamap.training.dataset import Dataset, PatchSet, combine, open_dataset
from hepamap.training.errors import DatasetEmptyError
from hepamap.training.fields import FieldSet, combine_fields, field_side_m
from hepamap.training.metrics import operating_points, operating_thresholds, patch_metrics
from hepamap.training.model_card import INTENDED_USE, model_card
from hepamap.training.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    import keras

    from hepamap.training.batches import PlainBatches, TrainingBatches
    from hepamap.training.callbacks import TrainProgress

Weights = dict[str, NDArray[Any]]

LOG_NAME, BEST_NAME, METRICS_NAME, RECIPE_NAME = "log.csv", "best.npz", "metrics.json", "recipe.toml"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished training."""

    pack: ModelPack
    run_dir: Path
    """Log, best weights in float32, metrics, a copy of the recipe."""
    metrics: dict[str, Any]
    """As in the manifest: `validation` and `test`, each with `auc` and more."""
    history: dict[str, Any]
    """Epochs done, the best of them, why it stopped, how long it took."""


def train(
    recipe_path: Path,
    dataset_dirs: Sequence[Path],
    run_dir: Path,
    *,
    models_dir: Path,
    overwrite: bool = False,
    progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainResult:
    """Train a network and write its pack to `<models_dir>/<id>/<version>`.

    Args:
        recipe_path: a TOML recipe.
        dataset_dirs: data sets made by `build_dataset`; they need the splits train and val, and test for test scores.
        run_dir: folder for log, best weights so far (also after a crash), metrics.
        models_dir: where packs are; a recipe may start from one of them.
        overwrite: replace a pack or run that is there.
        progress: told after every step.

    Raises:
        RecipeInvalidError, DatasetInvalidError, DatasetEmptyError, OutputExistsError: before anything is computed.
        TrainingDivergedError: the loss is no longer a number.
    """
    recipe = read_recipe(recipe_path)
    pack_dir = models_dir / recipe.pack.id / recipe.pack.version
    datasets = [open_dataset(folder) for folder in dataset_dirs]
    splits, fields = combine(datasets, recipe.network.mpp, recipe.network.patch), combine_fields(datasets)
    _check_splits(splits)
    if recipe.fields is not None:
        _check_fields(fields)
    _prepare(run_dir, pack_dir, overwrite)
    shutil.copyfile(recipe_path, run_dir / RECIPE_NAME)

    weights, history = fit(recipe, splits, fields, run_dir, models_dir, progress)
    metrics, thresholds, judged = _evaluate(recipe, weights, splits)
    body = _manifest(recipe, datasets, history, metrics, operating_points(thresholds, *judged))
    pack = write_pack(pack_dir, body, weights, model_card(body, recipe.pack.origin))
    text = json.dumps({"pack": pack.name, "history": history, "metrics": metrics}, indent=2) + "\n"
    (run_dir / METRICS_NAME).write_text(text, encoding="utf-8")
    return TrainResult(pack, run_dir, metrics, history)


def fit(
    recipe: Recipe,
    splits: dict[str, PatchSet],
    fields: dict[str, FieldSet],
    run_dir: Path,
    models_dir: Path,
    progress: Callable[[TrainProgress], None],
) -> tuple[Weights, dict[str, Any]]:
    """Train by a recipe; returns the weights of the best validation loss, and the history."""
    import keras

    from hepamap.training import callbacks
    from hepamap.training.forms import accuracy_of, training_model

    options = recipe.training
    keras.utils.set_random_seed(options.seed)
    network = starting_model(recipe, splits["train"], models_dir)
    model = training_model(network, recipe, field_side_m(recipe.network.patch))
    batches, validation = _batches(recipe, splits, fields)
    keeper = callbacks.TimeKeeper(options.epochs, len(batches), options.minutes)
    best = callbacks.KeepBest(network, run_dir / BEST_NAME)
    log = model.fit(
        batches,
        validation_data=validation,
        epochs=options.epochs,
        shuffle=False,  # the batches are random already; keras would only spoil their seed
        verbose=0,
        callbacks=[
            *callbacks.schedule_callbacks(recipe.schedule, options.learning_rate, keeper, accuracy_of(recipe)),
            callbacks.StopOnNaN(),
            best,
            keras.callbacks.CSVLogger(str(run_dir / LOG_NAME)),
            callbacks.Report(options.epochs, len(batches), keeper, accuracy_of(recipe), progress),
            keeper,
        ],
    )
    epochs = len(log.history["loss"])
    stopped = "time is up" if keeper.time_is_up else "all epochs done" if epochs == options.epochs else "no better for long"
    history = {
        "epochs": epochs,
        "steps": keeper.step,
        "best_epoch": best.epoch,
        "best_val_loss": round(best.val_loss, 4),
        "stopped_because": stopped,
        "minutes": round(keeper.elapsed_s / 60, 1),
    }
    return best.weights, history


def _batches(recipe: Recipe, splits: dict[str, PatchSet], fields: dict[str, FieldSet]) -> tuple[TrainingBatches, PlainBatches]:
    """Batches for training and for validation; with fields, where the recipe has them."""
    from hepamap.training.batches import FieldBatches, PlainBatches, TrainingBatches, some_fields, subset

    options, wanted = recipe.training, recipe.fields

    def with_fields(split: str, count: int | None) -> FieldBatches | None:
        if wanted is None:
            return None
        return FieldBatches(fields[split], some_fields(fields[split], count, options.seed), wanted.per_step)

    return (
        TrainingBatches(
            splits["train"],
            options.batch_size,
            options.steps_per_epoch,
            recipe.augmentation,
            options.seed,
            fields=with_fields("train", None),
        ),
        PlainBatches(
            splits["val"],
            subset(splits["val"], options.validation_patches, options.seed),
            options.batch_size,
            fields=with_fields("val", wanted.validation if wanted else None),
        ),
    )


def starting_model(recipe: Recipe, patches: PatchSet, models_dir: Path) -> keras.Model:
    """The network with its first weights, in the recipe's precision."""
    import keras

    from hepamap.training.batches import scaled, subset
    from hepamap.training.initialise import LSUV_PATCHES, initialise

    network, options = recipe.network, recipe.training
    start = build_network(network.backbone, network.head, network.patch)
    sample = scaled(patches.take(subset(patches, LSUV_PATCHES, options.seed)))
    initialise(start, network.initialise, sample, models_dir, options.seed)
    model = _in_precision(recipe)
    set_weights(model, read_weights(start))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate *= options.dropout
    return model


def _in_precision(recipe: Recipe) -> keras.Model:
    """A network that computes in the recipe's precision; weights are float32 in any case."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.training.precision)
    try:
        return build_network(recipe.network.backbone, recipe.network.head, recipe.network.patch)
    finally:
        keras.config.set_dtype_policy(before)


def _check_splits(splits: dict[str, PatchSet]) -> None:
    for name in ("train", "val"):
        if len(set(splits[name].labels.tolist())) < 2:
            raise DatasetEmptyError(
                f"The data sets have no “{name}” split with patches of both classes.",
                cure="Add slides of that split to the cohort table and build the data set again.",
            )


def _check_fields(fields: dict[str, FieldSet]) -> None:
    for name, of_split in fields.items():
        if not len(of_split):
            raise DatasetEmptyError(
                f"The recipe trains on fields, but the data sets have none in the split “{name}”.",
                cure="Build a data set with `hepamap dataset build … --fields N`, or remove [fields] from the recipe.",
            )


def _prepare(run_dir: Path, pack_dir: Path, overwrite: bool) -> None:
    for folder in (run_dir, pack_dir):
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise OutputExistsError(
                f"There is something in {folder.parent.name}/{folder.name} already.",
                cure="Give the recipe a new version, or add --overwrite.",
            )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritableError(
            f"The folder {run_dir.name} cannot be made ({error.strerror}).", cure="Check permissions and free space."
        ) from error


def _evaluate(
    recipe: Recipe, weights: Weights, splits: dict[str, PatchSet]
) -> tuple[dict[str, Any], dict[str, float], tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Scores of exactly what ships: weights rounded to float16, computed in float32, never augmented.

    Returns:
        Metrics by split; thresholds chosen on validation; labels and probabilities to judge them on (test, if there is one).
    """
    from hepamap.training.batches import PlainBatches

    network = recipe.network
    model = build_network(network.backbone, network.head, network.patch)
    set_weights(model, {name: value.astype(np.float16) for name, value in weights.items()})
    model.compile(jit_compile=False)
    metrics: dict[str, Any] = {}
    judged: dict[str, tuple[NDArray[np.int8], NDArray[np.float32]]] = {}
    for split, name in (("val", "validation"), ("test", "test")):
        patches = splits[split]
        if len(set(patches.labels.tolist())) == 2:
            batches = PlainBatches(patches, np.arange(len(patches)), recipe.training.batch_size)
            judged[name] = (patches.labels, model.predict(batches, verbose=0)[:, 1])
            metrics[name] = {**patch_metrics(*judged[name]), "slides": len(set(patches.slides.tolist()))}
    thresholds = operating_thresholds(*judged["validation"])
    return metrics, thresholds, judged.get("test", judged["validation"])


def _manifest(
    recipe: Recipe,
    datasets: Sequence[Dataset],
    history: dict[str, Any],
    metrics: dict[str, Any],
    points: Sequence[Any],
) -> ManifestBody:
    judged_on = "test" if "test" in metrics else "validation"
    return ManifestBody(
        id=recipe.pack.id,
        version=recipe.pack.version,
        title=recipe.pack.title,
        network=NetworkSpec(backbone=recipe.network.backbone, head=recipe.network.head),
        input=InputSpec(mpp=recipe.network.mpp, patch=recipe.network.patch),
        strides=recipe.pack.strides,
        default_stride=recipe.pack.default_stride,
        operating_points=tuple(points),
        training={
            "software": f"hepamap {__version__}",
            "origin": recipe.pack.origin,
            "data": [_summary(dataset) for dataset in datasets],
            "history": history,
            "recipe": recipe.model_dump(mode="json", exclude={"pack"}),
        },
        evaluation={**metrics, "operating_points_chosen_on": "validation", "operating_points_measured_on": judged_on},
        licence=recipe.pack.licence,
        intended_use=INTENDED_USE[recipe.pack.origin],
    )


def _summary(dataset: Dataset) -> dict[str, Any]:
    slides = dataset.manifest["slides"]
    return {
        "name": dataset.folder.name,
        "seed": dataset.manifest["seed"],
        "patches_per_class": dataset.manifest["patches_per_class"],
        "slides": {split: sum(slide["split"] == split for slide in slides) for split in dataset.manifest["patches_per_class"]},
    }
