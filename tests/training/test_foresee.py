"""What a build refuses before it reads a pixel."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from hepamap.slide import Slide
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.build_spec import DEFAULT_PER_CLASS, numbers_by_split
from hepamap.training.class_map import DEFAULT_CLASSES
from hepamap.training.errors import DatasetEmptyError, PatchesTooFewError

from .conftest import SIDE, box, feature, toy_pixels, write_slide

TUMOUR, LIVER = box(0, 0, 320, SIDE), box(320, 0, 640, SIDE)


@pytest.fixture
def no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("a pixel was read")

    monkeypatch.setattr(Slide, "read_region", read)


def cohort(folder: Path, *slides: tuple[str, dict[str, list[list[float]]]], unannotated: str = "ignore") -> Path:
    """A table of toy slides: of each its split, and what was drawn by class."""
    lines = ["slide,annotations,group,split,unannotated"]
    for number, (split, drawn) in enumerate(slides):
        write_slide(folder / f"s{number}.tif", toy_pixels(number))
        features = [feature([ring], classification=name) for name, ring in drawn.items()]
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (folder / f"s{number}.geojson").write_text(text, encoding="utf-8")
        lines.append(f"s{number}.tif,s{number}.geojson,p{number},{split},{unannotated}")
    (folder / "c.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "c.csv"


BOTH = {"Tumor": TUMOUR, "Normal": LIVER}
SPEC = DatasetSpec(1.84, 64, {"train": 20, "val": 6})


@pytest.mark.usefixtures("no_pixels")
@pytest.mark.parametrize(
    ("drawn", "said", "cure"),
    [
        ({"Tumor": TUMOUR, "Stroma": LIVER}, r"“val” has no non-tumour: .* “Stroma” \(not known\)", "--non-tumour-class"),
        ({"Tumor": TUMOUR}, r"“val” has no non-tumour: its annotations are of “Tumor” \(tumour\)", "“unannotated”"),
        ({"Normal": LIVER, "Ignore*": TUMOUR}, r"“val” has no tumour: .* “Normal” \(non-tumour\)", "--tumour-class"),
        ({}, "“val” has no non-tumour: its annotations are of nothing that is an area", "“unannotated”"),
        ({"Tumor": box(9, 9, 300, 300), "Normal": box(0, 0, 640, SIDE)}, r"no tumour of its own: 0\.287 mm² are drawn as", "Cut"),
        ({"Tumor": box(0, 0, 50, 50), "Normal": LIVER}, "“val” can have no patch of tumour: 1 of its slides", "Annotate more"),
    ],
)
def test_a_class_that_a_split_does_not_have(tmp_path: Path, drawn: dict[str, Any], said: str, cure: str) -> None:
    table = cohort(tmp_path, ("train", BOTH), ("val", drawn))
    with pytest.raises(DatasetEmptyError, match=said) as caught:
        build_dataset(table, tmp_path / "set", SPEC)
    assert cure in caught.value.cure
    assert not [path.name for path in tmp_path.iterdir() if "set" in path.name]


@pytest.mark.usefixtures("no_pixels")
def test_names_that_were_given_are_understood(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", {"Tumor": TUMOUR, "Stroma": LIVER}))
    classes = DEFAULT_CLASSES.with_names(tumour=["Stroma"], non_tumour=["Other"])
    with pytest.raises(DatasetEmptyError, match=r"“Stroma” \(tumour\)"):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 20}, classes=classes))


def test_only_the_tumour_was_drawn(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", {"Tumor": TUMOUR}), unannotated="non_tumour")
    assert len(build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4})).rows) == 8


@pytest.mark.usefixtures("no_pixels")
def test_a_split_without_slides(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", BOTH), ("val", BOTH))
    with pytest.raises(DatasetEmptyError, match=r"“test” are asked for, but c\.csv has no slide") as caught:
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4, "test": 1}))
    assert "--test 0" in caught.value.cure


def test_numbers_that_nobody_said_follow_the_table(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", BOTH), ("val", BOTH))
    said = {"train": None, "val": None, "test": None}
    assert numbers_by_split(table, said) == (
        {"train": DEFAULT_PER_CLASS["train"], "val": DEFAULT_PER_CLASS["val"]},
        ["test: c.csv has no slide of this split; it is left out."],
    )
    assert numbers_by_split(table, {**said, "val": 0, "test": 0}) == ({"train": DEFAULT_PER_CLASS["train"]}, [])
    # What was said is kept, also where the build will refuse it.
    assert numbers_by_split(table, {"train": 5, "val": -1, "test": 7}) == ({"train": 5, "val": -1, "test": 7}, [])


# 64 px patches; 320 × 768 px have ⌊4 × (320 × 768 + 2176) / 3072⌋, 100 × 768 px ⌊4 × (100 × 768 + 1736) / 3072⌋.
WIDE, NARROW = 322, 102


@pytest.mark.usefixtures("no_pixels")
def test_more_than_the_annotations_hold(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", BOTH), ("val", {"Tumor": TUMOUR, "Normal": box(320, 0, 420, SIDE)}))
    for per_class, said in (
        ({"train": WIDE + 1}, f": {WIDE + 1} of each class in train, where non-tumour has {WIDE} at most"),
        ({"train": 4, "val": NARROW + 1}, f"{NARROW + 1} of each class in val, where non-tumour has {NARROW} at most"),
    ):
        with pytest.raises(PatchesTooFewError, match=said) as caught:
            build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, per_class))
        assert "fewer will be found" in caught.value.message
        assert "--fewer" in caught.value.cure
        assert "--fields" not in caught.value.cure
    with pytest.raises(PatchesTooFewError) as caught:
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": WIDE + 1}, fields=WIDE))
    assert "no more --fields than --train" in caught.value.cure
    with pytest.raises(AssertionError, match="a pixel was read"):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": WIDE, "val": NARROW}))


@pytest.mark.usefixtures("no_pixels")
def test_two_slides_with_less_than_a_patch_each_have_none(tmp_path: Path) -> None:
    """Together they have more than one needs, which is no help."""
    small = {"Tumor": box(0, 0, 45, 45), "Normal": LIVER}
    with pytest.raises(DatasetEmptyError, match="2 of its slides have tumour, but on none of them enough for one patch"):
        build_dataset(cohort(tmp_path, ("train", small), ("train", small)), tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4}))


def test_fewer_needs_no_more_room_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cohort(tmp_path, ("train", {"Tumor": box(0, 0, 64, 96), "Normal": LIVER}))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**7, 10**7))  # a million patches are 12 GB
    spec = DatasetSpec(1.84, 64, {"train": 10**6}, fields=5)
    assert build_dataset(table, tmp_path / "set", spec, fewer=True).manifest["asked_per_class"] == {"train": 10**6}


def test_fewer_will_do(tmp_path: Path) -> None:
    table = cohort(tmp_path, ("train", {"Tumor": box(0, 0, 64, 96), "Normal": LIVER}))
    spec = DatasetSpec(1.84, 64, {"train": 20}, fields=20)
    most = 4 * (64 * 96 + 320) // 3072
    dataset = build_dataset(table, tmp_path / "set", spec, fewer=True)
    assert dataset.manifest["asked_per_class"] == {"train": 20}
    assert dataset.manifest["patches_per_class"] == {"train": most}
    assert dataset.manifest["fields"]["fields_per_class"] == {"train": most}
