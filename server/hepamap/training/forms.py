"""The forms in which a network is trained: on patches, or on patches and fields at once. Imports keras."""

from __future__ import annotations

from typing import Any

import keras

from hepamap.networks.dense import field_network
from hepamap.training.batches import FIELDS, PATCHES
from hepamap.training.patches import NO_LABEL
from hepamap.training.recipe import Recipe, TrainingSection


def training_model(network: keras.Model, recipe: Recipe, field_m: int) -> keras.Model:
    """The compiled model that `fit` gets; it shares every weight with the network.

    Args:
        network: of one patch.
        recipe: optimiser, and whether fields belong to a step.
        field_m: side of the fields, model px.

    Returns:
        The network itself, from patches to probabilities, with the metric `accuracy` (trained on masks: over labelled pixels);
        or, where the recipe has fields, a model of two inputs and two outputs, `patches` and `fields`, whose loss is the
        patches' plus the weighted fields', the mean over the labelled positions.
    """
    # XLA ("auto" turns it on) was measured to be slower on CPUs, and twice as slow in bfloat16.
    common = {"optimizer": optimiser(recipe.training), "jit_compile": False}
    if recipe.fields is None:
        if recipe.segmentation is not None:
            network.compile(loss=field_loss(), metrics=[LabelledAccuracy()], **common)
            return network
        network.compile(loss="categorical_crossentropy", metrics=["accuracy"], **common)
        return network
    dense = field_network(network, field_m)
    model = keras.Model(
        {PATCHES: network.inputs[0], FIELDS: dense.inputs[0]},
        {PATCHES: network.outputs[0], FIELDS: dense.outputs[0]},
        name=f"{network.name}_both",
    )
    model.compile(
        loss={PATCHES: "categorical_crossentropy", FIELDS: field_loss()},
        loss_weights={PATCHES: 1.0, FIELDS: recipe.fields.weight},
        metrics={PATCHES: ["accuracy"]},
        **common,
    )
    return model


def field_loss() -> keras.losses.Loss:
    """Cross-entropy of label maps (N, S, S) and probabilities (N, S, S, 2): the mean over positions that have a label."""
    return keras.losses.SparseCategoricalCrossentropy(ignore_class=NO_LABEL)


class LabelledAccuracy(keras.metrics.MeanMetricWrapper):  # type: ignore[misc]  # keras ships no types
    """Share of the pixels that are right, of those that have a label; the mean over batches."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(_labelled_accuracy, name=name)


def _labelled_accuracy(labels: Any, answers: Any) -> Any:
    labels = keras.ops.cast(labels, "int32")
    is_known = keras.ops.cast(labels != NO_LABEL, "float32")
    is_right = keras.ops.cast(keras.ops.argmax(answers, axis=-1) == labels, "float32")
    return keras.ops.sum(is_known * is_right) / keras.ops.maximum(keras.ops.sum(is_known), 1.0)


def accuracy_of(recipe: Recipe) -> str:
    """Name of the validation accuracy of patches in Keras' logs."""
    return "val_accuracy" if recipe.fields is None else f"val_{PATCHES}_accuracy"


def optimiser(options: TrainingSection) -> keras.optimizers.Optimizer:
    """The recipe's optimiser."""
    limits = {} if options.clip_norm is None else {"global_clipnorm": options.clip_norm}
    if options.optimiser == "sgd":
        return keras.optimizers.SGD(options.learning_rate, momentum=options.momentum, **limits)
    return keras.optimizers.Adam(options.learning_rate, **limits)
