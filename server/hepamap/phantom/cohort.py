"""Sets of synthetic slides with their table, as `hepamap dataset build` and `hepamap evaluate` read it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from hepamap.errors import OutputNotWritableError
from hepamap.phantom.spec import Kind, PhantomSpec
from hepamap.phantom.writer import write_phantom

Preset = Literal["training", "held-out", "experiment"]
TABLE_NAME = "cohort.csv"
KIND_TABLES: dict[Kind, str] = {"resection": "resections.csv", "biopsy": "biopsies.csv"}
"""Tables of one kind of slide each, which the preset `experiment` has too."""

_SIZES_UM: dict[Kind, tuple[float, float]] = {"resection": (3200.0, 2400.0), "biopsy": (8000.0, 2400.0)}
_HELD_OUT_MPP = (0.23, 0.2527, 0.46, 0.5)
# Mostly 20X: the finer slides cost four times the pixels and look the same at 5X and 10X.
_TRAINING_MPP = (0.46, 0.5, 0.46, 0.5, 0.46, 0.2527)
_COUNTS: dict[str, dict[Kind, int]] = {
    "train": {"resection": 44, "biopsy": 16},
    "val": {"resection": 6, "biopsy": 3},
    "test": {"resection": 6, "biopsy": 3},
}
# Seeds of the splits never meet, so neither do their tissue, stain or scanner.
_FIRST_SEED = {"train": 10_000, "val": 20_000, "test": 30_000, "held-out": 40_000}

# The experiment, after the paper: resections of tumours with two sections each, split by tumour; biopsies for the test only.
_TUMOURS = {"train": 13, "val": 3, "test": 4}
_BIOPSIES = 10
_EXPERIMENT_SIZES_UM: dict[Kind, tuple[float, float]] = {"resection": (4000.0, 3000.0), "biopsy": (8000.0, 2400.0)}
_EXPERIMENT_MPP = (0.46, 0.5, 0.46, 0.46, 0.5, 0.46, 0.2527, 0.46, 0.5, 0.46, 0.23)
_STAINS = 8
"""Of all resections. Biopsies come from elsewhere: each has its own."""
_BYTES_PER_PX = 0.25  # of a pyramid in JPEG; those of the experiment take 0.15
_FIRST_SECTION, _FIRST_BIOPSY, _FIRST_TUMOUR, _FIRST_STAIN = 50_000, 51_000, 52_000, 53_000


@dataclass(frozen=True, slots=True)
class CohortEntry:
    """One slide of a set."""

    name: str
    split: str
    spec: PhantomSpec
    group: str = ""
    """Slides of the same tumour; empty: this one alone."""


def cohort_entries(preset: Preset) -> list[CohortEntry]:
    """The slides of a set; always the same."""
    make = {"training": _training_entries, "held-out": _held_out_entries, "experiment": _experiment_entries}
    return list(make[preset]())


def write_cohort(
    folder: Path, preset: Preset, *, workers: int = 2, progress: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write the slides, their truth and the table; slides that are there already are kept.

    Args:
        folder: where to.
        preset: which set.
        workers: processes that paint side by side.
        progress: told how many slides of all are done.

    Returns:
        The table.

    Raises:
        OutputNotWritableError: the disk has no room for the slides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = cohort_entries(preset)
    missing = [entry for entry in entries if not (folder / f"{entry.name}.geojson").exists()]
    _require_room(folder, missing)
    done = len(entries) - len(missing)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_write, [folder] * len(missing), missing):
            done += 1
            progress(done, len(entries))
    if preset == "experiment":
        for kind, name in KIND_TABLES.items():
            _write_table(folder / name, [entry for entry in entries if entry.spec.kind == kind])
    return _write_table(folder / TABLE_NAME, entries)


def _require_room(folder: Path, missing: list[CohortEntry]) -> None:
    pixels = sum(entry.spec.size_l0.width * entry.spec.size_l0.height for entry in missing)
    needed, free = _BYTES_PER_PX * pixels, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputNotWritableError(
            f"The slides may need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free.",
            cure="Free space, or name a folder on a larger disk; slides that are there are kept.",
        )


def _training_entries() -> Iterator[CohortEntry]:
    for split, counts in _COUNTS.items():
        seed = _FIRST_SEED[split]
        for kind, count in counts.items():
            for _ in range(count):
                width_um, height_um = _SIZES_UM[kind]
                mpp = _TRAINING_MPP[seed % len(_TRAINING_MPP)]
                yield CohortEntry(f"{split}-{kind}-{seed}", split, PhantomSpec(kind, width_um, height_um, mpp, seed=seed))
                seed += 1


def _held_out_entries() -> Iterator[CohortEntry]:
    seed = _FIRST_SEED["held-out"]
    for mpp in _HELD_OUT_MPP:
        for kind, (width_um, height_um) in _SIZES_UM.items():
            yield CohortEntry(f"{kind}-{mpp:g}", "test", PhantomSpec(kind, width_um, height_um, mpp, seed=seed))
            seed += 1


def _experiment_entries() -> Iterator[CohortEntry]:
    """Two sections of each tumour: the same cells and patterns, another cut, stain and scanner; then the biopsies."""
    number = 0
    width_um, height_um = _EXPERIMENT_SIZES_UM["resection"]
    splits = [split for split, count in _TUMOURS.items() for _ in range(count)]
    for tumour, split in enumerate(splits):
        for section in "ab":
            spec = PhantomSpec(
                "resection",
                width_um,
                height_um,
                _EXPERIMENT_MPP[number % len(_EXPERIMENT_MPP)],
                seed=_FIRST_SECTION + number,
                stain=_FIRST_STAIN + (tumour + (section == "b") * _STAINS // 2) % _STAINS,
                tumour=_FIRST_TUMOUR + tumour,
            )
            yield CohortEntry(f"tumour-{tumour + 1:02d}{section}", split, spec, f"tumour-{tumour + 1:02d}")
            number += 1
    width_um, height_um = _EXPERIMENT_SIZES_UM["biopsy"]
    for biopsy in range(_BIOPSIES):
        mpp = _EXPERIMENT_MPP[biopsy % len(_EXPERIMENT_MPP)]
        yield CohortEntry(
            f"biopsy-{biopsy + 1:02d}", "test", PhantomSpec("biopsy", width_um, height_um, mpp, seed=_FIRST_BIOPSY + biopsy)
        )


def _write(folder: Path, entry: CohortEntry) -> None:
    """Write one slide; the truth last, so that a slide with a truth is whole."""
    slide = folder / f"{entry.name}.tif"
    partial = folder / f".{entry.name}.partial.tif"
    truth = folder / f".{entry.name}.partial.geojson"
    write_phantom(entry.spec, partial, truth)
    partial.replace(slide)
    truth.replace(folder / f"{entry.name}.geojson")


def _write_table(path: Path, entries: list[CohortEntry]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("slide", "annotations", "group", "split", "unannotated"))
        for entry in entries:
            # On biopsies only the tumour is drawn: what is not annotated is not tumour.
            unannotated = "non_tumour" if entry.spec.kind == "biopsy" else "ignore"
            table.writerow((f"{entry.name}.tif", f"{entry.name}.geojson", entry.group or entry.name, entry.split, unannotated))
    return path
