"""Annotated slides to a data set: what `hepamap dataset build` does.

Slides are drawn side by side in any number of processes, with the same bytes. Finished slides are kept in a folder
beside the data set, so that a build that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hepamap import __version__
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.folders import is_anchored, put_in_place
from hepamap.training.build_slide import Draw, SlideJob, draw, draw_fields, draw_masks, keep_rows, slide_job
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import SPLITS, check_cohort, read_cohort, require_one_split
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
from hepamap.training.errors import DatasetEmptyError, DatasetInvalidError, TrainingError
from hepamap.training.field_sampling import Row, choose_fields, fields_wanted
from hepamap.training.fields import FIELD_COLUMNS, FIELD_FOLDER, FIELD_TABLE, MARGIN_M, UNIT_M, field_side_m, labels_path
from hepamap.training.patches import NON_TUMOUR, TUMOUR
from hepamap.training.pixel_masks import MEDIAN_M
from hepamap.training.pool import run_all
from hepamap.training.quotas import first_quotas, raised_quotas
from hepamap.training.sampling import Sampler

CLASS_NAMES = {NON_TUMOUR: "non_tumour", TUMOUR: "tumour"}

_ROUNDS = 4  # of asking the slides that have more for what others lack
_SPACE_FACTOR = 2  # while it is built, a data set stands on the disk twice


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What to draw."""

    mpp: float
    """Resolution of the patches, µm/px: 1.84 (5X) or 0.92 (10X)."""
    patch_m: int
    """Side of a patch, px: 64 (5X) or 128 (10X)."""
    per_class: dict[str, int]
    """Patches to draw of each class, by split; a split that is absent is not built."""
    fields: int = 0
    """Fields to draw of each class in training, an eighth of it in validation; 0 makes a data set without fields."""
    masks: bool = False
    """Keep the mask of each patch too, for networks that answer for every pixel."""
    seed: int = 0
    classes: ClassMap = DEFAULT_CLASSES

    @property
    def size_bytes(self) -> int:
        """What the data set takes on disk, at most."""
        classes = len(CLASS_NAMES)
        patches = sum(self.per_class.values()) * classes * self.patch_m**2 * (4 if self.masks else 3)
        return patches + sum(fields_wanted(self.fields).values()) * classes * field_side_m(self.patch_m) ** 2 * 3


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
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Dataset:
    """Draw labelled patches from a cohort of annotated slides.

    Args:
        table: CSV of slides, see `hepamap.training.cohort`.
        out_dir: folder to write; appears whole or not at all. A build of the same slides, annotations and numbers that was
            stopped before goes on where it was.
        spec: resolution, numbers, seed.
        workers: processes that draw side by side; the result does not depend on it.
        overwrite: replace a data set that is there; never anything else.
        progress: told after each slide.

    Raises:
        CohortInvalidError, AnnotationError, SlideError: the input is at fault.
        DatasetEmptyError: a split has no patch of one class.
        OutputError: something is in the folder, it cannot be written, or the disk is too small.
    """
    slides = [slide for slide in read_cohort(table) if slide.split in spec.per_class]
    check_cohort(slides, table.name)
    out_dir = out_dir.resolve()
    _require_free(out_dir, overwrite=overwrite)
    sampler = Sampler(spec.mpp, spec.patch_m, spec.seed)
    jobs = [slide_job(number, row, sampler, spec.classes) for number, row in enumerate(slides)]
    require_one_split((job.fingerprint, job.row.split, job.row.slide.name) for job in jobs)
    work_dir = out_dir.parent / f".{out_dir.name}.unfinished"
    try:
        _prepare(work_dir, spec, jobs)
        made = _Build(spec, jobs, work_dir, workers, progress).run()
        _require_free(out_dir, overwrite=overwrite)  # hours may have passed
        put_in_place(made, out_dir)
    except OSError as error:
        raise OutputNotWritableError(
            f"The data set {out_dir.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error
    except TrainingError:
        shutil.rmtree(work_dir, ignore_errors=True)  # what was drawn is of no use
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


def _prepare(work_dir: Path, spec: DatasetSpec, jobs: Sequence[SlideJob]) -> None:
    """Make the work folder, or keep the one of the very same build."""
    mark, digest = work_dir / "build.txt", _digest(spec, jobs)
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        needed, free = _SPACE_FACTOR * spec.size_bytes, shutil.disk_usage(work_dir).free
        if needed > free:
            shutil.rmtree(work_dir, ignore_errors=True)
            raise OutputNotWritableError(
                f"The data set may need {needed / 1e9:.1f} GB while it is made, but {free / 1e9:.1f} GB are free.",
                cure="Ask for fewer patches or fields, or name a folder on a larger disk.",
            )
        mark.write_text(digest, encoding="utf-8")
    for folder in ("draws", FIELD_FOLDER):
        (work_dir / folder).mkdir(exist_ok=True)


def _digest(spec: DatasetSpec, jobs: Sequence[SlideJob]) -> str:
    """What decides the bytes of a data set."""
    hashed = hashlib.sha256(f"{__version__} {SCHEMA_VERSION} {_plain(asdict(spec))}".encode())
    for job in jobs:
        hashed.update(repr((job.row, job.fingerprint)).encode())
        hashed.update(job.tumour_l0.wkb + job.non_tumour_l0.wkb)
    return hashed.hexdigest()


def _plain(spec: dict[str, Any]) -> str:
    """Sets have no order of their own, and another one in every process."""
    return json.dumps(spec, sort_keys=True, default=sorted)


class _Build:
    """One run: asks slides for patches until there are enough, balances, writes."""

    def __init__(
        self,
        spec: DatasetSpec,
        jobs: list[SlideJob],
        work_dir: Path,
        workers: int,
        progress: Callable[[BuildProgress], None],
    ) -> None:
        self._spec, self._jobs, self._work_dir, self._workers = spec, jobs, work_dir, workers
        self._progress = progress
        self._draws: dict[int, Draw] = {}
        self._done, self._total = 0, len(jobs)

    def run(self) -> Path:
        """Draw, balance, write; returns the finished folder."""
        self._draw_all()
        folder = self._work_dir / "dataset"
        shutil.rmtree(folder, ignore_errors=True)  # a half-written one of before
        (folder / SHARD_FOLDER).mkdir(parents=True)
        rows = self._balanced([row for number in sorted(self._draws) for row in self._draws[number].rows])
        # The fields' places come from the patches; the places of the patches in their shards change below.
        chosen = choose_fields(rows, fields_wanted(self._spec.fields), self._spec.seed)
        self._write_shards(folder, rows)
        fields = self._fields(chosen, folder) if self._spec.fields else []
        _write_table(folder / TABLE_NAME, COLUMNS, rows)
        if self._spec.fields:
            _write_table(folder / FIELD_TABLE, FIELD_COLUMNS, fields)
        text = json.dumps(self._manifest(rows, fields), indent=1, ensure_ascii=False) + "\n"
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
        return folder

    def _draw_all(self) -> None:
        """Ask every slide for its share, then those that have more for what is missing."""
        offering = {
            (split, label): [job.number for job in self._jobs if job.row.split == split and job.has(label)]
            for split in self._spec.per_class
            for label in CLASS_NAMES
        }
        quotas = {key: first_quotas(numbers, self._spec.per_class[key[0]]) for key, numbers in offering.items()}
        asked: dict[int, dict[int, int]] = {}
        for _ in range(_ROUNDS):
            wanted = {
                job.number: {label: quotas[job.row.split, label].get(job.number, 0) for label in CLASS_NAMES}
                for job in self._jobs
            }
            again = [job for job in self._jobs if wanted[job.number] != asked.get(job.number)]
            if not again:
                return
            self._total = self._done + len(again)
            calls = [(job, wanted[job.number], self._work_dir / "draws") for job in again]
            drawn = self._run(draw, calls, [job.row.slide.name for job in again])
            self._draws.update({job.number: result for job, result in zip(again, drawn, strict=True)})
            asked = wanted
            quotas = {
                (split, label): raised_quotas(
                    quota, {number: self._draws[number].count(label) for number in quota}, self._spec.per_class[split]
                )
                for (split, label), quota in quotas.items()
            }

    def _run(self, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], names: Sequence[str]) -> list[Any]:
        def done(number: int) -> None:
            self._done += 1
            self._progress(BuildProgress(self._done, self._total, names[number]))

        return run_all(work, calls, self._workers, done)

    def _balanced(self, rows: Sequence[Row]) -> list[Row]:
        """As many patches of one class as of the other in each split, chosen at random."""
        rng = np.random.default_rng(self._spec.seed)
        kept: list[Row] = []
        for split in (split for split in SPLITS if split in self._spec.per_class):
            of_class = [[row for row in rows if row["split"] == split and row["label"] == label] for label in CLASS_NAMES]
            count = min(self._spec.per_class[split], *map(len, of_class))
            if count == 0:
                raise _no_patches(split, [CLASS_NAMES[i] for i, rows in enumerate(of_class) if not rows])
            for candidates in of_class:
                kept += [candidates[i] for i in np.sort(rng.permutation(len(candidates))[:count])]
        return kept

    def _write_shards(self, folder: Path, rows: Sequence[Row]) -> None:
        for job in self._jobs:
            of_slide = [row for row in rows if row["shard"] == job.shard]
            if of_slide:
                keep_rows(self._draws[job.number].shard, folder / SHARD_FOLDER / job.shard, of_slide)
            if of_slide and self._spec.masks:
                (folder / MASK_FOLDER).mkdir(exist_ok=True)
                np.save(folder / MASK_FOLDER / job.shard, draw_masks(job, of_slide))

    def _fields(self, chosen: Sequence[Row], folder: Path) -> list[Row]:
        source = self._work_dir / FIELD_FOLDER
        calls = [(job, [row for row in chosen if row["shard"] == job.shard], source) for job in self._jobs]
        calls = [call for call in calls if call[1]]
        self._total = self._done + len(calls)
        found = self._run(draw_fields, calls, [f"fields of {job.row.slide.name}" for job, _, _ in calls])
        (folder / FIELD_FOLDER).mkdir()
        for job, _, _ in calls:
            for path in (source / job.shard, labels_path(source / job.shard)):
                shutil.copyfile(path, folder / FIELD_FOLDER / path.name)
        return [row for rows in found for row in rows]

    def _manifest(self, rows: Sequence[Row], fields: Sequence[Row]) -> dict[str, Any]:
        spec = self._spec

        def tumour(of: Sequence[Row], split: str) -> int:
            return sum(row["split"] == split and row["label"] == TUMOUR for row in of)

        asked = {split: count for split, count in fields_wanted(spec.fields).items() if split in spec.per_class}
        note = {
            "side": field_side_m(spec.patch_m),
            "margin": MARGIN_M,
            "label_distance": UNIT_M,
            "asked_per_class": asked,
            "fields_per_class": {split: tumour(fields, split) for split in asked},
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "software": f"hepamap {__version__}",
            "mpp": spec.mpp,
            "patch": spec.patch_m,
            "seed": spec.seed,
            "asked_per_class": spec.per_class,
            "patches_per_class": {split: tumour(rows, split) for split in spec.per_class},
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
        f"The split “{split}” has no patch of {' and none of '.join(classes)}.",
        cure="Check the class names of the annotations and that the split has slides with both classes.",
    )
