"""Small Keras callbacks. Imports keras: import it only where training runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hepamap.networks import read_weights
from hepamap.training.batches import TrainingBatches
from hepamap.training.errors import ResumeImpossibleError, TrainingDivergedError
from hepamap.training.recipe import ScheduleSection
from hepamap.training.run_files import read_npz, write_npz

_FINAL_SHARE = 0.01  # of the learning rate that a cosine schedule ends at


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training is."""

    epoch: int
    """Counted from 1."""
    epochs: int
    step: int
    """Within the epoch, counted from 1."""
    steps: int
    loss: float
    """Mean over the epoch so far."""
    val_loss: float | None
    """Of the last finished epoch."""
    val_accuracy: float | None
    elapsed_s: float
    fraction: float
    """Of the work or of the time allowed, whichever ends first."""


class TimeKeeper(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Knows how far the training is, and ends it when its time is up."""

    def __init__(self, epochs: int, steps: int, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._total = epochs * steps
        self._limit_s = math.inf if minutes is None else minutes * 60
        self._clock = clock
        self._start = clock()
        self.step = 0
        self.time_is_up = False

    def go_on(self, step: int, elapsed_s: float, *, time_is_up: bool) -> None:
        """Count on from where a training was stopped."""
        self.step, self.time_is_up = step, time_is_up
        self._start = self._clock() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Since it was made, seconds."""
        return self._clock() - self._start

    @property
    def fraction(self) -> float:
        """Of the work or of the time, whichever is further, 0 to 1."""
        return min(1.0, max(self.step / self._total, self.elapsed_s / self._limit_s))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop after this batch where time is up; Keras still validates."""
        self.step += 1
        if self.elapsed_s >= self._limit_s:
            self.time_is_up = True
            self.model.stop_training = True


class TellEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the batches which epoch begins, so that a resumed training gets the batches it would have had."""

    def __init__(self, batches: TrainingBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell it."""
        self._batches.epoch = epoch


class AfterEachBatch(keras.callbacks.Callback):  # type: ignore[misc]
    """Does something after each batch, of training and of validation."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do it."""
        self._do()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do it."""
        self._do()


class CosineRate(keras.callbacks.Callback):  # type: ignore[misc]
    """Learning rate along half a cosine, after a linear warm-up; divided by 1 + decay × step, as Keras 2 had it."""

    def __init__(self, base: float, warm_up_steps: int, keeper: TimeKeeper, *, falling: bool, decay: float = 0.0) -> None:
        super().__init__()
        self._base, self._warm_up, self._keeper, self._falling = base, warm_up_steps, keeper, falling
        self._decay = decay

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the rate of this step."""
        # Without a fall, the rate belongs to the plateau rule once it is warm.
        if self._falling or self._keeper.step <= self._warm_up:
            self.model.optimizer.learning_rate = self.rate()
        elif self._decay:
            # By the share of one step, so that what the plateau rule has made of it stays.
            before, now = (1 + self._decay * step for step in (self._keeper.step - 1, self._keeper.step))
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate.numpy()) * before / now

    def rate(self) -> float:
        """The learning rate of the coming step."""
        warm = min(1.0, (self._keeper.step + 1) / self._warm_up) if self._warm_up else 1.0
        fall = (1 + math.cos(math.pi * self._keeper.fraction)) / 2 if self._falling else 1.0
        return self._base * warm * (_FINAL_SHARE + (1 - _FINAL_SHARE) * fall) / (1 + self._decay * self._keeper.step)


class KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a network's weights of the best validation loss, in memory and as a file (float32 npz)."""

    def __init__(self, network: keras.Model, path: Path) -> None:
        super().__init__()
        self._network = network
        self._path = path
        self.val_loss = math.inf
        self.epoch = 0
        self.weights: dict[str, NDArray[Any]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare with the best so far."""
        val_loss = float((logs or {})["val_loss"])
        if val_loss < self.val_loss:
            self.val_loss, self.epoch = val_loss, epoch + 1
            self.weights = read_weights(self._network)
            write_npz(self._path, self.weights)

    def go_on(self, epoch: int, val_loss: float) -> None:
        """Take up the best so far, from its file."""
        self.epoch, self.val_loss = epoch, val_loss
        try:
            self.weights = read_npz(self._path)
        except (OSError, ValueError) as error:
            raise ResumeImpossibleError(
                f"The best weights of the training in {self._path.parent.name} are missing or damaged.",
                cure="Start anew with --overwrite.",
            ) from error


class StopOnNaN(keras.callbacks.Callback):  # type: ignore[misc]
    """Fails as soon as loss or weights are no numbers, and before such a state is kept."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__()
        self._network = network

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss."""
        if not math.isfinite(float((logs or {}).get("loss", 0.0))):
            raise _diverged(f"loss is no longer a number, in step {batch + 1} of the epoch")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the validation's loss and at the weights: the last step of an epoch may have spoilt them."""
        if not math.isfinite(float((logs or {}).get("val_loss", 0.0))):
            raise _diverged(f"validation loss is no number after epoch {epoch + 1}")
        if not all(np.isfinite(value).all() for value in read_weights(self._network).values()):
            raise _diverged(f"weights are no longer numbers after epoch {epoch + 1}")


def _diverged(what: str) -> TrainingDivergedError:
    return TrainingDivergedError(
        f"The {what}; the state after the last good epoch stays in the run folder.",
        cure="Lower training.learning_rate in the recipe, or set training.clip_norm = 1.0; to begin with the best weights "
        'so far, set network.initialise = "weights:RUN/best.npz" and train into another run folder.',
    )


class Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the caller how far the training is, after every step."""

    def __init__(self, epochs: int, steps: int, keeper: TimeKeeper, accuracy: str, tell: Callable[[TrainProgress], None]) -> None:
        super().__init__()
        self._epochs, self._steps, self._keeper, self._accuracy, self._tell = epochs, steps, keeper, accuracy, tell
        self._epoch = 0
        self._last: dict[str, Any] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the validation and tell it."""
        self._last = dict(logs or {})
        self._say(self._steps, self._last)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the step."""
        self._say(batch + 1, logs or {})

    def _say(self, step: int, logs: dict[str, Any]) -> None:
        val_loss, val_accuracy = self._last.get("val_loss"), self._last.get(self._accuracy)
        self._tell(
            TrainProgress(
                epoch=self._epoch,
                epochs=self._epochs,
                step=step,
                steps=self._steps,
                loss=float(logs.get("loss", math.nan)),
                val_loss=None if val_loss is None else float(val_loss),
                val_accuracy=None if val_accuracy is None else float(val_accuracy),
                elapsed_s=self._keeper.elapsed_s,
                fraction=self._keeper.fraction,
            )
        )


def schedule_callbacks(
    schedule: ScheduleSection, learning_rate: float, keeper: TimeKeeper, accuracy: str, decay: float = 0.0
) -> list[keras.callbacks.Callback]:
    """The callbacks of a recipe's schedule; `accuracy` is the name of the validation accuracy in Keras' logs."""
    is_cosine = schedule.kind == "cosine"
    callbacks: list[keras.callbacks.Callback] = [
        CosineRate(learning_rate, schedule.warm_up_steps, keeper, falling=is_cosine, decay=decay)
    ]
    if not is_cosine:
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=accuracy,
                mode="max",
                factor=schedule.factor,
                patience=schedule.patience,
                min_delta=schedule.min_delta,
                cooldown=schedule.cool_down,
            )
        )
    if schedule.stop_patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=accuracy, mode="max", patience=schedule.stop_patience, min_delta=schedule.stop_min_delta
            )
        )
    return callbacks
