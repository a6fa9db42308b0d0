from __future__ import annotations

from pathlib import Path

import pytest

from hepamap.training.cohort import CohortSlide, read_cohort
from hepamap.training.errors import CohortInvalidError, GroupInTwoSplitsError

HEADER = "slide,annotations,group,split\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    slides = read_cohort(write(tmp_path, HEADER + "a.svs,x/a.geojson,p1,train\n/s/b.svs,b.geojson,p2,val\n"))
    assert slides[0] == CohortSlide(tmp_path / "a.svs", tmp_path / "x/a.geojson", "p1", "train")
    assert slides[1].slide == Path("/s/b.svs")


def test_semicolons_optional_columns_and_byte_order_mark(tmp_path: Path) -> None:
    header = "\ufeffslide;annotations;group;split;unannotated;frame;mpp\n"
    text = header + "a.svs;a.json;p;test;non_tumour;level0;0.25\nb.svs;b.json;q;val;;;\n"
    first, second = read_cohort(write(tmp_path, text))
    assert (first.unannotated, first.frame, first.mpp_override_um) == ("non_tumour", "level0", 0.25)
    assert (second.unannotated, second.frame, second.mpp_override_um) == ("ignore", "qupath", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column “slide”"),
        (HEADER, "has no slides"),
        ("slide,annotations,group\na,b,c\n", "no column “split”"),
        ("slide,annotations,group,split,colour\n", "unknown column “colour”"),
        (HEADER + "a.svs,,p,train\n", "Line 2 .* nothing under “annotations”"),
        (HEADER + "a.svs,a.json,p,train\nb.svs,b.json,q,dev\n", "Line 3 .* “dev” under “split”"),
        ("slide,annotations,group,split,mpp\na.svs,a.json,p,train,big\n", "“big” under “mpp”"),
        (HEADER + "a.svs,a.json,p,train\na.svs,b.json,p,train\n", r"a\.svs stands twice"),
        (HEADER + "a.svs,a.json,p,train\nx/../a.svs,b.json,q,test\n", r"a\.svs stands twice"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CohortInvalidError, match=message) as caught:
        read_cohort(write(tmp_path, text))
    assert caught.value.cure


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GroupInTwoSplitsError, match="“p1” stand in train and val"):
        read_cohort(write(tmp_path, HEADER + "a.svs,a.json,p1,train\nb.svs,b.json,p1,val\n"))


def test_a_slide_is_one_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "b.svs").symlink_to("a.svs")
    with pytest.raises(CohortInvalidError, match=r"b\.svs stands twice"):
        read_cohort(write(tmp_path, HEADER + "a.svs,a.json,p1,train\nb.svs,b.json,p2,test\n"))


def test_a_group_is_one_in_whatever_spelling(tmp_path: Path) -> None:
    with pytest.raises(GroupInTwoSplitsError, match="“Patient 1” stand in train and val"):
        read_cohort(write(tmp_path, HEADER + "a.svs,a.json,Patient 1,train\nb.svs,b.json,patient  1,val\n"))
    slides = read_cohort(write(tmp_path, HEADER + "a.svs,a.json,Patient 1,val\nb.svs,b.json,patient  1 ,val\n"))
    assert [slide.group for slide in slides] == ["Patient 1", "Patient 1"]  # one patient when intervals are drawn


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortInvalidError, match=r"cohort\.csv cannot be read"):
        read_cohort(tmp_path / "cohort.csv")
