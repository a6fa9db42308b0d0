from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import shapely

from hepamap.errors import OutputNotWritableError
from hepamap.phantom import PhantomSpec, truth_collection, truth_of
from hepamap.phantom.cohort import CohortEntry, Preset, cohort_entries, write_cohort
from hepamap.phantom.painter import Painter


def seeds_of(entries: list[CohortEntry]) -> set[int]:
    """All seeds that decide what is painted."""
    return {seed for entry in entries for seed in (entry.spec.seed, entry.spec.stain, entry.spec.tumour) if seed is not None}


@pytest.mark.parametrize(
    ("preset", "count", "digest"),
    [("training", 78, "f69807c1b8f8c92f"), ("held-out", 8, "44a7dba8f6f8545d"), ("experiment", 50, "9816fe5efcdaa5b2")],
)
def test_a_preset_is_always_the_same_slides(preset: Preset, count: int, digest: str) -> None:
    entries = cohort_entries(preset)
    assert len(entries) == count
    told = "\n".join(repr((entry.name, entry.split, entry.group, *astuple(entry.spec))) for entry in entries)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == digest


def test_seeds_of_presets_never_meet() -> None:
    sets = [seeds_of(cohort_entries(preset)) for preset in ("training", "held-out", "experiment")]
    assert len(set.union(*sets)) == sum(map(len, sets))


def test_the_experiment_splits_twenty_tumours_of_two_sections_and_tests_biopsies() -> None:
    entries = cohort_entries("experiment")
    groups: dict[str, list[CohortEntry]] = defaultdict(list)
    for entry in entries:
        if entry.spec.kind == "resection":
            groups[entry.group].append(entry)
    assert len(groups) == 20
    for one, other in groups.values():
        assert one.split == other.split
        assert one.spec.tumour == other.spec.tumour
        assert one.spec.seed != other.spec.seed
        assert one.spec.stain != other.spec.stain
    splits = [sections[0].split for sections in groups.values()]
    assert [splits.count(split) for split in ("train", "val", "test")] == [13, 3, 4]
    biopsies = [entry for entry in entries if entry.spec.kind == "biopsy"]
    assert len(biopsies) == 10
    assert {entry.split for entry in biopsies} == {"test"}
    assert len({entry.spec.stain for entry in entries}) == 8 + 1  # biopsies: None, i.e. each its own
    assert len({entry.spec.mpp_x for entry in entries}) == 4


def test_two_sections_of_a_tumour_have_the_same_architecture_and_other_outlines() -> None:
    one, other, stranger = (
        PhantomSpec(width_um=1500, height_um=1200, mpp_x=1.0, seed=seed, tumour=tumour)
        for seed, tumour in ((1, 7), (2, 7), (2, 8))
    )
    painters = [Painter(spec) for spec in (one, other, stranger)]
    assert painters[0].architectures == painters[1].architectures != painters[2].architectures
    assert not truth_of(one).tumour.equals(truth_of(other).tumour)
    assert truth_of(other).tumour.equals(truth_of(stranger).tumour)
    # Without one, the slide's own seed is the tumour's: the presets of before are what they were.
    own = Painter(PhantomSpec(width_um=1500, height_um=1200, mpp_x=1.0, seed=7))
    assert own.architectures == painters[0].architectures


def test_no_outline_is_lost_on_the_way_to_pixels() -> None:
    """Two outlines of the experiment cross themselves once they are in pixels; GEOS used to fail, or to drop them."""
    for entry in cohort_entries("experiment"):
        if entry.name not in ("tumour-04a", "tumour-01a"):
            continue
        truth, um2_per_px = truth_of(entry.spec), entry.spec.pixel_size.area_um2
        for name, area_um2 in (("Tumor", truth.tumour.area), ("Non-tumor", truth.liver.area)):
            features = [f for f in truth_collection(entry.spec)["features"] if f["properties"]["classification"]["name"] == name]
            found = [shapely.geometry.shape(f["geometry"]) for f in features]
            assert all(part.is_valid for part in found)
            assert sum(part.area for part in found) * um2_per_px == pytest.approx(area_um2, rel=1e-4)


def test_a_disk_without_room_is_said_before_anything_is_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000_000))
    with pytest.raises(OutputNotWritableError, match=r"may need 1\.1 GB, but 0\.1 GB are free"):
        write_cohort(tmp_path, "experiment", workers=1)
    assert not list(tmp_path.iterdir())


def test_tables_of_the_experiment(tmp_path: Path) -> None:
    for entry in cohort_entries("experiment"):  # slides that are there are kept
        (tmp_path / f"{entry.name}.geojson").write_text("{}", encoding="utf-8")
    table = write_cohort(tmp_path, "experiment", workers=1)
    rows = {}
    for name in ("cohort.csv", "resections.csv", "biopsies.csv"):
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert table.name == "cohort.csv"
    assert rows["cohort.csv"] == rows["resections.csv"] + rows["biopsies.csv"]
    assert {row["unannotated"] for row in rows["biopsies.csv"]} == {"non_tumour"}
    assert rows["resections.csv"][1] == {
        **{"slide": "tumour-01b.tif", "annotations": "tumour-01b.geojson", "group": "tumour-01", "split": "train"},
        "unannotated": "ignore",
    }
