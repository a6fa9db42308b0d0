"""Looking at a data set: numbers for a person, and a sheet of its patches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hepamap.errors import OutputNotWritableError
from hepamap.training.cohort import SPLITS
from hepamap.training.dataset import Dataset, PatchSet, combine, open_dataset, shard_name
from hepamap.training.fields import FieldSet, combine_fields
from hepamap.training.patches import NON_TUMOUR, TUMOUR
from hepamap.training.remarks import annotation_remarks

_GAP_PX = 16  # between the two halves of the sheet


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One line of a data set's overview."""

    split: str
    slides: int
    groups: int
    tumour: int
    non_tumour: int
    fields: int
    """Fields of both classes."""


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """What one slide gave."""

    slide: str
    split: str
    tumour: int
    non_tumour: int


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What a data set holds."""

    mpp: float
    patch_m: int
    splits: tuple[SplitSummary, ...]
    slides: tuple[SlideSummary, ...]
    warnings: tuple[str, ...]
    """Sentences about what is less than was asked for, and about what was left out, slide by slide."""


def show_dataset(folder: Path, sheet: Path | None = None) -> DatasetSummary:
    """Sum up a data set.

    Args:
        folder: made by `build_dataset`.
        sheet: picture to write: random patches, non-tumour left, tumour right.

    Raises:
        DatasetInvalidError: it is none, or incomplete.
        OutputNotWritableError: the sheet cannot be written.
    """
    dataset = open_dataset(folder)
    splits = combine([dataset], dataset.mpp, dataset.patch_m)
    if sheet is not None:
        _write_picture(sheet, contact_sheet(dataset))
    fields = combine_fields([dataset])
    slides = dataset.manifest["slides"]
    drawn = Counter((row["shard"], int(row["label"])) for row in dataset.rows)
    return DatasetSummary(
        dataset.mpp,
        dataset.patch_m,
        tuple(_split(name, splits[name], fields.get(name)) for name in SPLITS if len(splits[name])),
        tuple(_slide(number, slide, drawn) for number, slide in enumerate(slides)),
        (*shortfalls(dataset), *(sentence for slide in slides for sentence in _warnings(slide))),
    )


def _split(name: str, patches: PatchSet, fields: FieldSet | None) -> SplitSummary:
    tumour, non_tumour = (int((patches.labels == label).sum()) for label in (TUMOUR, NON_TUMOUR))
    slides, groups = (len(set(names.tolist())) for names in (patches.slides, patches.groups))
    return SplitSummary(name, slides, groups, tumour, non_tumour, 0 if fields is None else len(fields))


def _slide(number: int, slide: dict[str, Any], drawn: Counter[tuple[str, int]]) -> SlideSummary:
    shard = shard_name(number, slide["slide"])
    return SlideSummary(slide["slide"], slide["split"], drawn[shard, TUMOUR], drawn[shard, NON_TUMOUR])


def shortfalls(dataset: Dataset) -> list[str]:
    """Sentences about what is less than was asked for. Classes are kept equal, so the scarcer one decides.

    What was drawn of each tells which that is; equal numbers do not, and are left out: with `--fewer`, no more is asked of the
    abundant class than annotations of the scarce one can hold.
    """
    manifest = dataset.manifest
    fields, drawn = manifest.get("fields", {}), manifest.get("drawn", {})
    pairs = (
        ("patches", manifest["asked_per_class"], manifest["patches_per_class"]),
        ("fields", fields.get("asked_per_class", {}), fields.get("fields_per_class", {})),
    )

    def of_each(split: str, kind: str) -> str:
        counts = drawn.get(split) if kind == "patches" else None
        if not counts or counts["tumour"] == counts["non_tumour"]:
            return ""
        return f" ({counts['tumour']} of tumour, {counts['non_tumour']} of non-tumour)"

    return [
        f"{split}: {found.get(split, 0)} {kind} of each class were found{of_each(split, kind)}, {count} were asked for."
        for kind, asked, found in pairs
        for split, count in asked.items()
        if found.get(split, 0) < count
    ]


def contact_sheet(dataset: Dataset, side: int = 8) -> NDArray[np.uint8]:
    """Random patches, `side` × `side` of each class: non-tumour left, tumour right; RGB (H, W, 3).

    They are of the first split that has any: of training, where there is one.
    """
    splits = combine([dataset], dataset.mpp, dataset.patch_m)
    patches = next((splits[name] for name in SPLITS if len(splits[name])), splits["train"])
    rng = np.random.default_rng(0)
    halves = []
    for label in (NON_TUMOUR, TUMOUR):
        chosen = rng.permutation(np.flatnonzero(patches.labels == label))[: side * side]
        tiles = np.full((side * side, dataset.patch_m, dataset.patch_m, 3), 255, np.uint8)
        if len(chosen):
            tiles[: len(chosen)] = patches.take(chosen)
        rows = tiles.reshape(side, side, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
        halves.append(rows.reshape(side * dataset.patch_m, side * dataset.patch_m, 3))
    gap = np.full((halves[0].shape[0], _GAP_PX, 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def _write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    try:
        done = cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:  # it knows no picture of that name's ending
        done = False
    if not done:
        raise OutputNotWritableError(
            f"The picture {path.name} cannot be written.",
            cure="Name a .png file in a folder that may be written to.",
        )


def _warnings(slide: dict[str, Any]) -> list[str]:
    return annotation_remarks(
        slide["slide"],
        classes=slide["ignored_classes"],
        objects=slide["ignored_objects"],
        repaired=slide["repaired_polygons"],
        conflict_mm2=slide["conflict_mm2"],
    )
