"""One run of a study: a training, and its score on the test patches. Imports keras: import it only where training runs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from hepamap.interrupts import interrupts_deferred
from hepamap.networks import build_network, set_weights
from hepamap.predictor.backend import is_out_of_memory
from hepamap.training.batches import PlainBatches
from hepamap.training.callbacks import TrainProgress
from hepamap.training.dataset import PatchSet
from hepamap.training.errors import TrainingDivergedError
from hepamap.training.fitting import Weights, fit
from hepamap.training.metrics import patch_metrics
from hepamap.training.recipe import Recipe
from hepamap.training.run_files import CHECKPOINT_NAME, read_progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    metrics: Mapping[str, Any] | None
    """Of the test patches, see `patch_metrics`; None where the run failed."""
    history: Mapping[str, Any]
    """Epochs, steps, best epoch and its validation loss; empty where the run failed."""
    seconds: float
    message: str
    """Why it failed; empty where it did not."""


def run_training(
    recipe: Recipe,
    splits: Mapping[str, PatchSet],
    run_dir: Path,
    models_dir: Path,
    *,
    work: str,
    progress: Callable[[TrainProgress], None],
) -> Outcome:
    """Train and score; a training that was killed in this folder goes on.

    Numbers that run away, and memory that does not suffice, are outcomes and not errors.

    Args:
        recipe: of this run.
        splits: patches of train, val and test.
        run_dir: folder of its log and state; it is made.
        models_dir: where packs are, if the recipe begins with one.
        work: identifies recipe and data.
        progress: told after every step.

    Raises:
        OutputNotWritableError: the disk is full.
        ResumeImpossibleError: the state in the folder is damaged or of another work.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    before = read_progress(run_dir / CHECKPOINT_NAME, work)
    started = time.monotonic() - (before.elapsed_s if before else 0.0)
    try:
        weights, history = fit(recipe, dict(splits), {}, run_dir, models_dir, work=work, progress=progress)
        metrics = _score(recipe, weights, splits["test"])
    except TrainingDivergedError as error:
        return Outcome(None, {}, time.monotonic() - started, error.message)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # The other runs may have room: one batch size too many is no reason to lose a night.
        return Outcome(None, {}, time.monotonic() - started, "The memory of this machine did not suffice.")
    finally:
        # Hundreds of networks one after the other: Keras would remember them all.
        keras.utils.clear_session()
        gc.collect()
    return Outcome(metrics, history, time.monotonic() - started, "")


def _score(recipe: Recipe, weights: Weights, test: PatchSet) -> dict[str, Any]:
    """The best weights on the test patches, in float32, whatever they were trained in."""
    network = recipe.network
    model = build_network(network.backbone, network.head, network.patch)
    set_weights(model, weights)
    model.compile(jit_compile=False)
    with interrupts_deferred():
        answers = model.predict(PlainBatches(test, np.arange(len(test)), recipe.training.batch_size), verbose=0)[:, 1]
    if not np.isfinite(answers).all():
        raise TrainingDivergedError("The network answers with something that is no number.", cure="Lower the learning rate.")
    return patch_metrics(test.labels, answers)
