"""`hepamap dataset build` as a script sees it: standard error and the status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hepamap.cli.app import app
from hepamap.errors import ParameterError
from hepamap.training.dataset import open_dataset
from hepamap.training.errors import DatasetEmptyError, PatchesTooFewError

from .conftest import SIDE, box, feature, toy_pixels, write_slide


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tumour that was drawn, all but a corner is glass; there is no slide for the test."""
    folder = tmp_path_factory.mktemp("glass")
    lines = ["slide,annotations,group,split"]
    drawn = [feature([box(580, 0, 768, SIDE)], classification="Tumor"), feature([box(0, 0, 580, SIDE)], classification="Normal")]
    text = json.dumps({"type": "FeatureCollection", "features": drawn})
    for number, split in enumerate(("train", "val")):
        pixels = toy_pixels(number)
        pixels[200:, 580:] = 255
        write_slide(folder / f"s{number}.tif", pixels)
        (folder / f"s{number}.geojson").write_text(text, encoding="utf-8")
        lines.append(f"s{number}.tif,s{number}.geojson,p{number},{split}")
    (folder / "c.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "c.csv"


def build(table: Path, out: Path, *options: object) -> Result:
    words = ["dataset", "build", table, "--out", out, "--mpp", 1.84, "--patch", 64, "--workers", 1, *options]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_fewer_than_asked_for_is_seen_by_a_script(table: Path, tmp_path: Path) -> None:
    done = build(table, tmp_path / "set", "--train", 180, "--val", 4)
    assert done.exit_code == 3
    found = open_dataset(tmp_path / "set").manifest["patches_per_class"]["train"]
    assert 0 < found < 180
    said = rf"train: {found} patches of each class were found \({found} of tumour, 180 of non-tumour\), 180 were asked for\."
    assert re.search(rf"error: The data set was written.* {said} \[patches_too_few\]\n  .*--fewer", done.stderr)
    assert "test: c.csv has no slide of this split; it is left out." in done.stderr
    assert re.search(f"warning: {said}", done.stdout)
    again = build(table, tmp_path / "set", "--train", 180, "--val", 4, "--fewer", "--overwrite")
    assert (again.exit_code, "error" in again.stderr) == (0, False)
    assert re.search(f"warning: {said}", again.stdout)


def test_splits_are_left_out_by_zero_and_missed_where_they_were_asked_for(table: Path, tmp_path: Path) -> None:
    done = build(table, tmp_path / "set", "--train", 4, "--val", 0, "--test", 0)
    assert (done.exit_code, done.stderr) == (0, "")
    assert open_dataset(tmp_path / "set").manifest["patches_per_class"] == {"train": 4}
    missed = build(table, tmp_path / "other", "--train", 4, "--val", 4, "--test", 4)
    assert isinstance(missed.exception, DatasetEmptyError)
    nothing = build(table, tmp_path / "other", "--train", 0, "--val", 0)
    assert isinstance(nothing.exception, ParameterError)
    much = build(table, tmp_path / "other", "--train", 4000)
    assert isinstance(much.exception, PatchesTooFewError)
    assert build(table, tmp_path / "other", "--train", -1).exit_code == 2
    assert not (tmp_path / "other").exists()
