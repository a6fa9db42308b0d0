"""The finished runs of a study: a CSV file that is replaced as a whole with every new row."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from hepamap.errors import OutputNotWritableError, ResultDamagedError

Row = dict[str, str]
Key = tuple[str, ...]

OK, FAILED = "ok", "failed"
"""What the column `status` says."""


class RunTable:
    """Rows by key; what is on disk is always whole."""

    def __init__(self, path: Path, key_columns: Sequence[str], value_columns: Sequence[str]) -> None:
        """Read what is there.

        Raises:
            ResultDamagedError: the file has other columns, a row that is not whole, or the same run twice.
        """
        self.path = path
        self.key_columns = tuple(key_columns)
        self.columns = (*key_columns, *value_columns)
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._read()

    @property
    def rows(self) -> list[Row]:
        """In the order in which the runs were finished."""
        return list(self._rows.values())

    def get(self, key: Key) -> Row | None:
        """The row of a run; None where it is not finished."""
        return self._rows.get(key)

    def add(self, row: Row) -> None:
        """Add or replace a run, and write the file.

        Raises:
            OutputNotWritableError: the disk is full or the folder not writable; the file is as it was.
        """
        assert set(row) == set(self.columns)
        rows = {**self._rows, self._key(row): row}
        write_csv(self.path, self.columns, list(rows.values()))
        self._rows = rows

    def _key(self, row: Row) -> Key:
        return tuple(row[column] for column in self.key_columns)

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                names, rows = tuple(reader.fieldnames or ()), list(reader)
        except (OSError, ValueError, csv.Error) as error:
            raise self._damaged(str(error)) from error
        if names != self.columns:
            raise self._damaged("its columns are not those of this study")
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values() or row["status"] not in (OK, FAILED):
                raise self._damaged(f"line {number} is not whole")
            if self._key(row) in self._rows:
                raise self._damaged(f"line {number} names a run that stands above it")
            self._rows[self._key(row)] = row

    def _damaged(self, what: str) -> ResultDamagedError:
        return ResultDamagedError(
            f"The table {self.path.parent.name}/{self.path.name} cannot be used: {what}.",
            cure="Repair it, or name another folder with --out.",
        )


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a table whole or not at all.

    Raises:
        OutputNotWritableError: the disk is full or the folder not writable.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise not_writable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all.

    Raises:
        OutputNotWritableError: the disk is full or the folder not writable.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise not_writable(path, error) from error


def not_writable(path: Path, error: OSError) -> OutputNotWritableError:
    """The error of a file that cannot be written."""
    return OutputNotWritableError(
        f"The file {path.parent.name}/{path.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
    )
