"""The model in memory, for all who look at slides with it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hepamap.errors import PredictionInvalidError
from hepamap.model_pack import ModelPack
from hepamap.predictor import Predictor

Done = TypeVar("Done")


class Detector:
    """The model in memory: the one that was asked for last; another one takes its place."""

    def __init__(self, models_dir: Path, precision: str = "auto") -> None:
        self.models_dir = models_dir
        self.precision = precision
        self._loaded: tuple[str, Predictor] | None = None

    def predictor(self, pack: ModelPack) -> Predictor:
        """The loaded network of a pack; loaded anew where what it computes changed, or the last run had to leave the GPU."""
        # Not by the weights alone: a network with a GAP head has the same ones at any patch side.
        key = pack.computes
        if self._loaded is None or self._loaded[0] != key or self._loaded[1].gave_way:
            return self._load(pack, self.precision)
        return self._loaded[1]

    def run(self, pack: ModelPack, work: Callable[[Predictor], Done]) -> tuple[Done, Predictor]:
        """Do work with a pack's network; where its numbers do not fit into 16 bits, from the beginning in float32.

        Args:
            pack: the model.
            work: what to do; called again with another network if the first one's numbers overflowed.

        Returns:
            What the work returned, and the network that did it.

        Raises:
            PredictionInvalidError: the network answers with what is no number in float32, too.
        """
        predictor = self.predictor(pack)
        try:
            return work(predictor), predictor
        except PredictionInvalidError:
            if predictor.policy == "float32":
                raise
            # From the beginning: what overflowed may have been in a map's pieces and a lane's memory for long.
            predictor = self.exact_predictor(pack)
            return work(predictor), predictor

    def exact_predictor(self, pack: ModelPack) -> Predictor:
        """The network in float32, for one whose numbers were found too large for 16 bits; it stays in memory."""
        predictor = self._load(pack, "float32")
        predictor.warnings.append(
            ("precision_not_used", "The numbers in this model do not fit into 16 bits: it ran in float32, which is exact.")
        )
        return predictor

    def _load(self, pack: ModelPack, precision: str) -> Predictor:
        self._loaded = None  # let go of first: memory may not suffice for two
        gc.collect()  # keras' networks hold each other
        predictor = Predictor.load(pack, precision)
        self._loaded = (pack.computes, predictor)
        return predictor
