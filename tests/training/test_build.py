from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections import Counter, namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hepamap.errors import OutputNotWritableError, ParameterError, SlideNotFoundError
from hepamap.slide import Slide
from hepamap.training.build import BuildProgress, DatasetSpec, Quotas, build_dataset
from hepamap.training.build_slide import slide_job
from hepamap.training.class_map import DEFAULT_CLASSES
from hepamap.training.cohort import read_cohort
from hepamap.training.errors import DatasetEmptyError, WorkerLostError
from hepamap.training.pool import run_all
from hepamap.training.quotas import fill, first_quotas, raised_quotas
from hepamap.training.sampling import Sampler

from .conftest import SIDE, box, feature, toy_pixels, write_slide

SPEC = DatasetSpec(1.84, 64, {"train": 20, "val": 6, "test": 6}, fields=4, seed=3)
WITH_MASKS = replace(SPEC, masks=True)


class Reads:
    """The names of the slides of which pixels were read, and an end after so many pieces of work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slides: list[str] = []
        real = Slide.read_region

        def counted(slide: Slide, *args: Any) -> Any:
            self.slides.append(slide.path.name)
            return real(slide, *args)

        monkeypatch.setattr(Slide, "read_region", counted)

    @staticmethod
    def stop_after(count: int) -> Callable[[BuildProgress], None]:
        def tell(step: BuildProgress) -> None:
            if step.done == count:
                raise KeyboardInterrupt

        return tell


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shares_are_equal_and_add_up() -> None:
    plenty = {3: 9, 5: 9, 8: 9}
    assert first_quotas(plenty, 10) == {3: 4, 5: 3, 8: 3}
    assert first_quotas(plenty, 2) == {3: 1, 5: 1, 8: 0}
    assert first_quotas({}, 5) == {}


def test_no_share_is_more_than_a_slide_can_hold() -> None:
    assert first_quotas({0: 8, 1: 322}, 200) == {0: 8, 1: 192}
    assert first_quotas({0: 1, 1: 4, 2: 30, 3: 30}, 20) == {0: 1, 1: 4, 2: 8, 3: 7}  # 4 is enough for 5 until 0 has only 1
    assert first_quotas({0: 8, 1: 3}, 200) == {0: 8, 1: 3}
    assert first_quotas({number: number for number in range(5000)}, 5000 * 4999 // 2) == {
        number: number for number in range(5000)
    }
    # 1 gave all of its 5 and can hold one more, 2 gave all and can hold none; 0 gave what it had.
    assert raised_quotas({0: 5, 1: 5, 2: 5}, {0: 2, 1: 5, 2: 5}, 15, {0: 9, 1: 6, 2: 5}) == {0: 5, 1: 6, 2: 5}
    full = {0: 5, 1: 6, 2: 5}
    assert raised_quotas(full, {0: 2, 1: 6, 2: 5}, 15, {0: 9, 1: 6, 2: 5}) == full


PAIRS = st.tuples(st.integers(0, 40), st.integers(0, 40))
SLIDES = st.lists(st.tuples(PAIRS, PAIRS), min_size=1, max_size=8)
"""Of each slide how many patches of each class are found if asked for, and how many it can hold."""


def roomy(*stocks: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [(stock, (100, 100)) for stock in stocks]


@given(SLIDES, st.integers(1, 100))
@example(roomy((2, 0), (3, 1), (4, 2), (2, 0), (5, 1), (5, 1), (1, 18), (0, 30)), 22)
@example(roomy((0, 2), (1, 3), (2, 4), (0, 2), (1, 5), (1, 5), (18, 1), (30, 0)), 7)  # asked six times
@example([((40, 40), (8, 40)), ((40, 40), (40, 40))], 40)
def test_what_some_lack_is_asked_of_those_that_have_more(
    slides: list[tuple[tuple[int, int], tuple[int, int]]], wanted: int
) -> None:
    asked: list[Quotas] = []

    def ask(quotas: Quotas) -> Quotas:
        asked.append(quotas)
        return {key: {slide: min(quota, slides[slide][0][key[1]]) for slide, quota in of.items()} for key, of in quotas.items()}

    keys = [("train", label) for label in (0, 1)]
    most = {key: {slide: held[key[1]] for slide, (_, held) in enumerate(slides)} for key in keys}
    fill(most, dict.fromkeys(keys, wanted), ask)
    for key in keys:
        stock = [stocks[key[1]] for stocks, _ in slides]
        given = [min(asked[-1][key][slide], stock[slide]) for slide in range(len(stock))]
        assert sum(given) == min(wanted, sum(min(have, most[key][slide]) for slide, have in enumerate(stock)))
        assert all(quota <= most[key][slide] for quotas in asked for slide, quota in quotas[key].items())
        for before, after in itertools.pairwise(asked):  # what is missing is asked for, once, as far as there is room
            missing = wanted - sum(min(before[key][slide], stock[slide]) for slide in range(len(stock)))
            added = [after[key][slide] - before[key][slide] for slide in range(len(stock))]
            room = sum(most[key][slide] - before[key][slide] for slide, have in enumerate(stock) if have >= before[key][slide])
            assert sum(added) in (0, min(missing, room))
            assert all(stock[slide] >= before[key][slide] for slide, more in enumerate(added) if more)
    assert len(asked) <= 2 * (len(slides) + 1)  # each round exhausts a slide of one class, or is the last of it


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 30), st.randoms(use_true_random=False))
def test_asking_ends_whatever_slides_give(held: list[int], wanted: int, luck: random.Random) -> None:
    """A slide that is drawn again may give less than before, or more."""
    rounds, limits = itertools.count(1), [min(most, wanted) for most in held]

    def ask(quotas: Quotas) -> Quotas:
        assert next(rounds) <= sum(limits) + 1
        assert all(quota <= limits[slide] for of in quotas.values() for slide, quota in of.items())
        return {key: {slide: luck.choice((0, quota // 2, quota)) for slide, quota in of.items()} for key, of in quotas.items()}

    fill({("val", 1): dict(enumerate(held))}, {("val", 1): wanted}, ask)


def test_a_slide_gives_no_more_than_its_annotations_hold(tmp_path: Path) -> None:
    """The tumour of the first is 64 × 96 px: with its outline, ⌊4 × (6144 + 320) / 3072⌋ = 8 patches."""
    dataset = build_dataset(write_lean_and_rich(tmp_path, (64, 96)), tmp_path / "set", DatasetSpec(1.84, 64, {"train": 60}))
    of_slide = Counter(row["slide"] for row in dataset.rows if row["label"] == "1")
    assert dataset.manifest["patches_per_class"] == {"train": 60}
    assert of_slide["s0.tif"] <= 8
    assert of_slide["s1.tif"] == 60 - of_slide["s0.tif"]


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    alone = build_dataset(cohort, tmp_path / "one" / "set", WITH_MASKS)
    told: list[BuildProgress] = []
    many = build_dataset(cohort, tmp_path / "three" / "set", WITH_MASKS, workers=3, progress=told.append)
    assert contents(alone.folder) == contents(many.folder)
    assert (told[-1].done, told[-1].total) == (4 + 3 + 4, 4 + 3 + 4)  # four slides, the fields of three, the masks of four
    assert [path.name for path in (tmp_path / "three").iterdir()] == ["set"]


def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(cohort: Path, tmp_path: Path, reads: Reads) -> None:
    whole = build_dataset(cohort, tmp_path / "whole" / "set", WITH_MASKS)
    reads.slides.clear()
    out = tmp_path / "parts" / "set"
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, WITH_MASKS, progress=reads.stop_after(2))
    assert set(reads.slides) == {"s0.tif", "s1.tif"}
    assert not out.exists()
    reads.slides.clear()
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, WITH_MASKS, progress=reads.stop_after(5))  # the first field after four slides
    assert reads.slides.count("s1.tif") == 0
    assert set(reads.slides) == {"s0.tif", "s2.tif", "s3.tif"}  # s0 for its fields
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, WITH_MASKS, progress=reads.stop_after(4 + 3 + 2))  # two masks
    reads.slides.clear()
    masks = sorted((out.parent / ".set.unfinished" / "masks").glob("*.npy"))
    assert len(masks) == 2
    drawn = [path.stat().st_mtime_ns for path in masks]
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, out, WITH_MASKS, progress=reads.stop_after(4 + 3 + 3))
    assert [path.stat().st_mtime_ns for path in masks] == drawn
    build_dataset(cohort, out, WITH_MASKS)
    assert reads.slides == []
    assert contents(out) == contents(whole.folder)
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_what_another_build_can_use_is_kept(cohort: Path, tmp_path: Path, reads: Reads) -> None:
    """Other numbers, another table or other annotations: only what they change is drawn again."""
    folder, out = tmp_path / "cohort", tmp_path / "set"
    shutil.copytree(cohort.parent, folder)

    def read_by(spec: DatasetSpec, stop: int) -> set[str]:
        reads.slides.clear()
        with pytest.raises(KeyboardInterrupt):
            build_dataset(folder / cohort.name, out, spec, progress=reads.stop_after(stop))
        return set(reads.slides)

    assert read_by(SPEC, 4) == {"s0.tif", "s1.tif", "s2.tif", "s3.tif"}
    assert read_by(SPEC, 4) == set()
    assert read_by(replace(SPEC, per_class={**SPEC.per_class, "val": 8}), 4) == {"s2.tif"}
    assert read_by(replace(SPEC, per_class={"train": 20, "test": 6}), 3) == set()  # s3 is now the third
    drawn = [feature([box(0, 0, 300, SIDE)], classification="Tumor"), feature([box(320, 0, 640, SIDE)], classification="Normal")]
    (folder / "s0.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": drawn}), encoding="utf-8")
    assert read_by(SPEC, 4) == {"s0.tif", "s2.tif"}  # s2 was not in the table's part before
    assert read_by(replace(SPEC, seed=4), 4) == {"s0.tif", "s1.tif", "s2.tif", "s3.tif"}
    again = build_dataset(folder / cohort.name, out, SPEC)
    fresh = build_dataset(folder / cohort.name, tmp_path / "fresh", SPEC)
    assert contents(again.folder) == contents(fresh.folder)


def test_one_draw_of_each_slide_is_on_the_disk(tmp_path: Path, reads: Reads) -> None:
    table = write_lean_and_rich(tmp_path)
    with pytest.raises(KeyboardInterrupt):  # both slides, then the one that has more
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}), progress=reads.stop_after(3))
    draws = tmp_path / ".set.unfinished" / "draws"
    assert [len(np.load(path)) for path in sorted(draws.glob("*.npy"), key=lambda path: path.stat().st_size)] == [15, 45]
    assert len(list(draws.glob("*.json"))) == 3
    out = build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}))
    fresh = build_dataset(table, tmp_path / "fresh", DatasetSpec(1.84, 64, {"train": 30}))
    assert contents(out.folder) == contents(fresh.folder)


def test_a_superseded_draw_that_is_wanted_again_is_drawn_again(tmp_path: Path, reads: Reads) -> None:
    table = write_lean_and_rich(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}), progress=reads.stop_after(3))
    rich = (tmp_path / "s1.geojson").read_text(encoding="utf-8")
    (tmp_path / "s0.geojson").write_text(rich, encoding="utf-8")  # now both have 15
    reads.slides.clear()
    again = build_dataset(table, tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}))
    assert set(reads.slides) == {"s0.tif", "s1.tif"}
    fresh = build_dataset(table, tmp_path / "fresh", DatasetSpec(1.84, 64, {"train": 30}))
    assert contents(again.folder) == contents(fresh.folder)


def write_lean_and_rich(folder: Path, lean: tuple[int, int] = (40, SIDE)) -> Path:
    """Two slides; the tumour of the first is small, if not said otherwise a strip that no patch can be mostly of."""
    lines = ["slide,annotations,group,split"]
    for number, (width, height) in enumerate((lean, (320, SIDE))):
        write_slide(folder / f"s{number}.tif", toy_pixels(number))
        drawn = [
            feature([box(0, 0, width, height)], classification="Tumor"),
            feature([box(320, 0, 640, SIDE)], classification="Normal"),
        ]
        text = json.dumps({"type": "FeatureCollection", "features": drawn})
        (folder / f"s{number}.geojson").write_text(text, encoding="utf-8")
        lines.append(f"s{number}.tif,s{number}.geojson,p{number},train")
    (folder / "c.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "c.csv"


def test_slides_with_more_make_up_for_those_with_less(tmp_path: Path) -> None:
    dataset = build_dataset(write_lean_and_rich(tmp_path), tmp_path / "set", DatasetSpec(1.84, 64, {"train": 30}))
    tumour = [row["slide"] for row in dataset.rows if row["label"] == "1"]
    assert dataset.manifest["patches_per_class"] == {"train": 30}
    assert tumour == ["s1.tif"] * 30


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - free, free))


def bytes_of(spec: DatasetSpec, drawn: int) -> int:
    pieces, made = spec.disk_bytes(drawn, spec.per_class)
    return sum(pieces.values()) + made


# 64 patches twice, drawn and chosen; 2 × (4 + 6) fields and 64 masks twice, finished and in the data set.
PATCH, FIELD = 64**2 * 3 + 512, 192**2 * 3 + 81 + 512
NEEDED = 2 * 64 * PATCH + 2 * 20 * FIELD + 2 * 64 * 64**2


def test_validation_keeps_its_fields_where_training_has_less(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many follows from what was asked for, not from what training can hold."""
    spec = DatasetSpec(1.84, 64, {"train": 800, "val": 100}, fields=800)
    assert spec.disk_bytes(0, {"train": 8, "val": 90})[0]["fields"] == 2 * (8 + 90) * FIELD
    needed = 2 * 12 * PATCH + 2 * 12 * FIELD
    alone = DatasetSpec(1.84, 64, {"val": 6}, fields=4)
    disk_of(monkeypatch, needed - 1)
    with pytest.raises(OutputNotWritableError):
        build_dataset(cohort, tmp_path / "set", alone)
    disk_of(monkeypatch, needed)
    assert build_dataset(cohort, tmp_path / "set", alone).manifest["fields"]["fields_per_class"]["val"] == 6


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    assert bytes_of(WITH_MASKS, 64) == NEEDED
    disk_of(monkeypatch, NEEDED - 1)
    with pytest.raises(OutputNotWritableError, match=r"0\.0 GB more while it is made, but 0\.0 GB are free"):
        build_dataset(cohort, tmp_path / "set", WITH_MASKS)
    assert (reads.slides, list(tmp_path.iterdir())) == ([], [])


def test_a_disk_that_filled_up_since_is_told_when_a_build_goes_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    disk_of(monkeypatch, NEEDED)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, tmp_path / "set", WITH_MASKS, progress=reads.stop_after(2))
    there = sum(path.stat().st_size for path in (tmp_path / ".set.unfinished").rglob("*.npy"))
    assert there == 2 * (2 * 10 * 64**2 * 3 + 128)
    reads.slides.clear()
    disk_of(monkeypatch, NEEDED - there - 1)
    with pytest.raises(OutputNotWritableError):
        build_dataset(cohort, tmp_path / "set", WITH_MASKS)
    disk_of(monkeypatch, NEEDED - there)
    build_dataset(cohort, tmp_path / "set", WITH_MASKS)
    assert "s0.tif" in reads.slides  # for fields: what was finished was kept through the refusal
    assert reads.slides.count("s0.tif") <= 8


def test_a_slide_by_another_name_has_pieces_of_its_own(cohort: Path, tmp_path: Path) -> None:
    """The places of its patches are random by its name, whatever a link leads to."""
    row = read_cohort(cohort)[0]
    names = ("a.tif", "b.tif")
    for name in names:
        (tmp_path / name).symlink_to(row.slide)
    sampler = Sampler(1.84, 64, 0)
    jobs = [slide_job(0, replace(row, slide=tmp_path / name), sampler, DEFAULT_CLASSES) for name in (names[0], *names)]
    assert jobs[0].key == jobs[1].key != jobs[2].key


def test_pieces_of_an_earlier_build_that_this_one_does_not_use_make_no_room(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, tmp_path / "set", WITH_MASKS, progress=reads.stop_after(6))  # four slides, and fields of two
    assert list((tmp_path / ".set.unfinished" / "fields").glob("*.npy"))
    bare = replace(WITH_MASKS, fields=0, masks=False)
    drawn = sum(path.stat().st_size for path in (tmp_path / ".set.unfinished" / "draws").glob("*.npy"))
    disk_of(monkeypatch, bytes_of(bare, 64) - drawn - 1)
    with pytest.raises(OutputNotWritableError):
        build_dataset(cohort, tmp_path / "set", bare)
    disk_of(monkeypatch, bytes_of(bare, 64) - drawn)
    build_dataset(cohort, tmp_path / "set", bare)


def test_pieces_of_an_earlier_build_make_no_more_room_than_this_one_needs_for_its_own(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Reads
) -> None:
    many = replace(SPEC, per_class={"train": 20}, fields=20)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(cohort, tmp_path / "set", many, progress=reads.stop_after(4))  # two slides and all their fields
    few = replace(many, fields=1)
    pieces, made = few.disk_bytes(40, few.per_class)
    there = {kind: sum(path.stat().st_size for path in (tmp_path / ".set.unfinished" / kind).glob("*.npy")) for kind in pieces}
    assert there["fields"] > 10 * pieces["fields"]
    disk_of(monkeypatch, made + pieces["draws"] - there["draws"] - 1)
    with pytest.raises(OutputNotWritableError):
        build_dataset(cohort, tmp_path / "set", few)
    disk_of(monkeypatch, made + pieces["draws"] - there["draws"])
    build_dataset(cohort, tmp_path / "set", few)


def test_no_build_takes_more_than_was_reckoned(cohort: Path, tmp_path: Path) -> None:
    most = 0

    def measure(_: BuildProgress) -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    build_dataset(cohort, tmp_path / "set", WITH_MASKS, progress=measure)
    assert NEEDED / 2 < most <= NEEDED


def test_what_was_drawn_is_kept_where_a_split_comes_out_empty(cohort: Path, tmp_path: Path, reads: Reads) -> None:
    """Validation has its tumour on glass: only its pixels can tell."""
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)
    drawn = [
        feature([box(650, 0, 768, SIDE)], classification="Tumor"),
        feature([box(320, 0, 640, SIDE)], classification="Normal"),
    ]
    (folder / "s2.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": drawn}), encoding="utf-8")
    with pytest.raises(DatasetEmptyError, match=r"“val” has no patch of tumour: .* background") as caught:
        build_dataset(folder / cohort.name, tmp_path / "set", SPEC)
    assert "--val 0" in caught.value.cure
    assert not (tmp_path / "set").exists()
    reads.slides.clear()
    build_dataset(folder / cohort.name, tmp_path / "set", replace(SPEC, per_class={"train": 20, "test": 6}, fields=0))
    assert reads.slides == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mpp": 0.0}, "0 µm"),
        ({"mpp": -1.84}, "-1.84 µm"),
        ({"mpp": float("nan")}, "nan µm"),
        ({"mpp": 20.1}, "20.1 µm"),
        ({"patch_m": 0}, "0 px"),
        ({"patch_m": -64}, "-64 px"),
        ({"patch_m": 65}, "65 px"),
        ({"patch_m": 1056}, "1056 px"),
        ({"per_class": {}}, "without any split"),
        ({"per_class": {"train": 0}}, "0 patches of “train”"),
        ({"per_class": {"train": 4, "val": -1}}, "-1 patches of “val”"),
        ({"per_class": {"dev": 4}}, "“dev”"),
        ({"fields": -1}, "-1 fields"),
        ({"fields": 21}, "21 fields of each class are asked for, and 20 training patches"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said) as caught:
        replace(SPEC, **change)
    assert caught.value.cure


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
