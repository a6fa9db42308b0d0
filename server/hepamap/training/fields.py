"""Fields: patches with real surroundings and a label for every patch in them, to train networks for dense mode.

In a data set they stand in `fields.csv` (where each comes from), `fields/<slide>.npy` (uint8 (n, F, F, 3)) and
`fields/<slide>.labels.npy` (int8 (n, S, S)).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap.training.dataset import Dataset
from hepamap.training.errors import DatasetInvalidError

MARGIN_M = 64
"""Real surroundings on each side of a field's middle patch, model px."""
UNIT_M = 16
"""Distance of the labelled patches in a field, model px: that of the answers of a dense network."""
FIELD_TABLE, FIELD_FOLDER = "fields.csv", "fields"
FIELD_COLUMNS = ("split", "shard", "row", "label", "slide", "group", "x_l0", "y_l0", "side_x_l0", "side_y_l0")
"""Columns of fields.csv: as in patches.csv; `label` is that of the middle patch, the place that of the whole field."""

FIELD_SPLITS = ("train", "val")
"""Tests are done on whole slides and on patches."""


def field_side_m(patch_m: int) -> int:
    """Side F of a field, model px."""
    return patch_m + 2 * MARGIN_M


LABELS_PER_SIDE = 2 * MARGIN_M // UNIT_M + 1
"""Side S of a label map: patches at a distance of 16 px that fit into a field, whatever the patch side."""


@dataclass(frozen=True, slots=True)
class FieldSet:
    """The fields of one split, read when asked for."""

    shards: tuple[NDArray[np.uint8], ...]
    """Memory-mapped, each (n, F, F, 3)."""
    label_shards: tuple[NDArray[np.int8], ...]
    """Each (n, S, S): 1 tumour, 0 non-tumour, -1 no label."""
    places: NDArray[np.intp]
    """(N, 2) shard and row of each field."""

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: NDArray[np.intp] | Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Fields (n, F, F, 3) and their labels (n, S, S), by number."""
        chosen = self.places[np.asarray(indices, np.intp)]
        return (
            np.stack([self.shards[shard][row] for shard, row in chosen]),
            np.stack([self.label_shards[shard][row] for shard, row in chosen]),
        )


def labels_path(shard: Path) -> Path:
    """Where the label maps of a shard of fields stand."""
    return shard.with_suffix(".labels.npy")


def combine_fields(datasets: Sequence[Dataset]) -> dict[str, FieldSet]:
    """The fields of several data sets together, by split; empty where no data set has any.

    Raises:
        DatasetInvalidError: the shards of a data set are incomplete.
    """
    return {split: _field_set(datasets, split) for split in FIELD_SPLITS}


def _field_set(datasets: Sequence[Dataset], split: str) -> FieldSet:
    shards: list[tuple[NDArray[np.uint8], NDArray[np.int8]]] = []
    number_of: dict[tuple[Path, str], int] = {}
    places: list[tuple[int, int]] = []
    for dataset in datasets:
        for row in _rows(dataset, split):
            key = (dataset.folder, row["shard"])
            if key not in number_of:
                number_of[key] = len(shards)
                shards.append(_map(dataset, row["shard"]))
            place = (number_of[key], int(row["row"]))
            if place[1] >= len(shards[place[0]][0]):
                raise _incomplete(dataset, row["shard"])
            places.append(place)
    return FieldSet(
        tuple(pixels for pixels, _ in shards),
        tuple(labels for _, labels in shards),
        np.array(places, np.intp).reshape(-1, 2),
    )


def _rows(dataset: Dataset, split: str) -> list[dict[str, str]]:
    if "fields" not in dataset.manifest:
        return []
    try:
        with (dataset.folder / FIELD_TABLE).open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if row["split"] == split]
    except (OSError, ValueError, KeyError) as error:
        raise _incomplete(dataset, "") from error


def _map(dataset: Dataset, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    path, side = dataset.folder / FIELD_FOLDER / name, field_side_m(dataset.patch_m)
    try:
        pixels: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        labels: NDArray[Any] = np.load(labels_path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _incomplete(dataset, name) from error
    is_whole = pixels.dtype == np.uint8 and pixels.shape[1:] == (side, side, 3)
    if not is_whole or labels.dtype != np.int8 or labels.shape != (len(pixels), LABELS_PER_SIDE, LABELS_PER_SIDE):
        raise _incomplete(dataset, name)
    return np.asarray(pixels), labels


def _incomplete(dataset: Dataset, shard: str) -> DatasetInvalidError:
    file = f"{FIELD_FOLDER}/{shard}" if shard else FIELD_TABLE
    return DatasetInvalidError(
        f"The file {file} of the data set {dataset.folder.name} is missing, cut short or of another size.",
        cure="Copy the data set again, or make it again with `hepamap dataset build`.",
    )
