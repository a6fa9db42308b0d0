"""No patch of one tumour stands in two splits, however its group is written, in one table or in several data sets."""

from __future__ import annotations

import csv
import json
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hepamap.training.cohort import SPLITS, CohortSlide, read_cohort
from hepamap.training.dataset import COLUMNS, SCHEMA_VERSION, Dataset, combine, open_dataset, shard_name
from hepamap.training.errors import GroupInTwoSplitsError

# Of these, none is another in any spelling.
GROUPS = ("patient 1", "patient 11", "pat ient 1", "müller", "muller", "straße 7")
BLANKS = st.text(" \t\N{NO-BREAK SPACE}", min_size=1, max_size=2)
MARGINS = st.text(" \t", max_size=2)


@st.composite
def spelling(draw: st.DrawFn, group: str) -> str:
    """A group as somebody else writes it: other case, more blanks, accents as characters of their own."""
    words = [draw(st.sampled_from((word, word.upper(), word.title()))) for word in group.split()]
    text = draw(BLANKS).join(words)
    return draw(MARGINS) + unicodedata.normalize(draw(st.sampled_from(("NFC", "NFD"))), text) + draw(MARGINS)


Row = tuple[int, str, str]
"""Number of a group, how it is written, its split."""


@st.composite
def tables(draw: st.DrawFn) -> list[list[Row]]:
    """Up to 3 tables of up to 3 rows, of two or three groups; most rows keep to the split of their group."""
    of = draw(st.lists(st.integers(0, len(GROUPS) - 1), min_size=2, max_size=3, unique=True))
    own = {group: draw(st.sampled_from(SPLITS)) for group in of}

    def row() -> Row:
        group = draw(st.sampled_from(of))
        split = draw(st.sampled_from(SPLITS)) if draw(st.integers(0, 5)) == 0 else own[group]
        return group, draw(spelling(GROUPS[group])), split

    return [[row() for _ in range(draw(st.integers(1, 3)))] for _ in range(draw(st.integers(1, 3)))]


def is_clean(rows: Sequence[Row]) -> bool:
    """Whether each group is in one split."""
    return len({group for group, _, _ in rows}) == len({(group, split) for group, _, split in rows})


def cohort_of(folder: Path, rows: Sequence[Row]) -> list[CohortSlide]:
    """The table, read; a slide's name tells whose it is, whatever stands under “group”."""
    lines = [f'{group}-{number}.tif,a,"{written}",{split}' for number, (group, written, split) in enumerate(rows)]
    (folder / "c.csv").write_text("\n".join(["slide,annotations,group,split", *lines]), encoding="utf-8")
    return read_cohort(folder / "c.csv")


def data_set(folder: Path, slides: Sequence[CohortSlide]) -> Dataset:
    """What a build makes of a table, with one patch of 1 px of each slide."""
    (folder / "patches").mkdir()
    rows = []
    for number, slide in enumerate(slides):
        shard = shard_name(number, slide.slide.name)
        np.save(folder / "patches" / shard, np.zeros((1, 1, 1, 3), np.uint8))
        rows.append({"split": slide.split, "shard": shard, "row": 0, "label": 1, "slide": slide.slide.name, "group": slide.group})
    with (folder / "patches.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    notes = [{"slide": slide.slide.name, "split": slide.split, "fingerprint": str(slide.slide)} for slide in slides]
    manifest = {"schema_version": SCHEMA_VERSION, "mpp": 1.0, "patch": 1, "slides": notes}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return open_dataset(folder)


@settings(max_examples=300, deadline=None)
@given(tables())
def test_no_patch_of_a_group_is_in_two_splits(of_tables: list[list[Row]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        datasets = []
        for number, rows in enumerate(of_tables):
            place = Path(folder) / str(number)
            place.mkdir()
            try:
                slides = cohort_of(place, rows)
            except GroupInTwoSplitsError:
                assert not is_clean(rows), "groups of a table were taken for one that are two"
                return
            assert is_clean(rows), "a table has a group in two splits"
            datasets.append(data_set(place, slides))
        everything = [row for rows in of_tables for row in rows]
        try:
            splits = combine(datasets, 1.0, 1)
        except GroupInTwoSplitsError:
            assert not is_clean(everything), "groups of data sets were taken for one that are two"
            return
        assert is_clean(everything), "data sets have a group in two splits"
        found = {split: {Path(slide).name.split("-")[0] for slide in splits[split].slides} for split in SPLITS}
        assert not (found["train"] & found["val"] | found["train"] & found["test"] | found["val"] & found["test"])
        assert sum(map(len, splits.values())) == len(everything)
