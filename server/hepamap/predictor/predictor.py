"""A loaded network and the two ways to ask it: patch by patch, or lane by lane."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import OutOfMemoryError, PredictionInvalidError
from hepamap.interrupts import interrupts_deferred
from hepamap.model_pack import ModelPack
from hepamap.networks.dense import UNIT_M
from hepamap.networks.strips import StripNetwork, lane_width_m
from hepamap.predictor import backend
from hepamap.predictor.lane_feed import LaneFeed

_PIXELS_AT_ONCE = {"cpu": 64 * 64 * 64, "gpu": 1024 * 64 * 64}
"""Pixels of the patches of one batch, by device; halved when memory runs short."""
_STRIP_PIXELS = {"cpu": 640_000, "gpu": 4_600_000}
"""Pixels of one strip of a lane, however wide it is: so memory is the same on all slides."""
_STRIP_ROWS_M = {"cpu": (64, 256), "gpu": (64, 1024)}
_SEGMENTS = {"cpu": 4, "gpu": 1}
"""Into how many segments, computed as one batch, a strip's width is cut: oneDNN shares out a batch, and hardly one wide image."""
_LANE_POSITIONS = tuple(range(29, 382, 16))
"""Widths of lanes, in patches 16 px apart; each that is used is a graph of its own. 381 of them are 11 mm at 5X."""
_GAVE_WAY_FOR_MEMORY = ("gpu_memory", "The GPU's memory did not suffice: the network ran on the CPU, which takes longer.")
_GAVE_WAY = (
    "gpu_failed",
    "The GPU's libraries did not start (another program may hold its memory): the network ran on the CPU, which takes longer.",
)
_TUMOUR_CLASS = 1
_PROBABILITY_SLACK = {"float32": 1e-4, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-3}  # softmax may pass 1 by a rounding

Answer = TypeVar("Answer")


class Predictor:
    """A loaded, warmed-up network."""

    lane_positions: Sequence[int] = _LANE_POSITIONS
    """Widths that a lane may have, in patches 16 px apart."""

    def __init__(self, model: Any, patch_m: int, *, device: str = "cpu", policy: str = "float32", by_pixel: bool = False) -> None:
        self.model = model
        """The keras model of one patch."""
        self._device = device
        # Of the device that lanes began on: one that moves to the CPU in the middle goes on as it was cut.
        self._segments = _SEGMENTS[device]
        self._shrunk = 1
        # What one patch gives: a number, or one for each of its pixels.
        self._answer_shape = (patch_m, patch_m) if by_pixel else ()
        self._strips: dict[tuple[int, int | None], StripNetwork] = {}
        self._unpadded: dict[str, Any] = {}
        self._rebuild: Callable[[str], Any] | None = None
        self._gave_way = False
        self._scope: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.patch_m = patch_m
        self.policy = policy
        self.warnings: list[tuple[str, str]] = []
        """Code and sentence of what went otherwise than the machine promised."""

    @classmethod
    @interrupts_deferred()
    def load(cls, pack: ModelPack, precision: str = "auto") -> Self:
        """Build the network of a pack, fill in its verified weights and run it once.

        Args:
            pack: the model pack.
            precision: one of `PRECISIONS`.

        Raises:
            PackDamagedError: the weights are not those that the manifest names.
            PackInvalidError: the network is unknown, or the weights do not fit it.
            OutOfMemoryError: memory does not suffice for the weights or a single patch.
        """
        spec = pack.manifest
        weights = pack.read_weights()
        backend.start_backend()
        from hepamap.networks import build_network, set_weights, window_side_m

        device = backend.device_kind()
        policy = backend.dtype_policy(precision, device)
        by_pixel = spec.network.kind == "segmentation"
        side_m = window_side_m(spec.input.patch) if by_pixel else spec.input.patch

        def build(policy: str) -> Any:
            with backend.policy(policy):
                model = build_network(spec.network.backbone, spec.network.head, side_m)
            set_weights(model, weights)
            backend.compile_graph(model)
            return model

        predictor = cls(None, side_m, device=device, policy=policy, by_pixel=by_pixel)
        predictor._build_first(build)
        if backend.has_unused_gpu(device):
            predictor.warnings.append(
                ("gpu_not_used", "There is a GPU in this machine, but the network runs on the CPU: install hepamap[gpu].")
            )
        if precision == "mixed" and policy == "float32":
            predictor.warnings.append(
                ("precision_not_used", "This CPU has no fast 16-bit arithmetic: the network ran in float32, which is exact.")
            )
        predictor.predict(np.zeros((1, side_m, side_m, 3), np.uint8))
        return predictor

    @property
    def device(self) -> str:
        """What the network runs on: `cpu` or `gpu`."""
        return self._device

    @property
    def gave_way(self) -> bool:
        """Whether it left a GPU for the CPU; loaded again, it may find the GPU free."""
        return self._gave_way

    @property
    def batch_size(self) -> int:
        """Patches that are computed at once."""
        return max(1, _PIXELS_AT_ONCE[self._device] // self.patch_m**2 // self._shrunk)

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tumour probability of each patch, each seen alone.

        Args:
            patches: RGB (N, patch, patch, 3), values 0-255.

        Returns:
            (N,), 0 to 1; (N, patch, patch) of a network that answers for every pixel.

        Raises:
            PredictionInvalidError: the network answered something that is no probability.
            OutOfMemoryError: memory does not suffice for a single patch.
        """
        answers: list[NDArray[np.float32]] = [np.zeros((0, *self._answer_shape), np.float32)]
        done = 0
        while done < len(patches):
            answers.append(self._despite_memory(self._predict_batch, patches[done:]))
            done += len(answers[-1])
        return np.concatenate(answers)

    def open_lane(self, positions: int) -> LaneFeed:
        """Begin a lane of so many patches beside each other, one of `lane_positions`.

        Raises:
            NetworkInvalidError: the network has no dense mode.
        """
        carries = self._strip_network(positions, self.strip_rows_m(positions)).first_carries()
        return LaneFeed(
            lane_width_m(positions, self.patch_m),
            lambda: self.strip_rows_m(positions),
            lambda strip, state: self._advance(strip, state, positions),
            carries,
            last_multiple_m=UNIT_M if self._takes_any_height else None,
        )

    @property
    def _takes_any_height(self) -> bool:
        """Whether one graph serves strips of all heights; elsewhere each is compiled, or tuned, for itself (for minutes)."""
        return self._device == "cpu" and not backend.compiles_shapes()

    def strip_rows_m(self, positions: int) -> int:
        """Height of the strips that a lane is computed in, model px; a multiple of 16."""
        least, most = _STRIP_ROWS_M[self._device]
        wanted = _STRIP_PIXELS[self._device] // lane_width_m(positions, self.patch_m)
        rows = max(least, min(most, wanted)) // self._shrunk
        return max(UNIT_M, rows // UNIT_M * UNIT_M)

    def _advance(
        self, strip: NDArray[np.float32], carries: list[NDArray[Any]], positions: int
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        """One strip, in pieces where memory runs short."""
        answers: list[NDArray[np.float32]] = []
        done = 0
        while done < strip.shape[1]:
            answer, carries = self._despite_memory(self._advance_once, strip[:, done:], carries, positions)
            answers.append(answer)
            done += UNIT_M * len(answer)
        return np.concatenate(answers), carries

    def _advance_once(
        self, rest: NDArray[np.float32], carries: list[NDArray[Any]], positions: int
    ) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
        rows_m = min(self.strip_rows_m(positions), rest.shape[1])
        if rest.shape[1] % rows_m and not self._takes_any_height:
            rows_m = UNIT_M  # a strip that was cut before memory ran short: in single units, which any divides into
        network = self._strip_network(positions, rows_m)
        # Of another type only where the lane began on a GPU in 16 bits.
        state = [carry.astype(kind, copy=False) for carry, kind in zip(carries, network.carry_dtypes, strict=True)]
        with self._scope():
            answer, *carries = network.model.predict_on_batch([rest[:, :rows_m], *state])
        return self._checked(np.asarray(answer), (1, rows_m // UNIT_M, positions, 2))[0], carries

    def _strip_network(self, positions: int, rows_m: int) -> StripNetwork:
        fixed = None if self._takes_any_height else rows_m
        key = (positions, fixed)
        if key not in self._strips:
            from hepamap.networks.strips import strip_network

            with backend.policy(self.policy), self._scope():
                network = strip_network(self.model, fixed, positions, self._unpadded, segments=self._segments)
            backend.compile_graph(network.model)
            self._strips[key] = network
        return self._strips[key]

    def _predict_batch(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The first batch of some patches."""
        # Always the same shape: one compilation, and a patch's value cannot depend on how full its batch is.
        size = self.batch_size
        patches = patches[:size]
        batch = np.zeros((size, self.patch_m, self.patch_m, 3), np.float32)
        batch[: len(patches)] = patches
        batch /= 255.0
        with self._scope():
            answer = self.model.predict_on_batch(batch)
        return self._checked(np.asarray(answer), (size, *self._answer_shape, 2))[: len(patches)]

    def _checked(self, answer: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The tumour probabilities of an answer of the network, or an error where it is none."""
        if answer.shape != shape:
            raise _invalid(f"an array of shape {answer.shape} where {shape} was due")
        tumour = answer[..., _TUMOUR_CLASS].astype(np.float32)
        if not np.all(np.isfinite(tumour)):
            raise _invalid("a value that is not a number")
        slack = _PROBABILITY_SLACK[self.policy]
        if tumour.min() < -slack or tumour.max() > 1 + slack:
            raise _invalid("a value outside 0 to 1")
        return np.clip(tumour, 0.0, 1.0)

    def _build_first(self, build: Callable[[str], Any]) -> None:
        """Build the network; on the CPU where a GPU has no room for its weights."""
        self._rebuild = build
        try:
            self.model = build(self.policy)
        except Exception as error:  # each backend has its own
            memory = backend.is_out_of_memory(error)
            if self._device == "gpu" and (memory or backend.is_card_unusable(error)):
                self._move_to_cpu(build, error)
                self._segments = _SEGMENTS["cpu"]
            elif memory:
                raise _no_memory() from error
            else:
                raise

    def _despite_memory(self, attempt: Callable[..., Answer], *given: Any) -> Answer:
        """Try, with smaller pieces after each lack of memory, at last on the CPU."""
        while True:
            try:
                with interrupts_deferred():
                    return attempt(*given)
            except Exception as error:  # each backend has its own
                if self._device == "gpu" and self._rebuild is not None and backend.is_card_unusable(error):
                    self._move_to_cpu(self._rebuild, error)
                elif backend.is_out_of_memory(error):
                    self._shrink(error)
                else:
                    raise

    def _shrink(self, error: Exception) -> None:
        if self.batch_size > 1:
            self._shrunk *= 2
            self._strips.clear()
        elif self._device == "gpu" and self._rebuild is not None:
            self._move_to_cpu(self._rebuild, error)
        else:
            raise _no_memory() from error

    def _move_to_cpu(self, rebuild: Callable[[str], Any], error: Exception) -> None:
        import keras

        self.warnings.append(_GAVE_WAY_FOR_MEMORY if backend.is_out_of_memory(error) else _GAVE_WAY)
        self._gave_way = True
        self._device, self.policy, self._shrunk = "cpu", "float32", 1
        self._strips.clear()
        self._unpadded.clear()
        self.model = None
        gc.collect()  # keras' networks hold each other: what they keep is the memory that is missing
        self._scope = lambda: keras.device("cpu:0")
        with self._scope():
            self.model = rebuild(self.policy)


def _no_memory() -> OutOfMemoryError:
    return OutOfMemoryError(
        "The memory does not suffice to run the network on a single patch.",
        cure="Close other programs, give the service more memory, or use another machine.",
    )


def _invalid(what: str) -> PredictionInvalidError:
    return PredictionInvalidError(
        f"The network answered {what}.", cure="The weights are not usable: train or install the model again."
    )
