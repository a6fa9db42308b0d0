from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from hepamap.errors import OutputNotWritableError, ResultDamagedError
from hepamap.training.studies.summary import grouped
from hepamap.training.studies.table import Row, RunTable


def row(name: str, repeat: int, auc: str, status: str = "ok") -> Row:
    return {"name": name, "repeat": str(repeat), "status": status, "auc": auc}


def table(path: Path) -> RunTable:
    return RunTable(path, ("name", "repeat"), ("status", "auc"))


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    first = table(tmp_path / "runs.csv")
    rows = [row("a", 1, "0.5"), row('with "quotes", commas\nand lines', 1, "0.75"), row("a", 2, "", "failed")]
    for one in rows:
        first.add(one)
    again = table(tmp_path / "runs.csv")
    assert again.rows == rows
    assert again.get(("a", "2")) == rows[2]
    assert again.get(("b", "1")) is None
    again.add(row("a", 2, "0.9"))
    assert [one["auc"] for one in table(tmp_path / "runs.csv").rows] == ["0.5", "0.75", "0.9"]
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_a_row_that_cannot_be_written_leaves_the_table_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.csv"
    runs = table(path)
    runs.add(row("a", 1, "0.5"))
    before = path.read_bytes()

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputNotWritableError, match="No space left"):
        runs.add(row("b", 1, "0.6"))
    assert path.read_bytes() == before
    assert len(runs.rows) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,repeat,status\na,1,ok\n", "columns"),
        ("", "columns"),
        ("name,repeat,status,auc\na,1,ok\n", "line 2 is not whole"),
        ("name,repeat,status,auc\na,1,ok,0.5,7\n", "line 2 is not whole"),
        ("name,repeat,status,auc\na,1,ok,0.5\nb,1,o", "line 3 is not whole"),
        ("name,repeat,status,auc\na,1,ok,0.5\na,1,ok,0.6\n", "line 3 names a run"),
        ('name,repeat,status,auc\n"a,1,ok,0.5\n', "cannot be used"),
        ("name,repeat,status,auc\na,1,\udcff,0.5\n", "cannot be used"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "runs.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ResultDamagedError, match=said):
        table(tmp_path / "runs.csv")


def test_runs_together_give_known_numbers() -> None:
    rows = [row("a", 1, "0.5"), row("b", 1, "0.9"), row("a", 2, "0.7"), row("a", 3, "0.9"), row("a", 4, "", "failed")]
    a, b = grouped(rows, ("name",))
    spread = a.of("auc")
    assert (a.key, len(a.rows), a.failed) == (("a",), 3, 1)
    assert spread.mean == pytest.approx(0.7)
    assert spread.deviation == pytest.approx(0.2)  # sqrt((0.04 + 0 + 0.04) / 2)
    assert (spread.lowest, spread.median, spread.highest) == (0.5, 0.7, 0.9)
    assert b.of("auc").mean == 0.9
    assert math.isnan(b.of("auc").deviation)
    assert [group.key for group in grouped(rows, ("name",), lambda key: (-ord(key[0]),))] == [("b",), ("a",)]
    (failed,) = grouped(rows[4:], ("name",))
    assert all(math.isnan(number) for number in (failed.of("auc").mean, failed.of("auc").lowest, failed.of("auc").median))


def test_what_is_no_number_is_left_out() -> None:
    (group,) = grouped([row("a", 1, "nan"), row("a", 2, ""), row("a", 3, "0.4")], ("name",))
    assert group.of("auc").values == (0.4,)
