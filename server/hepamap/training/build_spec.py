"""What a data set is to hold, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hepamap.errors import ParameterError
from hepamap.networks.registry import PATCH_STEP_M
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import SPLITS, read_cohort
from hepamap.training.dataset import MASK_FOLDER
from hepamap.training.field_sampling import fields_wanted
from hepamap.training.fields import FIELD_FOLDER, LABELS_PER_SIDE, field_side_m
from hepamap.training.patches import NON_TUMOUR, TUMOUR

CLASS_NAMES = {NON_TUMOUR: "non_tumour", TUMOUR: "tumour"}
DEFAULT_PER_CLASS = {"train": 20_000, "val": 2_000, "test": 2_000}
"""Patches of each class by split, where nobody says a number."""
DRAW_FOLDER = "draws"
"""Where a build keeps what it has drawn of each slide."""

_MPP, _PATCH_M = (0.1, 20.0), (PATCH_STEP_M, 1024)  # what recipes take
_ROW_BYTES = 512  # of a patch or field in tables and notes, at most


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What to draw; a number out of range is a ParameterError."""

    mpp: float
    """Resolution of the patches, µm/px: 1.84 (5X) or 0.92 (10X)."""
    patch_m: int
    """Side of a patch, px: 64 (5X) or 128 (10X)."""
    per_class: dict[str, int]
    """Patches to draw of each class, by split; a split that is absent is not built."""
    fields: int = 0
    """Fields to draw of each class in training, an eighth of it in validation; 0 makes a data set without fields."""
    masks: bool = False
    """Keep the mask of each patch too, for networks that answer for every pixel."""
    seed: int = 0
    classes: ClassMap = DEFAULT_CLASSES

    def __post_init__(self) -> None:
        (finest, coarsest), (smallest, largest) = _MPP, _PATCH_M
        _require(finest <= self.mpp <= coarsest, f"{self.mpp:g} µm is no pixel size of patches", "Use 1.84 (5X) or 0.92 (10X)")
        _require(
            smallest <= self.patch_m <= largest and self.patch_m % PATCH_STEP_M == 0,
            f"No network takes patches of {self.patch_m} px",
            f"Use a multiple of {PATCH_STEP_M} up to {largest}, such as 64 or 128",
        )
        _require(bool(self.per_class), "A data set without any split is asked for", "Ask for patches of one split at least")
        for split, count in self.per_class.items():
            _require(split in SPLITS, f"There is no split “{split}”", f"Use {', '.join(SPLITS)}")
            _require(count >= 1, f"{count} patches of “{split}” are asked for", "Ask for one at least, or leave the split out")
        _require(self.seed >= 0, f"The seed {self.seed} is none", "Use 0 or more")
        most = self.per_class.get("train", self.fields)
        _require(
            0 <= self.fields <= most,
            f"{self.fields} fields of each class are asked for, and {most} training patches, which fields lie around",
            "Ask for as many patches as fields at least",
        )

    @property
    def fields_per_class(self) -> dict[str, int]:
        """Fields to draw of each class, by split: each lies around a patch of its own."""
        wanted = fields_wanted(self.fields)
        return {split: min(count, self.per_class[split]) for split, count in wanted.items() if split in self.per_class}

    def disk_bytes(self, drawn: int, reach: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """What a build takes on the disk, at most.

        Args:
            drawn: patches of all slides together, before classes are made equal.
            reach: patches of each class that can be found, by split.

        Returns:
            What is kept of each slide while the data set is made, by folder; the data set itself.
        """
        pixels, classes = self.patch_m**2, len(CLASS_NAMES)
        patch, field = 3 * pixels + _ROW_BYTES, 3 * field_side_m(self.patch_m) ** 2 + LABELS_PER_SIDE**2 + _ROW_BYTES
        kept = classes * sum(reach.values())
        fields = classes * sum(min(count, reach[split]) for split, count in self.fields_per_class.items()) * field
        masks = kept * pixels if self.masks else 0
        return {DRAW_FOLDER: drawn * patch, FIELD_FOLDER: fields, MASK_FOLDER: masks}, kept * patch + fields + masks


def numbers_by_split(table: Path, given: Mapping[str, int | None]) -> tuple[dict[str, int], list[str]]:
    """How many patches to ask of which split, where some numbers may not have been said.

    Args:
        table: the cohort.
        given: by split; 0 leaves it out, None takes the default if the table has the split.

    Returns:
        What `DatasetSpec.per_class` takes; sentences about splits that were left out for want of slides.
    """
    present = {slide.split for slide in read_cohort(table)}
    missing = [split for split, count in given.items() if count is None and split not in present]
    numbers = {split: DEFAULT_PER_CLASS[split] if count is None else count for split, count in given.items()}
    remarks = [f"{split}: {table.name} has no slide of this split; it is left out." for split in missing]
    return {split: count for split, count in numbers.items() if count != 0 and split not in missing}, remarks


def _require(holds: bool, problem: str, cure: str) -> None:
    if not holds:
        raise ParameterError(f"{problem}.", cure=f"{cure}.")
