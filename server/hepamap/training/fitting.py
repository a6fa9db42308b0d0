"""One training by a recipe, from the first weights to the best ones. Imports keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from hepamap.interrupts import interrupts_deferred
from hepamap.networks import build_network, read_weights, set_weights
from hepamap.predictor import backend
from hepamap.training import callbacks
from hepamap.training.batches import FieldBatches, PlainBatches, TrainingBatches, scaled, some_fields, some_of_each, subset
from hepamap.training.checkpoint import Checkpoint, SaveCheckpoint, read_checkpoint
from hepamap.training.dataset import PatchSet
from hepamap.training.errors import PrecisionUnavailableError
from hepamap.training.fields import FieldSet, field_side_m
from hepamap.training.forms import accuracy_of, training_model
from hepamap.training.initialise import LSUV_PATCHES, FirstWeights, initialise
from hepamap.training.recipe import Recipe
from hepamap.training.run_files import BEST_NAME, CHECKPOINT_NAME, LOG_NAME, TENSORBOARD_NAME, Progress, cut_log

Weights = dict[str, NDArray[Any]]


def fit(
    recipe: Recipe,
    splits: dict[str, PatchSet],
    fields: dict[str, FieldSet],
    run_dir: Path,
    models_dir: Path,
    *,
    work: str,
    tensorboard: bool = False,
    begin: Callable[[str], None] = lambda _: None,
    progress: Callable[[callbacks.TrainProgress], None] = lambda _: None,
) -> tuple[Weights, dict[str, Any]]:
    """Train by a recipe; goes on where a training of the same work stopped in the run folder.

    Args:
        recipe: network, optimiser, schedule.
        splits: patches by split.
        fields: fields by split; used where the recipe has a section for them.
        run_dir: an existing folder for log, best weights and state.
        models_dir: where packs are.
        work: identifies recipe and data.
        tensorboard: write a log for TensorBoard too.
        begin: told what the network begins with, before the first step; not where a training goes on.
        progress: told after every step.

    Returns:
        The weights of the best validation loss by variable, and the history.
    """
    options = recipe.training
    checkpoint = read_checkpoint(run_dir / CHECKPOINT_NAME, work)
    before = checkpoint.progress if checkpoint else None
    keras.utils.set_random_seed(options.seed)
    if before is None:
        network, first = starting_model(recipe, splits["train"], models_dir)
        first_weights = str(first)
    else:  # what the recipe would begin with now may be another version, or gone
        network, first_weights = empty_model(recipe), before.first_weights
    model = training_model(network, recipe, field_side_m(recipe.network.patch))
    batches, validation = _batches(recipe, splits, fields)
    keeper = callbacks.TimeKeeper(options.epochs, len(batches), options.minutes)
    best = callbacks.KeepBest(network, run_dir / BEST_NAME)
    if checkpoint:
        _go_on(checkpoint, model, keeper, best, run_dir / LOG_NAME)
    else:
        begin(first_weights)
    schedule = _schedule(recipe, keeper)
    saver = SaveCheckpoint(run_dir / CHECKPOINT_NAME, work, first_weights, schedule, keeper, best, before)
    if before is None or not before.stopped:
        logs = _logs(run_dir, append=before is not None, tensorboard=tensorboard)
        report = callbacks.Report(options.epochs, len(batches), keeper, accuracy_of(recipe), progress)
        told = [callbacks.TellEpoch(batches), *schedule, callbacks.StopOnNaN(network), best, *logs, report, keeper, saver]
        epochs = range(before.epochs if before else 0, options.epochs)
        _fit_and_close(model, batches, validation, epochs, told, logs)
    assert saver.progress is not None  # at least one epoch is asked for
    return best.weights, {"first_weights": first_weights, **_history(saver.progress, options.epochs)}


def _go_on(checkpoint: Checkpoint, model: keras.Model, keeper: callbacks.TimeKeeper, best: callbacks.KeepBest, log: Path) -> None:
    """Bring everything to where a training was stopped."""
    before = checkpoint.progress
    checkpoint.restore(model)
    keeper.go_on(before.steps, before.elapsed_s, time_is_up=before.time_is_up)
    best.go_on(before.best_epoch, before.best_val_loss)
    if not before.stopped:
        cut_log(log, before.epochs)


def _logs(run_dir: Path, *, append: bool, tensorboard: bool) -> list[keras.callbacks.Callback]:
    """What writes down the course of a training."""
    logs: list[keras.callbacks.Callback] = [keras.callbacks.CSVLogger(str(run_dir / LOG_NAME), append=append)]
    if tensorboard:
        logs.append(keras.callbacks.TensorBoard(str(run_dir / TENSORBOARD_NAME), write_graph=False))
    return logs


def _schedule(recipe: Recipe, keeper: callbacks.TimeKeeper) -> list[keras.callbacks.Callback]:
    options = recipe.training
    return callbacks.schedule_callbacks(recipe.schedule, options.learning_rate, keeper, accuracy_of(recipe), options.decay or 0.0)


def _fit_and_close(
    model: keras.Model,
    batches: TrainingBatches,
    validation: PlainBatches,
    epochs: range,
    told: list[keras.callbacks.Callback],
    logs: list[keras.callbacks.Callback],
) -> None:
    """Keras' `fit`; it leaves its logs open where it fails."""
    try:
        with interrupts_deferred() as stop_if_asked:
            model.fit(
                batches,
                validation_data=validation,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                shuffle=False,  # the batches are random already; keras would only spoil their seed
                verbose=0,
                callbacks=[*told, callbacks.AfterEachBatch(stop_if_asked)],
            )
    except BaseException:
        for log in logs:
            log.on_train_end()
        raise


def _history(done: Progress, epochs: int) -> dict[str, Any]:
    stopped = "time is up" if done.time_is_up else "all epochs done" if done.epochs == epochs else "no better for long"
    return {
        "epochs": done.epochs,
        "steps": done.steps,
        "best_epoch": done.best_epoch,
        "best_val_loss": round(done.best_val_loss, 4),
        "stopped_because": stopped,
        "minutes": round(done.elapsed_s / 60, 1),
    }


def _batches(recipe: Recipe, splits: dict[str, PatchSet], fields: dict[str, FieldSet]) -> tuple[TrainingBatches, PlainBatches]:
    """Batches for training and for validation; with fields, where the recipe has them."""
    options, wanted = recipe.training, recipe.fields
    train, masks = splits["train"], recipe.segmentation is not None
    if recipe.segmentation is not None:
        counts = (recipe.segmentation.non_tumour_patches, recipe.segmentation.tumour_patches)
        train = some_of_each(train, counts, options.seed)

    def with_fields(split: str, count: int | None) -> FieldBatches | None:
        if wanted is None:
            return None
        return FieldBatches(fields[split], some_fields(fields[split], count, options.seed), wanted.per_step)

    return (
        TrainingBatches(
            train,
            options.batch_size,
            options.steps_per_epoch,
            recipe.augmentation,
            options.seed,
            fields=with_fields("train", None),
            masks=masks,
        ),
        PlainBatches(
            splits["val"],
            subset(splits["val"], options.validation_patches, options.seed),
            options.batch_size,
            fields=with_fields("val", wanted.validation if wanted else None),
            masks=masks,
        ),
    )


@interrupts_deferred()
def starting_model(recipe: Recipe, patches: PatchSet, models_dir: Path) -> tuple[keras.Model, FirstWeights]:
    """The network with its first weights, in the recipe's precision, and where they are from."""
    network, options = recipe.network, recipe.training
    start = build_network(network.backbone, network.head, network.patch)
    sample = scaled(patches.take(subset(patches, LSUV_PATCHES, options.seed)))
    first = initialise(start, network.initialise, sample, models_dir, options.seed)
    model = empty_model(recipe)
    set_weights(model, read_weights(start))
    return model, first


def empty_model(recipe: Recipe) -> keras.Model:
    """The network in the recipe's precision and with its dropout, still without weights; these are float32 in any case."""
    with backend.policy(_policy(recipe.training.precision)):
        model = build_network(recipe.network.backbone, recipe.network.head, recipe.network.patch)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate *= recipe.training.dropout
    return model


def _policy(precision: str) -> str:
    """Keras' name of a recipe's precision on this machine.

    Raises:
        PrecisionUnavailableError: it would have to be imitated, which takes days instead of an hour.
    """
    is_fast = backend.device_kind() == "gpu" or backend.has_fast_bfloat16()
    if precision == "mixed_bfloat16" and not is_fast:
        raise PrecisionUnavailableError(
            "The recipe asks for mixed_bfloat16, for which this machine has no instructions.",
            cure='Write precision = "auto" or "float32" into the recipe.',
        )
    return "mixed_bfloat16" if precision != "float32" and is_fast else "float32"
