"""How fast this machine is, and how near to what it could be: `hepamap bench`. Ratios within one run, never bare times."""

from __future__ import annotations

from hepamap.benchmark.report import BenchmarkReport, ModeReport, markdown
from hepamap.benchmark.run import run_benchmark

__all__ = ["BenchmarkReport", "ModeReport", "markdown", "run_benchmark"]
