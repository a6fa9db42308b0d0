"""What the ways to fill a map have in common: what they need of a network, and what a caller may want of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hepamap.errors import CancelledError
from hepamap.plausibility import StainTally
from hepamap.timing import StageClock


class PatchNetwork(Protocol):
    """What patch mode needs of a network."""

    @property
    def batch_size(self) -> int:
        """Patches that are best asked for at once."""

    def predict(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From RGB patches (N, P, P, 3) to tumour probabilities (N,)."""


class Lane(Protocol):
    """What dense mode needs of a lane; see `hepamap.predictor.LaneFeed`."""

    @property
    def rows_m(self) -> int:
        """Height that is computed at once, model px."""

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """From rows of pixels (R, W, 3) to rows of probabilities (rows, positions), as many as are ready."""

    def finish(self) -> NDArray[np.float32]:
        """The rest."""


class DenseNetwork(PatchNetwork, Protocol):
    """What dense mode needs besides."""

    @property
    def lane_positions(self) -> Sequence[int]:
        """Widths that a lane may have, in patches 16 px apart."""

    def open_lane(self, positions: int) -> Lane:
        """Begin a lane."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished part of a map, and the colours that were seen for it: a run that goes on judges the whole slide."""

    values: NDArray[np.float32]
    tissue_pixels: int
    """Of the sample that `StainTally` takes."""
    he_pixels: int


class Checkpoint(Protocol):
    """Keeps finished pieces of a map, so that a run that was killed goes on from there."""

    def load(self, unit: str) -> Piece | None:
        """A piece that an earlier run stored, or None."""

    def store(self, unit: str, piece: Piece) -> None:
        """Keep a finished piece."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: cells done of all that are looked at, and what is being done."""

    done: int
    total: int
    stage: str


def ignore_progress(_: Progress) -> None:
    """Tell nobody."""


def never_cancelled() -> bool:
    """Go on to the end."""
    return False


@dataclass(slots=True)
class Run:
    """One filling of one map: whom to tell, whom to ask, what to count."""

    progress: Callable[[Progress], None] = ignore_progress
    cancelled: Callable[[], bool] = never_cancelled
    checkpoint: Checkpoint | None = None
    clock: StageClock = field(default_factory=StageClock)
    stain: StainTally = field(default_factory=StainTally)
    total: int = 0
    done: float = 0.0
    """Cells; fractions of a piece count."""

    def begin(self, total: int) -> None:
        """Say how many cells there are, and stop where that is wanted: looking for tissue took its time.

        Raises:
            CancelledError: it is wanted.
        """
        self._stop_where_wanted()
        self.total, self.done = total, 0.0
        self.progress(Progress(0, total, "reading"))

    def advance(self, cells: float) -> None:
        """Count cells as done, and stop where that is wanted.

        Raises:
            CancelledError: it is.
        """
        self._stop_where_wanted()
        self.done = min(float(self.total), self.done + cells)
        self.progress(Progress(int(self.done + 1e-6), self.total, "classifying"))

    def _stop_where_wanted(self) -> None:
        if self.cancelled():
            raise CancelledError

    def stored(self, unit: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """The values of a piece from an earlier run, if there is one of this shape; its colours are counted."""
        found = None if self.checkpoint is None else self.checkpoint.load(unit)
        if found is None or found.values.shape != shape:
            return None
        self.stain.include(found.tissue_pixels, found.he_pixels)
        return found.values

    def store(self, unit: str, values: NDArray[np.float32], seen: StainTally) -> None:
        """Keep a finished piece for a later run, and count the colours that were seen for it."""
        self.stain.include(seen.tissue_pixels, seen.he_pixels)
        if self.checkpoint is not None:
            self.checkpoint.store(unit, Piece(values, seen.tissue_pixels, seen.he_pixels))
