"""What the runs of a study say together (pure arithmetic)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hepamap.training.studies.table import OK, Key, Row


@dataclass(frozen=True, slots=True)
class Spread:
    """Some numbers together; NaN where there is none."""

    values: tuple[float, ...]
    """Those that are numbers."""

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def median(self) -> float:
        """Median."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the sample; NaN for fewer than two numbers."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def lowest(self) -> float:
        """Smallest."""
        return min(self.values, default=math.nan)

    @property
    def highest(self) -> float:
        """Largest."""
        return max(self.values, default=math.nan)


@dataclass(frozen=True, slots=True)
class Group:
    """The runs that share some columns."""

    key: Key
    rows: tuple[Row, ...]
    """Those that succeeded."""
    failed: int

    def of(self, column: str) -> Spread:
        """The numbers of a column."""
        numbers = [float(row[column]) for row in self.rows if row[column]]
        return Spread(tuple(number for number in numbers if math.isfinite(number)))


def grouped(rows: Sequence[Row], by: Sequence[str], order: Callable[[Key], tuple[int, ...]] | None = None) -> list[Group]:
    """Runs by the values of some columns, in the order of their first appearance or of `order`."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in by), []).append(row)
    keys = list(groups) if order is None else sorted(groups, key=order)
    return [
        Group(
            key,
            tuple(row for row in groups[key] if row["status"] == OK),
            sum(row["status"] != OK for row in groups[key]),
        )
        for key in keys
    ]
