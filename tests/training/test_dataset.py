from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import box as rectangle

from hepamap.errors import OutputExistsError, OutputNotWritableError, ResolutionTooCoarseError, SlideNotFoundError
from hepamap.geometry import Region
from hepamap.slide import Slide
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.dataset import Dataset, combine, open_dataset
from hepamap.training.errors import DatasetInvalidError, GroupInTwoSplitsError, SlideInTwoSplitsError
from hepamap.training.sampling import Sampler, points_inside
from hepamap.training.show import show_dataset
from tests.conftest import write_tiff_slide

from .conftest import SIDE, box, feature, toy_pixels, tumour_and_liver, write_slide

SPEC = DatasetSpec(1.84, 64, {"train": 40, "val": 10, "test": 12}, seed=3)


@pytest.fixture(scope="module")
def dataset(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(cohort, tmp_path_factory.mktemp("data") / "set", SPEC)


def redness(patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Above 0 where a patch is mostly toy tumour."""
    return np.asarray(patches[..., 0].mean(axis=(1, 2)) - patches[..., 2].mean(axis=(1, 2)))


def test_patches_are_balanced_and_carry_the_label_of_their_tissue(dataset: Dataset) -> None:
    splits = combine([dataset], 1.84, 64)
    for split, count in SPEC.per_class.items():
        patches = splits[split]
        assert (patches.labels == 1).sum() == (patches.labels == 0).sum() == count
        assert ((redness(patches.take(range(len(patches)))) > 0) == (patches.labels == 1)).all()
    assert set(splits["train"].slides.tolist()) == {slide["fingerprint"] for slide in dataset.manifest["slides"][:2]}


def test_every_patch_is_the_pixels_at_its_place(dataset: Dataset) -> None:
    # A patch may reach beyond the slide, where everything is white.
    pixels = {f"s{i}.tif": np.pad(toy_pixels(i), ((64, 64), (64, 64), (0, 0)), constant_values=255) for i in range(4)}
    for row in dataset.rows:
        x, y = round(float(row["x_l0"])), round(float(row["y_l0"]))
        stored = np.load(dataset.folder / "patches" / row["shard"])[int(row["row"])]
        np.testing.assert_array_equal(stored, pixels[row["slide"]][y + 64 : y + 128, x + 64 : x + 128])
        # Tumour covers columns 0 to 320 of the slide's 768 rows.
        across, down = min(x + 64, 320) - max(x, 0), min(y + 64, SIDE) - max(y, 0)
        assert float(row["tumour_share"]) == pytest.approx(max(across, 0) * down / 64**2, abs=1e-4)


def test_positions_have_all_phases(dataset: Dataset) -> None:
    phases = {round(float(row["x_l0"])) % 16 for row in dataset.rows}
    assert len(phases) == 16


def test_labels_follow_the_rule_of_their_split(dataset: Dataset) -> None:
    for row in dataset.rows:
        share = float(row["tumour_share"])
        if row["split"] == "test":
            assert (share > 0.5) == (row["label"] == "1")
        else:
            assert share > 0.75 if row["label"] == "1" else share < 0.25


def test_same_seed_same_bytes_other_seed_other_patches(cohort: Path, dataset: Dataset, tmp_path: Path) -> None:
    again = build_dataset(cohort, tmp_path / "set", SPEC)
    for path in dataset.folder.rglob("*.*"):
        assert path.read_bytes() == (again.folder / path.relative_to(dataset.folder)).read_bytes()
    other = build_dataset(cohort, tmp_path / "other", DatasetSpec(1.84, 64, {"val": 10}, seed=4))
    assert [r["x_l0"] for r in other.rows] != [r["x_l0"] for r in dataset.rows if r["split"] == "val"]


def test_manifest_says_where_everything_comes_from(dataset: Dataset) -> None:
    manifest = dataset.manifest
    assert manifest["patches_per_class"] == SPEC.per_class
    assert [(s["slide"], s["group"], s["split"]) for s in manifest["slides"]] == [
        (f"s{i}.tif", f"patient{i}", split) for i, split in enumerate(("train", "train", "val", "test"))
    ]
    assert manifest["slides"][0]["tumour_mm2"] == pytest.approx(320 * SIDE * 1.84**2 / 1e6, abs=1e-3)
    assert "tumor" in manifest["classes"]["tumour"]


def test_ten_x_patches_of_a_finer_slide(tmp_path: Path) -> None:
    # At 0.46 µm a model pixel of 0.92 µm is the mean of 2 × 2; the toy tissue stays red and blue.
    write_slide(tmp_path / "a.tif", toy_pixels(0), mpp=0.46)
    (tmp_path / "a.geojson").write_text(json.dumps(tumour_and_liver()), encoding="utf-8")
    (tmp_path / "c.csv").write_text("slide,annotations,group,split\na.tif,a.geojson,p,train\n", encoding="utf-8")
    dataset = build_dataset(tmp_path / "c.csv", tmp_path / "set", DatasetSpec(0.92, 128, {"train": 2}))
    patches = combine([dataset], 0.92, 128)["train"]
    assert patches.take([0]).shape == (1, 128, 128, 3)
    assert ((redness(patches.take([0, 1, 2, 3])) > 0) == (patches.labels == 1)).all()
    assert float(dataset.rows[0]["side_x_l0"]) == pytest.approx(256)


def cohort_of_one(folder: Path, collection: dict[str, Any], unannotated: str = "ignore") -> Path:
    write_slide(folder / "a.tif", toy_pixels(0))
    (folder / "a.geojson").write_text(json.dumps(collection), encoding="utf-8")
    text = f"slide,annotations,group,split,unannotated\na.tif,a.geojson,p,train,{unannotated}\n"
    (folder / "c.csv").write_text(text, encoding="utf-8")
    return folder / "c.csv"


def test_unannotated_tissue_can_mean_non_tumour_but_glass_never_does(tmp_path: Path) -> None:
    tumour_only = {"type": "FeatureCollection", "features": tumour_and_liver()["features"][:1]}
    table = cohort_of_one(tmp_path, tumour_only, "non_tumour")
    dataset = build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 20}))
    liver = [float(row["x_l0"]) for row in dataset.rows if row["label"] == "0"]
    assert len(liver) == 20
    # Glass begins at column 640: no patch may have more than half of its 64 columns there.
    assert max(liver) <= 640 - 32


def test_out_of_focus_patches_are_dropped_and_counted(tmp_path: Path) -> None:
    table = cohort_of_one(tmp_path, tumour_and_liver())
    blurred = toy_pixels(0)
    blurred[:, 160:320] = cv2.GaussianBlur(blurred[:, 160:320], (0, 0), 8)
    write_slide(tmp_path / "a.tif", blurred)
    dataset = build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 20}))
    assert dataset.manifest["slides"][0]["dropped_out_of_focus"] > 0
    assert all(float(row["focus"]) >= 20 for row in dataset.rows)
    assert not [row for row in dataset.rows if 170 < float(row["x_l0"]) < 320 - 64 - 10]


def test_reads_are_bounded_where_hardly_anything_can_be_used(tmp_path: Path) -> None:
    with Slide.open(write_slide(tmp_path / "a.tif", toy_pixels(0))) as slide:
        # A strip of 20 px can never cover 75 % of a patch.
        found = Sampler(1.84, 64, 0).sample(slide, rectangle(0, 0, 20, 768), rectangle(0, 0, 0, 0), {1: 100, 0: 0})
    assert found.patches == []
    assert found.windows_read <= 4 * (1 + 100 // 16 + 1)


def test_non_tumour_is_drawn_over_all_of_its_area(tmp_path: Path) -> None:
    """A window is 512 px wide: of the liver, 6 % lie so near to the nodule in the middle that a window of tumour sees it."""
    side, nodule = 4096, rectangle(1984, 1984, 2112, 2112)
    pixels = np.random.default_rng(0).integers(40, 200, (side, side, 3), dtype=np.uint8)
    with Slide.open(write_slide(tmp_path / "a.tif", pixels)) as slide:
        liver = rectangle(0, 0, side, side).difference(nodule)
        found = Sampler(1.84, 64, 0).sample(slide, nodule, liver, {1: 4, 0: 320})
    assert (found.count(1), found.count(0)) == (4, 320)
    near = [
        abs(record.x_l0 + 32 - 2048) < 512 and abs(record.y_l0 + 32 - 2048) < 512 for record in found.records if record.label == 0
    ]
    assert np.mean(near) < 0.2
    quadrants = {(record.x_l0 > 2048, record.y_l0 > 2048) for record in found.records if record.label == 0}
    assert len(quadrants) == 4


@pytest.fixture(scope="module")
def biopsy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One core of 0.5 × 10 mm, upright, on 15 × 11 mm of glass, with small levels."""
    pixels = np.full((6144, 8192, 3), 245, np.uint8)
    pixels[256:5888, 2048:2304] = np.random.default_rng(0).integers(60, 200, (5632, 256, 3))
    return write_tiff_slide(tmp_path_factory.mktemp("biopsy") / "a.tif", pixels, 1.84, levels=6)


@pytest.mark.parametrize("bounds", [Region(0, 0, 8192, 6144), Region(1234, 100, 2345, 6000)])
def test_glass_takes_no_windows_from_tissue(biopsy: Path, bounds: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the tumour was drawn: of the rest, 98 % are glass."""
    monkeypatch.setattr(Slide, "bounds_l0", bounds)
    tumour = rectangle(2048, 1024, 2304, 2304)
    rest = rectangle(0, 0, 8192, 6144).difference(tumour)
    places = []
    with Slide.open(biopsy) as slide:
        for seed in range(4):
            found, again = (Sampler(1.84, 64, seed).sample(slide, tumour, rest, {1: 40, 0: 40}) for _ in range(2))
            assert (found.count(1), found.count(0)) == (40, 40)
            assert found.records == again.records
            places += [record.y_l0 for record in found.records if record.label == 0]
    # Over all of the core: 768 px of it above the tumour, 3584 below.
    along, _ = np.histogram(places, [256, 1024, 2304, 3200, 4096, 4992, 5888])
    assert along[1] < 16 < min(np.delete(along, 1))


def test_random_points_are_uniform_over_islands() -> None:
    islands = rectangle(0, 0, 10, 10).union(rectangle(1000, 0, 1030, 10))
    points = points_inside(islands, 4000, np.random.default_rng(0))
    assert (points[:, 0] > 500).mean() == pytest.approx(0.75, abs=0.03)
    sliver = rectangle(0, 0, 1e-9, 1).union(rectangle(0, 0, 1, 1e-9))
    assert points_inside(sliver, 5, np.random.default_rng(0)).shape == (5, 2)


def test_existing_folder_is_kept_unless_told(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"val": 4}))
    with pytest.raises(OutputExistsError, match="a data set in set already"):
        build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"val": 2}))
    build_dataset(cohort, folder, DatasetSpec(1.84, 64, {"val": 2}), overwrite=True)
    assert len(open_dataset(folder).rows) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_no_data_set_is_never_replaced(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder of slides that was named by mistake, nothing is touched, nor is anything computed."""
    shutil.copytree(cohort.parent, tmp_path / "slides")
    (tmp_path / "slides" / "manifest.json").write_text('{"schema_version": 1}', encoding="utf-8")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "slides").iterdir()}
    monkeypatch.setattr(Slide, "open", None)
    with pytest.raises(OutputExistsError, match="no data set") as caught:
        build_dataset(cohort, tmp_path / "slides", SPEC, overwrite=True)
    assert caught.value.cure
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "slides").iterdir()} == before
    monkeypatch.chdir(tmp_path / "slides")
    with pytest.raises(OutputExistsError, match="the folder that you are in"):
        build_dataset(cohort, Path(), SPEC, overwrite=True)


def test_bad_slides_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    table = cohort_of_one(tmp_path, tumour_and_liver())
    write_slide(tmp_path / "a.tif", toy_pixels(0), mpp=29)
    with pytest.raises(ResolutionTooCoarseError):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4}))
    (tmp_path / "a.tif").unlink()
    with pytest.raises(SlideNotFoundError):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.geojson", "c.csv"]


def test_another_resolution_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetInvalidError, match=r"64 px at 1\.84 µm, but the recipe needs 128 px at 0\.92"):
        combine([dataset], 0.92, 128)


def test_damaged_data_sets_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(DatasetInvalidError, match="no complete data set"):
        open_dataset(copy)
    shutil.copytree(dataset.folder, copy)
    shard = next((copy / "patches").glob("*s2.npy"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(DatasetInvalidError, match=r"s2\.npy .* cut short"):
        combine([open_dataset(copy)], 1.84, 64)
    shard.unlink()
    with pytest.raises(DatasetInvalidError, match="missing"):
        combine([open_dataset(copy)], 1.84, 64)
    (copy / "manifest.json").write_text('{"schema_version": 99}', encoding="utf-8")
    with pytest.raises(DatasetInvalidError, match="another version"):
        open_dataset(copy)


def test_a_group_in_two_splits_of_two_data_sets_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset.folder, copy)
    rows = [{**row, "split": "test"} for row in dataset.rows if row["split"] == "train"]
    with (copy / "patches.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(GroupInTwoSplitsError, match="“patient0” is in train of one data set and in test"):
        combine([dataset, open_dataset(copy)], 1.84, 64)


def test_a_copied_slide_in_two_splits_is_refused(dataset: Dataset, cohort: Path, tmp_path: Path) -> None:
    """Names, groups and folders differ; the pixels are those of s0.tif."""
    for kind in ("tif", "geojson"):
        shutil.copy(cohort.parent / f"s0.{kind}", tmp_path / f"copy.{kind}")
    header = "slide,annotations,group,split\n"
    table = tmp_path / "c.csv"
    row = f"{cohort.parent / 's0.tif'},{cohort.parent / 's0.geojson'},p1,train\n"
    table.write_text(f"{header}{row}copy.tif,copy.geojson,p2,test\n", encoding="utf-8")
    with pytest.raises(SlideInTwoSplitsError, match=r"s0\.tif \(train\) and copy\.tif \(test\) are the same slide"):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4, "test": 4}))
    table.write_text(f"{header}copy.tif,copy.geojson,p2,test\n", encoding="utf-8")
    other = build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"test": 4}))
    with pytest.raises(SlideInTwoSplitsError, match=r"copy\.tif \(test\)"):
        combine([dataset, other], 1.84, 64)


def test_show_counts_and_draws(dataset: Dataset, tmp_path: Path) -> None:
    summary = show_dataset(dataset.folder, tmp_path / "sheet.png")
    assert [(s.split, s.slides, s.tumour, s.non_tumour, s.fields) for s in summary.splits] == [
        ("train", 2, 40, 40, 0),
        ("val", 1, 10, 10, 0),
        ("test", 1, 12, 12, 0),
    ]
    assert [(s.slide, s.split) for s in summary.slides] == [
        (f"s{i}.tif", n) for i, n in enumerate(("train", "train", "val", "test"))
    ]
    counted = [
        [sum(r["slide"] == s.slide and r["label"] == label for r in dataset.rows) for label in "10"] for s in summary.slides
    ]
    assert [[s.tumour, s.non_tumour] for s in summary.slides] == counted
    assert summary.warnings == ()
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert sheet.shape == (8 * 64, 2 * 8 * 64 + 16, 3)
    left, right = sheet[:64, :64].mean(axis=(0, 1)), sheet[:64, 8 * 64 + 16 :][:, :64].mean(axis=(0, 1))
    assert left[0] > left[2]  # BGR: blue is toy liver
    assert right[2] > right[0]


def test_the_sheet_of_a_data_set_without_training_patches(cohort: Path, tmp_path: Path) -> None:
    build_dataset(cohort, tmp_path / "set", DatasetSpec(1.84, 64, {"test": 4}))
    show_dataset(tmp_path / "set", tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    assert (sheet < 250).any()


@pytest.mark.parametrize("name", ["sheet", "sheet.foo", "missing/sheet.png"])
def test_a_sheet_that_cannot_be_written(dataset: Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputNotWritableError, match="cannot be written") as caught:
        show_dataset(dataset.folder, tmp_path / name)
    assert ".png" in caught.value.cure


def test_slides_and_patients_are_counted_over_data_sets(cohort: Path, dataset: Dataset, tmp_path: Path) -> None:
    """The same two slides, drawn from again, of patients whose names are written otherwise."""
    text = cohort.read_text(encoding="utf-8")
    for row in dataset.rows:
        text = text.replace(f",{row['group']},", f",  {row['group'].upper()} ,")
    again = cohort.with_name("again.csv")
    again.write_text(text, encoding="utf-8")
    other = build_dataset(again, tmp_path / "other", DatasetSpec(1.84, 64, {"train": 10}, seed=8))
    train = combine([dataset, other], 1.84, 64)["train"]
    assert len(train) == 80 + 20
    assert len(set(train.slides.tolist())) == 2
    assert set(train.groups.tolist()) == {row["group"] for row in dataset.rows if row["split"] == "train"}
    with pytest.raises(DatasetInvalidError, match="given twice"):
        combine([dataset, replace(dataset, folder=dataset.folder / ".." / dataset.folder.name)], 1.84, 64)


def test_slides_of_one_name_are_two(tmp_path: Path) -> None:
    rows = []
    for number, name in enumerate("AB"):
        (tmp_path / name).mkdir()
        write_slide(tmp_path / name / "slide.tif", toy_pixels(number))
        (tmp_path / name / "slide.geojson").write_text(json.dumps(tumour_and_liver()), encoding="utf-8")
        rows.append(f"{name}/slide.tif,{name}/slide.geojson,{name},train")
    (tmp_path / "c.csv").write_text("\n".join(["slide,annotations,group,split", *rows]), encoding="utf-8")
    build_dataset(tmp_path / "c.csv", tmp_path / "set", DatasetSpec(1.84, 64, {"train": 10}))
    summary = show_dataset(tmp_path / "set")
    assert [split.slides for split in summary.splits] == [2]
    assert [(slide.slide, slide.tumour, slide.non_tumour) for slide in summary.slides] == [("slide.tif", 5, 5)] * 2


def test_show_says_what_was_left_out(tmp_path: Path) -> None:
    collection = tumour_and_liver()
    collection["features"] += [
        feature([box(0, 0, 9, 9)], classification={"name": "Stroma", "color": [1, 2, 3]}),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}},
        feature([box(300, 0, 320, SIDE)], classification={"name": "Normal", "color": [1, 2, 3]}),
    ]
    dataset = build_dataset(cohort_of_one(tmp_path, collection), tmp_path / "set", DatasetSpec(1.84, 64, {"train": 4}))
    said = "\n".join(show_dataset(dataset.folder).warnings)
    assert "1 annotations of class “Stroma” were left out" in said
    assert "1 objects were left out (Point, not an area)" in said
    assert f"{20 * SIDE * 1.84**2 / 1e6:.4g} mm² are drawn as both" in said
