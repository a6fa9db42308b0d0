"""The state of a training on disk, so that one that was killed goes on and ends with the weights it would have had.

Imports keras: import it only where training runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from hepamap.training.callbacks import KeepBest, TimeKeeper
from hepamap.training.run_files import STATE_KEY, Progress, damaged_state, progress_of, read_npz, write_npz

_VARIABLE = "variable/"
# What Keras' own callbacks remember between epochs; they forget it when a training begins.
_REMEMBERED = ("wait", "best", "cooldown_counter", "stopped_epoch", "best_epoch")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that was read."""

    progress: Progress
    variables: list[NDArray[Any]]
    """Of network and optimiser."""

    def restore(self, model: keras.Model) -> None:
        """Put weights, the state of dropout and the optimiser's memory into a compiled model."""
        for variable, value in zip(_variables(model), self.variables, strict=True):
            variable.assign(value)


def read_checkpoint(path: Path, work: str) -> Checkpoint | None:
    """The last state of a training; None where none was written.

    Args:
        path: the file.
        work: what is to be trained now.

    Raises:
        ResumeImpossibleError: the file is of another work, or damaged.
    """
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
        variables = [arrays[f"{_VARIABLE}{i}"] for i in range(len(arrays) - 1)]
    except (OSError, ValueError, KeyError) as error:
        raise damaged_state(path, error) from error
    return Checkpoint(progress_of(arrays.get(STATE_KEY), path, work), variables)


class SaveCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]  # keras ships no types
    """Writes the state after every epoch; stands last, so that it sees what the others decided."""

    def __init__(
        self,
        path: Path,
        work: str,
        first_weights: str,
        others: Sequence[keras.callbacks.Callback],
        keeper: TimeKeeper,
        best: KeepBest,
        resumed: Progress | None,
    ) -> None:
        super().__init__()
        self._path, self._work, self._first_weights = path, work, first_weights
        self._others, self._keeper, self._best = others, keeper, best
        self._resumed = resumed
        self.progress = resumed
        """As of the last finished epoch."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Remind the callbacks of what they knew."""
        for callback, known in zip(self._others, self._resumed.remembered if self._resumed else [], strict=False):
            for name, value in known.items():
                setattr(callback, name, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the state."""
        self.progress = Progress(
            work=self._work,
            first_weights=self._first_weights,
            epochs=epoch + 1,
            steps=self._keeper.step,
            elapsed_s=self._keeper.elapsed_s,
            best_epoch=self._best.epoch,
            best_val_loss=self._best.val_loss,
            stopped=bool(self.model.stop_training) or epoch + 1 == self.params["epochs"],
            time_is_up=self._keeper.time_is_up,
            remembered=[_known(callback) for callback in self._others],
        )
        arrays = {f"{_VARIABLE}{i}": np.asarray(variable.numpy()) for i, variable in enumerate(_variables(self.model))}
        write_npz(self._path, {STATE_KEY: np.array(json.dumps(asdict(self.progress))), **arrays})


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, the seeds of dropout, and the optimiser's variables, among them the learning rate."""
    if not model.optimizer.built:  # at its first step otherwise
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _known(callback: keras.callbacks.Callback) -> dict[str, Any]:
    known = {name: getattr(callback, name) for name in _REMEMBERED if hasattr(callback, name)}
    return {name: float(value) if isinstance(value, np.floating | np.ndarray) else value for name, value in known.items()}
