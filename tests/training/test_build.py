from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepamap.errors import OutputNotWritableError, SlideNotFoundError
from hepamap.slide import Slide
from hepamap.training.build import BuildProgress, DatasetSpec, build_dataset
from hepamap.training.errors import WorkerLostError
from hepamap.training.pool import run_all
from hepamap.training.quotas import first_quotas, raised_quotas

from .conftest import SIDE, box, feature, toy_pixels, write_slide

SPEC = DatasetSpec(1.84, 64, {"train": 20, "val": 6, "test": 6}, fields=4, seed=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shares_are_equal_and_add_up() -> None:
    assert first_quotas([3, 5, 8], 10) == {3: 4, 5: 3, 8: 3}
    assert first_quotas([3, 5, 8], 2) == {3: 1, 5: 1, 8: 0}
    assert first_quotas([], 5) == {}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 100))
def test_what_some_lack_is_asked_of_those_that_have_more(stock: list[int], wanted: int) -> None:
    quotas = first_quotas(range(len(stock)), wanted)
    for _ in range(len(stock) + 1):  # each round exhausts a slide, or is the last
        found = {slide: min(quota, stock[slide]) for slide, quota in quotas.items()}
        raised = raised_quotas(quotas, found, wanted)
        if raised == quotas:
            break
        assert sum(raised.values()) == sum(quotas.values()) + wanted - sum(found.values())
        quotas = raised
    assert sum(found.values()) == min(wanted, sum(stock))


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    alone = build_dataset(cohort, tmp_path / "one" / "set", SPEC)
    told: list[BuildProgress] = []
    many = build_dataset(cohort, tmp_path / "three" / "set", SPEC, workers=3, progress=told.append)
    assert contents(alone.folder) == contents(many.folder)
    assert (told[-1].done, told[-1].total) == (4 + 3, 4 + 3)  # four slides, then the fields of three
    assert [path.name for path in (tmp_path / "three").iterdir()] == ["set"]


def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_dataset(cohort, tmp_path / "whole" / "set", SPEC)
    read: list[str] = []
    real = Slide.read_region

    def counted(self: Slide, *args: Any) -> Any:
        read.append(self.path.name)
        return real(self, *args)

    monkeypatch.setattr(Slide, "read_region", counted)

    def stop_after(count: int) -> Any:
        def tell(step: BuildProgress) -> None:
            if step.done == count:
                raise KeyboardInterrupt

        return tell

    out = tmp_path / "parts" / "set"
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, SPEC, progress=stop_after(2))
    assert set(read) == {"s0.tif", "s1.tif"}
    assert not out.exists()
    read.clear()
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, SPEC, progress=stop_after(5))  # the first field after four slides
    assert read.count("s1.tif") == 0
    assert set(read) == {"s0.tif", "s2.tif", "s3.tif"}  # s0 for its fields
    build_dataset(cohort, out, SPEC)
    assert contents(out) == contents(whole.folder)
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_other_numbers_or_annotations_begin_anew(cohort: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)

    def stop(_: BuildProgress) -> None:
        raise KeyboardInterrupt

    def stopped(spec: DatasetSpec) -> None:
        with pytest.raises(KeyboardInterrupt):
            build_dataset(folder / cohort.name, tmp_path / "set", spec, progress=stop)

    marks = []
    for spec in (SPEC, SPEC, DatasetSpec(1.84, 64, SPEC.per_class, fields=4, seed=4)):
        stopped(spec)
        marks.append((tmp_path / ".set.unfinished" / "build.txt").read_text())
    drawn = {"type": "FeatureCollection", "features": [feature([box(0, 0, 300, SIDE)], classification="Tumor")]}
    (folder / "s0.geojson").write_text(json.dumps(drawn), encoding="utf-8")
    stopped(SPEC)
    marks.append((tmp_path / ".set.unfinished" / "build.txt").read_text())
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


def test_slides_with_more_make_up_for_those_with_less(tmp_path: Path) -> None:
    # Two slides; the tumour of the first is smaller than a patch.
    lines = ["slide,annotations,group,split"]
    for number, width in enumerate((40, 320)):
        write_slide(tmp_path / f"s{number}.tif", toy_pixels(number))
        drawn = [
            feature([box(0, 0, width, 40 if number == 0 else SIDE)], classification="Tumor"),
            feature([box(320, 0, 640, SIDE)], classification="Normal"),
        ]
        text = json.dumps({"type": "FeatureCollection", "features": drawn})
        (tmp_path / f"s{number}.geojson").write_text(text, encoding="utf-8")
        lines.append(f"s{number}.tif,s{number}.geojson,p{number},train")
    (tmp_path / "c.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = build_dataset(tmp_path / "c.csv", tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}))
    tumour = [row["slide"] for row in dataset.rows if row["label"] == "1"]
    assert dataset.manifest["patches_per_class"] == {"train": 30}
    assert tumour == ["s1.tif"] * 30


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    # 2 × (2 × 32 patches of 64 × 64 × 3 bytes + 2 × 36 fields of 192 × 192 × 3 bytes) = 17.5 MB
    assert 2 * SPEC.size_bytes == 2 * (2 * 32 * 64**2 * 3 + 2 * 36 * 192**2 * 3)
    with pytest.raises(OutputNotWritableError, match=r"0\.0 GB while it is made, but 0\.0 GB are free"):
        build_dataset(cohort, tmp_path / "set", SPEC)
    assert list(tmp_path.iterdir()) == []


def fail_on_two(number: int) -> int:
    if number == 2:
        raise SlideNotFoundError("The slide two is not there.", cure="Look for it.")
    return number


def die_on_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), 9)
    return number


@pytest.mark.slow
def test_errors_of_other_processes_keep_their_words() -> None:
    done: list[int] = []
    assert run_all(abs, [(-1,), (-2,), (-3,)], 2, done.append) == [1, 2, 3]
    assert sorted(done) == [0, 1, 2]
    with pytest.raises(SlideNotFoundError, match="two is not there") as caught:
        run_all(fail_on_two, [(n,) for n in range(4)], 2, done.append)
    assert caught.value.cure == "Look for it."
    with pytest.raises(WorkerLostError, match="was killed"):
        run_all(die_on_two, [(n,) for n in range(4)], 2, done.append)


def test_shards_hold_what_the_table_says(cohort: Path, tmp_path: Path) -> None:
    dataset = build_dataset(cohort, tmp_path / "set", SPEC)
    for shard in {row["shard"] for row in dataset.rows}:
        rows = sorted(int(row["row"]) for row in dataset.rows if row["shard"] == shard)
        assert rows == list(range(len(np.load(dataset.folder / "patches" / shard))))
