"""Annotated slides to a data set: what `hepamap dataset build` does.

Slides are drawn side by side in any number of processes, with the same bytes. What is finished of each slide is kept in a folder
beside the data set, so that a build that was stopped goes on where it was. Given other numbers, too: slides of which the same
number is asked are not drawn again.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hepamap import __version__
from hepamap.errors import HepamapError, OutputExistsError, OutputNotWritableError
from hepamap.folders import is_anchored, put_in_place
from hepamap.training.build_slide import Draw, SlideJob, draw, draw_fields, draw_masks, keep_rows, slide_job
from hepamap.training.build_spec import CLASS_NAMES, DRAW_FOLDER, DatasetSpec
from hepamap.training.cohort import SPLITS, read_cohort, require_one_split
from hepamap.training.dataset import (
    COLUMNS,
    MANIFEST_NAME,
    MASK_FOLDER,
    SCHEMA_VERSION,
    SHARD_FOLDER,
    TABLE_NAME,
    Dataset,
    open_dataset,
)
from hepamap.training.errors import DatasetEmptyError, DatasetInvalidError
from hepamap.training.field_sampling import Row, choose_fields
from hepamap.training.fields import FIELD_COLUMNS, FIELD_FOLDER, FIELD_TABLE, MARGIN_M, UNIT_M, field_side_m, labels_path
from hepamap.training.foresee import offering, require_slides, within_reach
from hepamap.training.patches import TUMOUR
from hepamap.training.pixel_masks import MEDIAN_M
from hepamap.training.pool import run_all
from hepamap.training.quotas import fill
from hepamap.training.sampling import Sampler

__all__ = ["BuildProgress", "DatasetSpec", "build_dataset"]

_PIECES = (DRAW_FOLDER, FIELD_FOLDER, MASK_FOLDER)
"""Folders of what is finished of each slide; every file's name begins with the key of its `SlideJob`."""

Quotas = dict[tuple[str, int], dict[int, int]]
"""Patches by number of slide, by split and label."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is."""

    done: int
    """Slides finished."""
    total: int
    slide: str
    """The slide that was finished last, or nothing."""


def build_dataset(
    table: Path,
    out_dir: Path,
    spec: DatasetSpec,
    *,
    fewer: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Dataset:
    """Draw labelled patches from a cohort of annotated slides.

    Args:
        table: CSV of slides, see `hepamap.training.cohort`.
        out_dir: folder to write; appears whole or not at all. What a build that did not end has drawn is taken up where slides
            and annotations are still the same.
        spec: resolution, numbers, seed.
        fewer: take what there is where the annotations cannot hold as many patches as are asked for.
        workers: processes that draw side by side; the result does not depend on it.
        overwrite: replace a data set that is there; never anything else.
        progress: told after each slide.

    Returns:
        The data set. Where tissue or focus left fewer patches than were asked for, its manifest says so (`shortfalls`).

    Raises:
        CohortInvalidError, AnnotationError, SlideError: the input is at fault.
        DatasetEmptyError: a split has no patch of one class; before anything is drawn if the annotations show it.
        PatchesTooFewError: the annotations cannot hold as many; before anything is drawn.
        OutputError: something is in the folder, it cannot be written, or the disk is too small.
    """
    cohort = read_cohort(table)
    require_slides(spec, cohort, table.name)
    out_dir = out_dir.resolve()
    _require_free(out_dir, overwrite=overwrite)
    sampler = Sampler(spec.mpp, spec.patch_m, spec.seed)
    slides = [slide for slide in cohort if slide.split in spec.per_class]
    jobs = [slide_job(number, row, sampler, spec.classes) for number, row in enumerate(slides)]
    require_one_split((job.fingerprint, job.row.split, job.row.slide.name) for job in jobs)
    most, per_class = offering(spec, jobs), within_reach(spec, jobs, fewer=fewer)
    work_dir = out_dir.parent / f".{out_dir.name}.unfinished"
    try:
        _prepare(work_dir, jobs)
        made = _Build(spec, per_class, jobs, work_dir, workers, progress).run(most)
        _require_free(out_dir, overwrite=overwrite)  # hours may have passed
        put_in_place(made, out_dir)
    except OSError as error:
        raise OutputNotWritableError(
            f"The data set {out_dir.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error
    except HepamapError:
        if not any(work_dir.glob("*/*.json")):
            shutil.rmtree(work_dir, ignore_errors=True)  # nothing is finished that could be kept
        raise
    shutil.rmtree(work_dir, ignore_errors=True)
    return open_dataset(out_dir)


def _require_free(folder: Path, *, overwrite: bool) -> None:
    """Check that a data set may go into a folder; replacing means deleting, and only data sets are ever deleted.

    Raises:
        OutputExistsError: something else is there, or a data set that nobody asked to replace.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or is_anchored(folder):
        raise OutputExistsError(
            f"The data set cannot take the place of {folder}: it is a file, a mounted disk, or the folder that you are in.",
            cure="Name a folder that is not there yet.",
        )
    if not any(folder.iterdir()):
        return
    try:
        open_dataset(folder)
    except DatasetInvalidError as error:
        raise OutputExistsError(
            f"The folder {folder.name} is not empty, and what is in it is no data set of this version of hepamap.",
            cure="Name another folder.",
        ) from error
    if not overwrite:
        raise OutputExistsError(f"There is a data set in {folder.name} already.", cure="Name another folder, or add --overwrite.")


def _prepare(work_dir: Path, jobs: Sequence[SlideJob]) -> None:
    """Make the work folder, or keep of an earlier one what this build can use."""
    keys = {job.key for job in jobs}
    for kind in _PIECES:
        (work_dir / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((work_dir / kind).iterdir()):  # .json before .npy: no marker without its shard
            if path.name.partition("-")[0] not in keys:
                path.unlink()
    shutil.rmtree(work_dir / "dataset", ignore_errors=True)  # a half-written one of before


class _Build:
    """One run: asks slides for patches until there are enough, balances, writes."""

    def __init__(
        self,
        spec: DatasetSpec,
        per_class: dict[str, int],
        jobs: list[SlideJob],
        work_dir: Path,
        workers: int,
        progress: Callable[[BuildProgress], None],
    ) -> None:
        self._spec, self._per_class, self._jobs, self._work_dir, self._workers = spec, per_class, jobs, work_dir, workers
        self._progress = progress
        self._asked: dict[int, dict[int, int]] = {}
        self._draws: dict[int, Draw] = {}
        self._done, self._total = 0, len(jobs)

    def run(self, most: Mapping[tuple[str, int], Mapping[int, int]]) -> Path:
        """Draw from each slide of a split and class what it can hold at most, balance, write; returns the finished folder."""
        fill(most, {key: self._per_class[key[0]] for key in most}, self._ask)
        self._draw([job for job in self._jobs if self._draws[job.number].is_lost])
        drawn = [row for number in sorted(self._draws) for row in self._draws[number].rows]
        rows = self._balanced(drawn)
        folder = self._work_dir / "dataset"
        (folder / SHARD_FOLDER).mkdir(parents=True)
        # The fields' places come from the patches; the places of the patches in their shards change below.
        chosen = choose_fields(rows, self._spec.fields_per_class, self._spec.seed)
        self._write_shards(folder, rows)
        fields = self._fields(chosen, folder) if self._spec.fields else []
        if self._spec.masks:
            self._masks(rows, folder)
        _write_table(folder / TABLE_NAME, COLUMNS, rows)
        if self._spec.fields:
            _write_table(folder / FIELD_TABLE, FIELD_COLUMNS, fields)
        text = json.dumps(self._manifest(drawn, rows, fields), indent=1, ensure_ascii=False) + "\n"
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
        return folder

    def _ask(self, quotas: Quotas) -> Quotas:
        """Draw from every slide of which another number is wanted than before; answers what each slide has given."""
        wanted = {
            job.number: {label: quotas[job.row.split, label].get(job.number, 0) for label in CLASS_NAMES} for job in self._jobs
        }
        again = [job for job in self._jobs if wanted[job.number] != self._asked.get(job.number)]
        self._asked = wanted
        self._require_room(again)
        self._draw(again)
        return {key: {number: self._draws[number].count(key[1]) for number in quota} for key, quota in quotas.items()}

    def _draw(self, jobs: Sequence[SlideJob]) -> None:
        self._total = self._done + len(jobs)
        for job in jobs:
            if job.number in self._draws and self._draws[job.number].is_lost:
                self._draws[job.number].forget()
        calls = [(job, self._asked[job.number], self._work_dir / DRAW_FOLDER) for job in jobs]
        drawn = self._run(draw, calls, [job.row.slide.name for job in jobs])
        self._draws.update({job.number: result for job, result in zip(jobs, drawn, strict=True)})

    def _require_room(self, again: Sequence[SlideJob]) -> None:
        """Check the disk before slides are drawn: what this build uses of what is there already needs no room any more."""
        most = {number: len(drawn.rows) for number, drawn in self._draws.items()}
        most |= {job.number: sum(self._asked[job.number].values()) for job in again}
        pieces, needed = self._spec.disk_bytes(sum(most.values()), self._per_class)
        for kind, size in pieces.items():
            needed += max(0, size - sum(path.stat().st_size for path in (self._work_dir / kind).glob("*.npy")))
        free = shutil.disk_usage(self._work_dir).free
        if needed > free:
            raise OutputNotWritableError(
                f"The data set may need {needed / 1e9:.1f} GB more while it is made, but {free / 1e9:.1f} GB are free.",
                cure="Free space, ask for fewer patches or fields, or name a folder on a larger disk.",
            )

    def _run(self, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], names: Sequence[str]) -> list[Any]:
        def done(number: int) -> None:
            self._done += 1
            self._progress(BuildProgress(self._done, self._total, names[number]))

        return run_all(work, calls, self._workers, done)

    def _balanced(self, rows: Sequence[Row]) -> list[Row]:
        """As many patches of one class as of the other in each split, chosen at random."""
        rng = np.random.default_rng(self._spec.seed)
        kept: list[Row] = []
        for split in (split for split in SPLITS if split in self._per_class):
            of_class = [[row for row in rows if row["split"] == split and row["label"] == label] for label in CLASS_NAMES]
            count = min(self._per_class[split], *map(len, of_class))
            if count == 0:
                raise _no_patches(split, [CLASS_NAMES[i] for i, rows in enumerate(of_class) if not rows])
            for candidates in of_class:
                kept += [candidates[i] for i in np.sort(rng.permutation(len(candidates))[:count])]
        return kept

    def _write_shards(self, folder: Path, rows: Sequence[Row]) -> None:
        for job, of_slide in self._by_slide(rows):
            keep_rows(self._draws[job.number].shard, folder / SHARD_FOLDER / job.shard, of_slide)

    def _by_slide(self, rows: Sequence[Row]) -> list[tuple[SlideJob, list[Row]]]:
        of_shard: dict[str, list[Row]] = {}
        for row in rows:
            of_shard.setdefault(row["shard"], []).append(row)
        return [(job, of_shard[job.shard]) for job in self._jobs if job.shard in of_shard]

    def _fields(self, chosen: Sequence[Row], folder: Path) -> list[Row]:
        found = self._pieces(draw_fields, FIELD_FOLDER, chosen, folder)
        for job, (shard, _) in found:
            shutil.copyfile(shard, folder / FIELD_FOLDER / job.shard)
            shutil.copyfile(labels_path(shard), labels_path(folder / FIELD_FOLDER / job.shard))
        return [row for _, (_, rows) in found for row in rows]

    def _masks(self, rows: Sequence[Row], folder: Path) -> None:
        for job, shard in self._pieces(draw_masks, MASK_FOLDER, rows, folder):
            shutil.copyfile(shard, folder / MASK_FOLDER / job.shard)

    def _pieces(self, work: Callable[..., Any], kind: str, rows: Sequence[Row], folder: Path) -> list[tuple[SlideJob, Any]]:
        """Do something with the patches of each slide that has some."""
        pairs = self._by_slide(rows)
        self._total = self._done + len(pairs)
        calls = [(job, of_slide, self._work_dir / kind) for job, of_slide in pairs]
        results = self._run(work, calls, [f"{kind} of {job.row.slide.name}" for job, _ in pairs])
        (folder / kind).mkdir()
        return [(job, result) for (job, _), result in zip(pairs, results, strict=True)]

    def _manifest(self, drawn: Sequence[Row], rows: Sequence[Row], fields: Sequence[Row]) -> dict[str, Any]:
        spec = self._spec

        def count(of: Sequence[Row], split: str, label: int = TUMOUR) -> int:
            return sum(row["split"] == split and row["label"] == label for row in of)

        note = {
            "side": field_side_m(spec.patch_m),
            "margin": MARGIN_M,
            "label_distance": UNIT_M,
            "asked_per_class": spec.fields_per_class,
            "fields_per_class": {split: count(fields, split) for split in spec.fields_per_class},
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "software": f"hepamap {__version__}",
            "mpp": spec.mpp,
            "patch": spec.patch_m,
            "seed": spec.seed,
            "asked_per_class": spec.per_class,
            "drawn": {
                split: {name: count(drawn, split, label) for label, name in CLASS_NAMES.items()} for split in spec.per_class
            },
            "patches_per_class": {split: count(rows, split) for split in spec.per_class},
            **({"fields": note} if spec.fields else {}),
            **({"masks": {"median_px": MEDIAN_M}} if spec.masks else {}),
            "classes": {key: sorted(names) for key, names in asdict(spec.classes).items()},
            "slides": [self._draws[job.number].notes for job in self._jobs],
        }


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _no_patches(split: str, classes: list[str]) -> DatasetEmptyError:
    return DatasetEmptyError(
        f"The split “{split}” has no patch of {' and none of '.join(classes)}: wherever it was looked, too little of a patch is "
        "annotated, or it is background or out of focus.",
        cure="Look at its annotations, then give the command again, with other ones or without the split "
        f"(--{split} 0): slides of which the same number is asked are not drawn again.",
    )
