"""Patches in, tumour probabilities out: the only module of the serving path that imports keras (inside `load`)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import PredictionInvalidError
from hepamap.model_pack import ModelPack

_BATCH_PIXELS = 64 * 64 * 64  # pixels per batch: 64 patches of 64 px, 16 of 128 px
_TUMOUR_CLASS = 1
_PROBABILITY_SLACK = 1e-4  # softmax in lower precision may pass 1 by a rounding


class Predictor:
    """A loaded, warmed-up network."""

    def __init__(self, model: Any, patch_m: int) -> None:
        self._model = model
        self.patch_m = patch_m
        self.batch_size = max(1, _BATCH_PIXELS // patch_m**2)

    @classmethod
    def load(cls, pack: ModelPack) -> Self:
        """Build the network of a pack, fill in its verified weights and run it once.

        Raises:
            PackDamagedError: the weights are not those that the manifest names.
            PackInvalidError: the network is unknown, or the weights do not fit it.
        """
        spec = pack.manifest
        weights = pack.read_weights()
        start_backend()
        from hepamap.networks import build_network, set_weights

        model = build_network(spec.network.backbone, spec.network.head, spec.input.patch)
        set_weights(model, weights)
        model.compile(jit_compile=False)  # XLA was measured to be a third slower here on a CPU
        predictor = cls(model, spec.input.patch)
        predictor.predict(np.zeros((1, spec.input.patch, spec.input.patch, 3), np.uint8))
        return predictor

    @property
    def device(self) -> str:
        """What the network runs on, e.g. `cpu` or `gpu`."""
        import keras

        kinds = {str(name).split(":")[0].lower() for name in keras.distribution.list_devices()}
        return "gpu" if kinds & {"gpu", "cuda"} else "cpu"

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tumour probability of each patch, each seen alone.

        Args:
            patches: RGB (N, patch, patch, 3), values 0-255.

        Returns:
            (N,), 0 to 1.

        Raises:
            PredictionInvalidError: the network answered something that is no probability.
        """
        if not len(patches):
            return np.zeros(0, np.float32)
        starts = range(0, len(patches), self.batch_size)
        return np.concatenate([self._predict_batch(patches[start : start + self.batch_size]) for start in starts])

    def _predict_batch(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Always the same shape: one compilation, and a patch's value cannot depend on how full its batch is.
        batch = np.zeros((self.batch_size, self.patch_m, self.patch_m, 3), np.float32)
        batch[: len(patches)] = patches
        batch /= 255.0
        answer = np.asarray(self._model.predict_on_batch(batch))
        if answer.shape != (self.batch_size, 2):
            raise _invalid(f"an array of shape {answer.shape} where ({self.batch_size}, 2) was due")
        tumour = answer[: len(patches), _TUMOUR_CLASS].astype(np.float32)
        if not np.all(np.isfinite(tumour)):
            raise _invalid("a value that is not a number")
        if tumour.min() < -_PROBABILITY_SLACK or tumour.max() > 1 + _PROBABILITY_SLACK:
            raise _invalid("a value outside 0 to 1")
        return np.clip(tumour, 0.0, 1.0)


def start_backend() -> None:
    """Import keras, on TensorFlow unless told otherwise, and keep its start-up chatter out of our output."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return
    # TensorFlow's libraries write to descriptor 2 before any setting of theirs is read.
    with tempfile.TemporaryFile() as chatter, _descriptor_2_to(chatter):
        import keras  # noqa: F401


@contextmanager
def _descriptor_2_to(target: IO[bytes]) -> Iterator[None]:
    """Standard error goes to a file for a while; it comes out all the same where something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target.fileno(), 2)
    try:
        yield
    except BaseException:
        target.seek(0)
        os.write(kept, target.read())
        raise
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _invalid(what: str) -> PredictionInvalidError:
    return PredictionInvalidError(
        f"The network answered {what}.", cure="The weights are not usable: train or install the model again."
    )
