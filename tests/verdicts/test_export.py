from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from sqlalchemy import Engine
from typer.testing import CliRunner

from hepamap.access.audit import AuditTrail
from hepamap.cli.app import app
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.geometry import PixelSize, Point
from hepamap.jobs.database import open_database
from hepamap.results import Frame
from hepamap.slide import Slide
from hepamap.training.areas import labelled_areas
from hepamap.training.build import DatasetSpec, build_dataset
from hepamap.training.cohort import read_cohort
from hepamap.verdicts.errors import NoVerdictsError
from hepamap.verdicts.export import export
from hepamap.verdicts.store import VerdictStore
from hepamap.verdicts.verdict import Decision, SlideFacts
from tests.conftest import write_tiff_slide
from tests.verdicts.opinions import box, say

TUMOUR = box(800, 0, 1600, 1200)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """What a database of either kind gives back is tested beside this."""
    engine = open_database(tmp_path / "jobs.sqlite3")
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> VerdictStore:
    return VerdictStore(engine)


def paint(path: Path, shade: int = 150, mpp: float | tuple[float, float] | None = 0.46) -> Path:
    """1600 × 1200 px, tissue with some texture."""
    image = np.random.default_rng(shade).integers(shade - 60, shade, (1200, 1600, 3)).astype(np.uint8)
    return write_tiff_slide(path, image, mpp)


def facts(
    path: Path,
    *,
    mpp_override_um: float | None = None,
    client_pixel_size: PixelSize | None = None,
    **values: object,
) -> SlideFacts:
    with Slide.open(path, mpp_override_um=mpp_override_um, client_pixel_size=client_pixel_size) as slide:
        own = SlideFacts(slide.fingerprint, str(path), slide.pixel_size, Frame("level0", Point(0.0, 0.0)), None, None)
    return replace(own, **values)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fate(folder: Path) -> list[tuple[str, str]]:
    return [(row["decision"], row["exported"]) for row in rows(folder / "verdicts.csv")]


def areas(folder: Path) -> tuple[BaseGeometry, BaseGeometry]:
    """Tumour and non-tumour of the one slide, as training reads them."""
    (row,) = read_cohort(folder / "cohort.csv")
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        found = labelled_areas(slide, row)
        return found.tumour_l0, found.non_tumour_l0


def test_training_reads_what_was_said(store: VerdictStore, tmp_path: Path) -> None:
    said = facts(paint(tmp_path / "a.tif"))
    say(store, "job-1", TUMOUR, said)
    done = export(store, tmp_path / "out", split="train")
    assert (done.verdicts, done.slides, done.accepted, done.edited, done.left_out) == (1, 1, 0, 1, {})
    tumour, non_tumour = areas(tmp_path / "out")
    assert tumour.equals(TUMOUR)
    assert non_tumour.equals(shapely.box(0, 0, 1600, 1200).difference(TUMOUR))
    (row,) = rows(tmp_path / "out" / "cohort.csv")
    assert (row["frame"], row["mpp"], row["split"], row["unannotated"]) == ("level0", "", "train", "ignore")
    spec = DatasetSpec(mpp=1.84, patch_m=64, per_class={"train": 3})
    dataset = build_dataset(tmp_path / "out" / "cohort.csv", tmp_path / "dataset", spec)
    assert [row["label"] for row in rows(dataset.folder / "patches.csv")].count("1") == 3


def test_a_rejected_result_is_in_the_list_and_never_in_the_truth(store: VerdictStore, tmp_path: Path) -> None:
    one, other = facts(paint(tmp_path / "a.tif")), facts(paint(tmp_path / "b.tif", 140))
    say(store, "job-1", TUMOUR, one, decision=Decision.ACCEPTED)
    say(store, "job-1", None, one, reason="=HYPERLINK(1)", user="@me")
    say(store, "job-2", None, other, reason="No.")
    say(store, "job-3", TUMOUR, other)
    done = export(store, tmp_path / "out")
    assert done.left_out == {"rejected": 2, "superseded": 1}
    assert fate(tmp_path / "out") == [
        ("accepted", "superseded"),
        ("rejected", "rejected"),
        ("rejected", "rejected"),
        ("edited", "yes"),
    ]
    assert [row["slide"] for row in rows(tmp_path / "out" / "cohort.csv")] == [other.path]
    written = rows(tmp_path / "out" / "verdicts.csv")
    assert (written[1]["reason"], written[1]["user"], written[1]["iou"]) == ("'=HYPERLINK(1)", "'@me", "")
    assert len(list((tmp_path / "out" / "annotations").iterdir())) == 1


def test_several_analyses_of_one_slide_become_one_row(store: VerdictStore, tmp_path: Path) -> None:
    said = facts(paint(tmp_path / "a.tif"))
    left, right = box(0, 0, 800, 1200), box(800, 0, 1600, 1200)
    say(store, "job-1", box(100, 100, 300, 300), replace(said, region_l0=mapping(left)))
    say(store, "job-2", box(900, 100, 1000, 300), replace(said, region_l0=mapping(right)), decision=Decision.ACCEPTED)
    done = export(store, tmp_path / "out")
    assert (done.slides, done.accepted, done.edited) == (1, 1, 1)
    tumour, non_tumour = areas(tmp_path / "out")
    assert tumour.area == 200 * 200 + 100 * 200
    assert non_tumour.area == 1600 * 1200 - tumour.area


def test_a_pixel_size_that_was_given_goes_along(store: VerdictStore, tmp_path: Path) -> None:
    path = paint(tmp_path / "a.tif")
    say(store, "job-1", TUMOUR, facts(path, pixel_size=PixelSize(0.5, 0.5)))
    export(store, tmp_path / "out")
    assert rows(tmp_path / "out" / "cohort.csv")[0]["mpp"] == "0.5"


@pytest.mark.parametrize("stated", [None, 25_400 / 72])
def test_a_slide_with_no_pixel_size_or_a_senseless_one_takes_the_verdicts(
    store: VerdictStore, tmp_path: Path, stated: float | None
) -> None:
    path = paint(tmp_path / "a.tif", mpp=stated)
    say(store, "job-1", TUMOUR, facts(path, mpp_override_um=0.5))
    done = export(store, tmp_path / "out")
    assert (done.slides, done.left_out) == (1, {})
    assert rows(tmp_path / "out" / "cohort.csv")[0]["mpp"] == "0.5"
    assert areas(tmp_path / "out")[0].equals(TUMOUR)


@pytest.mark.parametrize(
    ("stated", "given", "mpp"),
    [
        (None, (0.4, 0.5), None),  # one number for both sides, √0.2 = 0.447 µm, is 11.8 % too large and 10.6 % too small
        (None, (0.5, 0.4), None),
        (None, (0.5, 0.511), None),
        (None, (0.5, 0.509), "0.50448"),  # √(0.5 · 0.509), 0.9 % off
        ((0.4, 0.5), (0.4, 0.5), ""),
    ],
)
def test_pixels_that_are_not_square_are_left_out_unless_the_slide_says_so_itself(
    store: VerdictStore,
    tmp_path: Path,
    stated: tuple[float, float] | None,
    given: tuple[float, float],
    mpp: str | None,
) -> None:
    path = paint(tmp_path / "a.tif", mpp=stated)
    say(store, "job-1", TUMOUR, facts(path, client_pixel_size=PixelSize(*given)))
    done = export(store, tmp_path / "out")
    assert [row["mpp"] for row in rows(tmp_path / "out" / "cohort.csv")] == ([] if mpp is None else [mpp])
    assert done.left_out == ({"pixels_not_square": 1} if mpp is None else {})


def test_a_slide_that_is_gone_or_another_one_is_left_out_and_said(store: VerdictStore, tmp_path: Path) -> None:
    gone, replaced, there = (paint(tmp_path / name, shade) for name, shade in (("a.tif", 100), ("b.tif", 110), ("c.tif", 120)))
    for number, path in enumerate((gone, replaced, there)):
        say(store, f"job-{number}", TUMOUR, facts(path))
    gone.unlink()
    paint(replaced, 130)
    done = export(store, tmp_path / "out")
    assert (done.slides, done.left_out) == (1, {"slide_not_found": 1, "slide_replaced": 1})


@pytest.mark.parametrize("decision", [Decision.EDITED, Decision.REJECTED])
def test_a_slide_is_looked_for_wherever_a_verdict_saw_it(store: VerdictStore, tmp_path: Path, decision: Decision) -> None:
    kept, upload, replaced = paint(tmp_path / "a.tif"), tmp_path / "upload.tif", tmp_path / "b.tif"
    said = facts(kept)
    say(store, "job-1", TUMOUR if decision is Decision.EDITED else None, said, decision=decision)
    say(store, "job-2", TUMOUR, replace(said, path=str(paint(replaced, 130))))
    newest = say(store, "job-3", TUMOUR, replace(said, path=str(upload)))
    for name, since in (("all", None), ("new", newest.at)):
        done = export(store, tmp_path / name, since=since)
        (row,) = rows(tmp_path / name / "cohort.csv")
        assert (row["slide"], done.slides) == (str(kept), 1)
        assert "slide_not_found" not in done.left_out
    kept.unlink()
    left_out = {"slide_not_found": 3} if decision is Decision.EDITED else {"rejected": 1, "slide_not_found": 2}
    assert export(store, tmp_path / "none").left_out == left_out


def test_slides_of_one_case_are_one_group_and_stay_in_their_split(store: VerdictStore, tmp_path: Path) -> None:
    for number in range(12):
        path = paint(tmp_path / f"{number}.tif", 100 + number)
        say(store, f"job-{number}", TUMOUR, facts(path, case=f"case-{number // 2}"))
    export(store, tmp_path / "one")
    export(store, tmp_path / "two", since=store.of_job("job-6")[0].at)
    read_cohort(tmp_path / "one" / "cohort.csv")  # refuses a group in two splits
    first, second = ({row["slide"]: row["split"] for row in rows(tmp_path / name / "cohort.csv")} for name in ("one", "two"))
    assert (len(first), len(second)) == (12, 6)
    assert {slide: first[slide] for slide in second} == second
    assert len(set(first.values())) > 1


@pytest.mark.parametrize("decision", [Decision.ACCEPTED, Decision.REJECTED])
def test_a_slide_stays_with_its_case_when_a_later_verdict_names_none(
    store: VerdictStore, tmp_path: Path, decision: Decision
) -> None:
    said = facts(paint(tmp_path / "a.tif"))
    area = None if decision is Decision.REJECTED else TUMOUR
    say(store, "job-1", TUMOUR, replace(said, case="case-0"))
    say(store, "job-1", area, replace(said, case="case-1"), decision=decision)
    newest = say(store, "job-2", TUMOUR, said)
    export(store, tmp_path / "all")
    export(store, tmp_path / "new", since=newest.at)
    for name in ("all", "new"):
        (row,) = rows(tmp_path / name / "cohort.csv")
        assert row["group"] == "case-1"
        # SHA-256 of “case-1” begins with ba22, 0.727 of the way to ffff: between 0.7 and 0.85 is validation.
        assert row["split"] == "val"


def test_a_slide_that_was_for_test_stays_there_when_its_case_is_named(store: VerdictStore, tmp_path: Path) -> None:
    """SHA-256 of “case-0” begins with 8054, half of the way to ffff: that is training, and so its other slides were."""
    said = {name: facts(paint(tmp_path / name, 100 + int(name))) for name in map(str, range(9))}
    for name, slide in said.items():
        say(store, f"job-{name}", TUMOUR, slide)
    export(store, tmp_path / "before")
    tested = next(row["slide"] for row in rows(tmp_path / "before" / "cohort.csv") if row["split"] == "test")
    say(store, "job-10", TUMOUR, facts(paint(tmp_path / "10", 110), case="case-0"))
    export(store, tmp_path / "before", overwrite=True)
    assert {row["split"] for row in rows(tmp_path / "before" / "cohort.csv") if row["group"] == "case-0"} == {"train"}
    say(store, "job-11", TUMOUR, facts(Path(tested), case="case-0"))
    export(store, tmp_path / "after")
    read_cohort(tmp_path / "after" / "cohort.csv")  # refuses a group in two splits
    case = {row["slide"]: row["split"] for row in rows(tmp_path / "after" / "cohort.csv") if row["group"] == "case-0"}
    assert case == {tested: "test", str(tmp_path / "10"): "test"}


def test_only_an_earlier_export_is_replaced(store: VerdictStore, tmp_path: Path) -> None:
    with pytest.raises(NoVerdictsError):
        export(store, tmp_path / "out")
    verdict = say(store, "job-1", TUMOUR, facts(paint(tmp_path / "a.tif")))
    with pytest.raises(NoVerdictsError):
        export(store, tmp_path / "out", since=verdict.at + timedelta(seconds=1))
    export(store, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="is there already"):
        export(store, tmp_path / "out")
    export(store, tmp_path / "out", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("Mine.")
    with pytest.raises(OutputExistsError, match="no export of verdicts"):
        export(store, tmp_path / "mine", overwrite=True)
    assert not list(tmp_path.glob(".*.partial"))


class Killed(BaseException):
    """What no code handles."""


@pytest.mark.parametrize(("end", "told"), [(OSError(errno.EIO, "gone"), OutputNotWritableError), (Killed(), Killed)])
def test_an_earlier_export_outlives_whatever_ends_the_new_one(
    store: VerdictStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException, told: type[BaseException]
) -> None:
    said = facts(paint(tmp_path / "a.tif"))
    say(store, "job-1", TUMOUR, said)
    export(store, tmp_path / "out")
    before = (tmp_path / "out" / "verdicts.csv").read_bytes()
    say(store, "job-2", TUMOUR, said)
    rename = os.rename

    def end_at_the_new_one(source: Path, target: Path) -> None:
        if Path(source).suffix == ".partial":
            raise end
        rename(source, target)

    monkeypatch.setattr(os, "rename", end_at_the_new_one)
    with pytest.raises(told):
        export(store, tmp_path / "out", overwrite=True)
    # After an error in its place, after a kill beside it.
    assert [path.read_bytes() for path in tmp_path.rglob("verdicts.csv")] == [before]
    assert (tmp_path / "out").exists() == isinstance(end, OSError)


def test_the_folder_that_one_is_in_is_not_replaced(store: VerdictStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(store, "job-1", TUMOUR, facts(paint(tmp_path / "a.tif")))
    export(store, tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for folder in (Path(), tmp_path / "out"):
        with pytest.raises(OutputExistsError, match="the folder that you are in"):
            export(store, folder, overwrite=True)
    assert len(rows(tmp_path / "out" / "verdicts.csv")) == 1


def test_the_command_exports_and_writes_it_down(
    engine: Engine, store: VerdictStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEPAMAP_DATABASE_URL", raising=False)
    say(store, "job-1", TUMOUR, facts(paint(tmp_path / "a.tif")), decision=Decision.ACCEPTED)
    arguments = [
        "verdicts",
        "export",
        str(tmp_path / "out"),
        "--data-dir",
        str(tmp_path),
        "--split",
        "test",
        "--since",
        "2020-01-01",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "1 verdicts; 0 edited and 1 accepted in the annotations of 1 slides" in result.output
    assert "looks better than it is" in result.output
    assert rows(tmp_path / "out" / "cohort.csv")[0]["split"] == "test"
    assert [entry.event.action for entry in AuditTrail(engine).entries()] == ["verdicts.export"]
    collection = json.loads(next((tmp_path / "out" / "annotations").iterdir()).read_text())
    assert {feature["properties"]["classification"]["name"] for feature in collection["features"]} == {"Tumor", "Non-tumor"}
