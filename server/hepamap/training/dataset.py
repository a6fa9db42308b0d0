"""Data sets of labelled patches on disk.

A data set is a folder: `manifest.json` (how it was made, and from which slides), `patches.csv` (where each patch comes
from) and `patches/<slide>.npy` (uint8 (n, P, P, 3), one file a slide). NumPy's own format, because it can be mapped into
memory: training draws patches at random from more than fits there. With masks there is `masks/<slide>.npy` too (int8 (n, P, P)).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.spelling import name_key
from hepamap.training.cohort import SPLITS, require_one_split
from hepamap.training.errors import DatasetInvalidError, GroupInTwoSplitsError

MANIFEST_NAME = "manifest.json"
TABLE_NAME = "patches.csv"
SHARD_FOLDER = "patches"
MASK_FOLDER = "masks"
SCHEMA_VERSION = 1
COLUMNS = (
    *("split", "shard", "row", "label", "slide", "group"),
    *("x_l0", "y_l0", "side_x_l0", "side_y_l0", "tumour_share", "focus"),
)
"""Columns of patches.csv: a patch is `row` of `shard`; label 1 is tumour; x, y, sides in level-0 px of `slide`."""


@dataclass(frozen=True, slots=True)
class PatchSet:
    """The patches of one split, read when asked for."""

    shards: tuple[NDArray[np.uint8], ...]
    """Memory-mapped, each (n, P, P, 3)."""
    shard_of: NDArray[np.intp]
    """(N,) shard of each patch."""
    row_of: NDArray[np.intp]
    """(N,) row in its shard."""
    labels: NDArray[np.int8]
    """(N,) 1 where tumour."""
    slides: NDArray[np.str_]
    """(N,) fingerprint of each patch's slide: slides of different folders may have one name, and data sets a slide in common."""
    groups: NDArray[np.str_]
    """(N,) tumour or patient."""
    masks: tuple[NDArray[np.int8], ...] = ()
    """Memory-mapped, each (n, P, P), one for each shard: 1 tumour, 0 non-tumour, -1 not annotated;
    empty where a data set has none."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.intp] | Sequence[int]) -> NDArray[np.uint8]:
        """Patches by number, (n, P, P, 3)."""
        return np.stack([self.shards[self.shard_of[i]][self.row_of[i]] for i in indices])

    def take_masks(self, indices: NDArray[np.intp] | Sequence[int]) -> NDArray[np.int8]:
        """Masks of patches by number, (n, P, P)."""
        return np.stack([self.masks[self.shard_of[i]][self.row_of[i]] for i in indices])

    def only(self, indices: NDArray[np.intp]) -> PatchSet:
        """Some of the patches, in this order."""
        return replace(
            self,
            shard_of=self.shard_of[indices],
            row_of=self.row_of[indices],
            labels=self.labels[indices],
            slides=self.slides[indices],
            groups=self.groups[indices],
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set on disk, its tables read."""

    folder: Path
    manifest: dict[str, Any]
    rows: tuple[dict[str, str], ...]

    @property
    def mpp(self) -> float:
        """Resolution of its patches, µm/px."""
        return float(self.manifest["mpp"])

    @property
    def patch_m(self) -> int:
        """Side of its patches, px."""
        return int(self.manifest["patch"])


def shard_name(number: int, slide: str) -> str:
    """Name of a slide's files: slides of different folders may have one name, their numbers differ.

    Args:
        number: of the slide, among those of the build and of `slides` in the manifest.
        slide: the name of its file.
    """
    return f"{number:04d}-{Path(slide).stem}.npy"


def open_dataset(folder: Path) -> Dataset:
    """Read a data set's tables.

    Raises:
        DatasetInvalidError: it is none, or incomplete.
    """
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        with (folder / TABLE_NAME).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = tuple(reader)
    except (OSError, ValueError) as error:
        raise DatasetInvalidError(
            f"The folder {folder.name} is no complete data set ({error}).",
            cure="Make it with `hepamap dataset build`.",
        ) from error
    known = isinstance(manifest, dict) and manifest.get("schema_version") == SCHEMA_VERSION
    if not known or tuple(reader.fieldnames or ()) != COLUMNS:
        raise DatasetInvalidError(
            f"The data set {folder.name} was made by another version of hepamap.",
            cure="Make it again with `hepamap dataset build`.",
        )
    return Dataset(folder, manifest, rows)


def combine(datasets: Sequence[Dataset], mpp: float, patch_m: int) -> dict[str, PatchSet]:
    """The splits of several data sets together, for a network of one resolution and patch side.

    Raises:
        DatasetInvalidError: a data set has another resolution or patch side, is given twice, or its shards are incomplete.
        GroupInTwoSplitsError, SlideInTwoSplitsError: a group or slide is in one split here and in another there.
    """
    for dataset in datasets:
        if abs(dataset.mpp - mpp) > 1e-6 or dataset.patch_m != patch_m:
            raise DatasetInvalidError(
                f"The data set {dataset.folder.name} has patches of {dataset.patch_m} px at {dataset.mpp:g} µm, but the recipe "
                f"needs {patch_m} px at {mpp:g} µm.",
                cure="Build a data set with the recipe's mpp and patch.",
            )
    folders = [dataset.folder.resolve() for dataset in datasets]
    if len(set(folders)) < len(folders):
        raise DatasetInvalidError("A data set is given twice: its patches would count double.", cure="Give each one once.")
    _check_groups(datasets)
    slides = [slide for dataset in datasets for slide in dataset.manifest["slides"]]
    require_one_split((slide["fingerprint"], slide["split"], slide["slide"]) for slide in slides)
    return {split: _patch_set(datasets, split) for split in SPLITS}


def _check_groups(datasets: Sequence[Dataset]) -> None:
    split_of: dict[str, str] = {}
    for row in (row for dataset in datasets for row in dataset.rows):
        known = split_of.setdefault(name_key(row["group"]), row["split"])
        if known != row["split"]:
            raise GroupInTwoSplitsError(
                f"The group “{row['group']}” is in {known} of one data set and in {row['split']} of another.",
                cure="Keep each tumour or patient in the same split of every data set.",
            )


def _patch_set(datasets: Sequence[Dataset], split: str) -> PatchSet:
    shards: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.int8]] = []
    have_masks = all(dataset.manifest.get("masks") for dataset in datasets)
    number_of: dict[tuple[Path, str], int] = {}
    places: list[tuple[int, int, int, str, str]] = []
    spelled: dict[str, str] = {}
    for dataset in datasets:
        fingerprint_of = {
            shard_name(number, slide["slide"]): slide["fingerprint"] for number, slide in enumerate(dataset.manifest["slides"])
        }
        for row in (row for row in dataset.rows if row["split"] == split):
            key = (dataset.folder, row["shard"])
            if row["shard"] not in fingerprint_of:
                raise _incomplete(dataset, row["shard"])
            if key not in number_of:
                number_of[key] = len(shards)
                shards.append(_map_shard(dataset, row["shard"]))
                if have_masks:
                    masks.append(_map_masks(dataset, row["shard"], len(shards[-1])))
            group = spelled.setdefault(name_key(row["group"]), row["group"])
            place = (number_of[key], int(row["row"]), int(row["label"]), fingerprint_of[row["shard"]], group)
            if place[1] >= len(shards[place[0]]):
                raise _incomplete(dataset, row["shard"])
            places.append(place)
    shard_of, row_of, labels, slides, groups = zip(*places, strict=True) if places else ((), (), (), (), ())
    return PatchSet(
        tuple(shards),
        np.array(shard_of, np.intp),
        np.array(row_of, np.intp),
        np.array(labels, np.int8),
        np.array(slides, np.str_),
        np.array(groups, np.str_),
        tuple(masks),
    )


def _map_shard(dataset: Dataset, name: str) -> NDArray[np.uint8]:
    try:
        shard = np.load(dataset.folder / SHARD_FOLDER / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _incomplete(dataset, name) from error
    if shard.dtype != np.uint8 or shard.shape[1:] != (dataset.patch_m, dataset.patch_m, 3):
        raise _incomplete(dataset, name)
    return np.asarray(shard)


def _map_masks(dataset: Dataset, name: str, count: int) -> NDArray[np.int8]:
    try:
        masks = np.load(dataset.folder / MASK_FOLDER / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _incomplete(dataset, name, MASK_FOLDER) from error
    if masks.dtype != np.int8 or masks.shape != (count, dataset.patch_m, dataset.patch_m):
        raise _incomplete(dataset, name, MASK_FOLDER)
    return np.asarray(masks)


def _incomplete(dataset: Dataset, shard: str, folder: str = SHARD_FOLDER) -> DatasetInvalidError:
    return DatasetInvalidError(
        f"The file {folder}/{shard} of the data set {dataset.folder.name} is missing, cut short or of another size.",
        cure="Copy the data set again, or make it again with `hepamap dataset build`.",
    )
