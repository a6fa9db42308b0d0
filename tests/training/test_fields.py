from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hepamap.training.augmentation import augment_fields
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import Dataset, combine, open_dataset
from hepamap.training.errors import DatasetInvalidError
from hepamap.training.field_sampling import fields_wanted
from hepamap.training.fields import combine_fields
from hepamap.training.recipe import AugmentationSection
from hepamap.training.show import show_dataset

from .conftest import SIDE, toy_pixels

SPEC = DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 4}, fields=12, seed=3)


@pytest.fixture(scope="module")
def dataset(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(cohort, tmp_path_factory.mktemp("fields") / "set", SPEC)


def field_rows(dataset: Dataset) -> list[dict[str, str]]:
    with (dataset.folder / "fields.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def true_label(x: int, y: int, pixels: NDArray[np.uint8]) -> int:
    """By arithmetic: the toy slide's tumour is columns 0 to 320, its liver columns 320 to 640, the rest is glass."""
    down = max(0, min(y + 64, SIDE) - max(y, 0))
    tumour = max(0, min(x + 64, 320) - max(x, 0)) * down
    liver = max(0, min(x + 64, 640) - max(x, 320)) * down
    # `pixels` has 128 px of glass on each side of the slide.
    bright = (pixels[y + 128 : y + 192, x + 128 : x + 192].mean(axis=2) > 200).sum()
    if bright > 0.5 * 64**2:
        return -1
    return 1 if tumour > 0.75 * 64**2 else 0 if liver > 0.75 * 64**2 else -1


def test_pixels_and_label_maps_are_those_of_the_place(dataset: Dataset) -> None:
    padded = {f"s{i}.tif": np.pad(toy_pixels(i), ((128, 128), (128, 128), (0, 0)), constant_values=255) for i in range(4)}
    seen: set[int] = set()
    for row in field_rows(dataset):
        shard = dataset.folder / "fields" / row["shard"]
        pixels, labels = np.load(shard)[int(row["row"])], np.load(shard.with_suffix(".labels.npy"))[int(row["row"])]
        x, y = round(float(row["x_l0"])), round(float(row["y_l0"]))
        slide = padded[row["slide"]]
        np.testing.assert_array_equal(pixels, slide[y + 128 : y + 320, x + 128 : x + 320])
        expected = [[true_label(x + 16 * j, y + 16 * i, slide) for j in range(9)] for i in range(9)]
        assert labels.tolist() == expected
        assert labels[4, 4] == int(row["label"])
        seen |= set(labels.flatten().tolist())
    assert seen == {-1, 0, 1}


def test_fields_are_drawn_from_the_patches_and_balanced(dataset: Dataset) -> None:
    rows = field_rows(dataset)
    places = {(row["slide"], float(row["x_l0"]), float(row["y_l0"])) for row in dataset.rows}
    assert {(row["slide"], float(row["x_l0"]) + 64, float(row["y_l0"]) + 64) for row in rows} <= places
    # Of 12 training fields an eighth would be 1: at least 32 are wanted for validation, as far as there are patches.
    assert fields_wanted(12) == {"train": 12, "val": 32}
    assert SPEC.fields_per_class == {"train": 12, "val": 10}
    counts = {(split, label): 0 for split in ("train", "val") for label in "01"}
    for row in rows:
        counts[row["split"], row["label"]] += 1
    assert counts == {("train", "0"): 12, ("train", "1"): 12, ("val", "0"): 10, ("val", "1"): 10}
    assert dataset.manifest["fields"] == {
        **{"side": 192, "margin": 64, "label_distance": 16, "asked_per_class": {"train": 12, "val": 10}},
        "fields_per_class": {"train": 12, "val": 10},
    }
    sets = combine_fields([dataset])
    assert (len(sets["train"]), len(sets["val"])) == (24, 20)
    pixels, labels = sets["train"].take([3, 0])
    assert (pixels.shape, labels.shape) == ((2, 192, 192, 3), (2, 9, 9))
    assert pixels.dtype == np.uint8
    assert labels.dtype == np.int8


def test_asking_for_fields_changes_no_patch(cohort: Path, dataset: Dataset, tmp_path: Path) -> None:
    without = build_dataset(cohort, tmp_path / "set", DatasetSpec(1.84, 64, SPEC.per_class, seed=3))
    assert without.rows == dataset.rows
    assert not (without.folder / "fields").exists()
    assert "fields" not in without.manifest
    assert {split: len(fields) for split, fields in combine_fields([without]).items()} == {"train": 0, "val": 0}
    assert len(combine_fields([without, dataset])["train"]) == 24
    patches = combine([without], 1.84, 64)["train"]
    assert len(patches) == 80


def test_what_is_less_than_asked_for_is_said(dataset: Dataset, tmp_path: Path) -> None:
    summary = show_dataset(dataset.folder)
    assert [(split.split, split.fields) for split in summary.splits] == [("train", 24), ("val", 20), ("test", 0)]
    assert summary.warnings == ()
    copy = tmp_path / "copy"
    shutil.copytree(dataset.folder, copy)
    manifest = {**dataset.manifest, "patches_per_class": {"train": 40, "val": 9, "test": 4}}
    manifest["drawn"] = {**manifest["drawn"], "val": {"tumour": 9, "non_tumour": 10}}
    manifest["fields"] = {**manifest["fields"], "fields_per_class": {"train": 12, "val": 9}}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert show_dataset(copy).warnings == (
        "val: 9 patches of each class were found (9 of tumour, 10 of non-tumour), 10 were asked for.",
        "val: 9 fields of each class were found, 10 were asked for.",
    )
    manifest["drawn"]["val"] = {"tumour": 9, "non_tumour": 9}  # so many were asked of both: which is scarce, nobody knows
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert show_dataset(copy).warnings[0] == "val: 9 patches of each class were found, 10 were asked for."


def test_damaged_fields_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset.folder, copy)
    labels = next((copy / "fields").glob("*s2.labels.npy"))
    np.save(labels, np.load(labels)[:-1])
    with pytest.raises(DatasetInvalidError, match=r"fields/0002-s2\.npy .* cut short"):
        combine_fields([open_dataset(copy)])
    labels.unlink()
    with pytest.raises(DatasetInvalidError, match="missing"):
        combine_fields([open_dataset(copy)])
    (copy / "fields.csv").unlink()
    with pytest.raises(DatasetInvalidError, match=r"fields\.csv .* missing"):
        combine_fields([open_dataset(copy)])


def test_labels_turn_with_the_pixels() -> None:
    # Each 16 px block of a field carries its own number as grey; its "label" is the same number.
    labels = np.arange(81, dtype=np.int8).reshape(1, 9, 9)
    fields = labels.astype(np.uint8).repeat(16, axis=1).repeat(16, axis=2)[..., None].repeat(3, axis=3)
    options = AugmentationSection(stain=0.0, brightness=0.0)
    out, turned = augment_fields(fields.repeat(100, axis=0), labels.repeat(100, axis=0), options, np.random.default_rng(1))
    np.testing.assert_array_equal(np.rint(out[:, ::16, ::16, 0] * 255).astype(np.int8), turned)
    assert len({view.tobytes() for view in turned}) == 8


def test_the_manifest_stays_json(dataset: Dataset) -> None:
    assert json.loads((dataset.folder / "manifest.json").read_text(encoding="utf-8")) == dataset.manifest
