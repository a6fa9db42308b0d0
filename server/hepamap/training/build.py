"""Annotated slides to a data set: what `hepamap dataset build` does."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap import __version__
from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.slide import Slide
from hepamap.training.areas import labelled_areas
from hepamap.training.class_map import DEFAULT_CLASSES, ClassMap
from hepamap.training.cohort import SPLITS, CohortSlide, check_cohort, read_cohort
from hepamap.training.dataset import (
    COLUMNS,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SHARD_FOLDER,
    TABLE_NAME,
    Dataset,
    open_dataset,
)
from hepamap.training.errors import DatasetEmptyError
from hepamap.training.field_sampling import choose_fields, fields_wanted, read_field
from hepamap.training.fields import FIELD_COLUMNS, FIELD_FOLDER, FIELD_TABLE, MARGIN_M, UNIT_M, field_side_m, labels_path
from hepamap.training.patches import NON_TUMOUR, TUMOUR
from hepamap.training.sampling import Sampler, SlidePatches

CLASS_NAMES = {NON_TUMOUR: "non_tumour", TUMOUR: "tumour"}


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
    seed: int = 0
    classes: ClassMap = DEFAULT_CLASSES


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far a build is."""

    done: int
    """Slides finished."""
    total: int
    slide: str
    """The slide that comes next."""


@dataclass(frozen=True, slots=True)
class _Areas:
    """What is drawn on one slide."""

    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    notes: dict[str, Any]


def build_dataset(
    table: Path,
    out_dir: Path,
    spec: DatasetSpec,
    *,
    overwrite: bool = False,
    progress: Callable[[BuildProgress], None] = lambda _: None,
) -> Dataset:
    """Draw labelled patches from a cohort of annotated slides.

    Args:
        table: CSV of slides, see `hepamap.training.cohort`.
        out_dir: folder to write; appears whole or not at all.
        spec: resolution, numbers, seed.
        overwrite: replace a data set that is there.
        progress: told before each slide.

    Raises:
        CohortInvalidError, AnnotationError, SlideError: the input is at fault.
        DatasetEmptyError: a split has no patch of one class.
        OutputError: the folder exists or cannot be written.
    """
    slides = [slide for slide in read_cohort(table) if slide.split in spec.per_class]
    check_cohort(slides, table.name)
    if out_dir.exists() and not overwrite:
        raise OutputExistsError(f"The folder {out_dir.name} exists.", cure="Name another folder, or add --overwrite.")
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=out_dir.parent))
    except OSError as error:
        raise OutputNotWritableError(
            f"The folder {out_dir.parent.name} cannot be written ({error.strerror}).", cure="Check its permissions."
        ) from error
    try:
        _Build(spec, slides, staging).run(progress)
        if out_dir.exists():
            shutil.rmtree(out_dir)
        staging.chmod(0o755)
        os.replace(staging, out_dir)
    except OSError as error:
        raise OutputNotWritableError(
            f"The data set cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return open_dataset(out_dir)


class _Build:
    """One run: reads slide after slide, keeps the book of what is still wanted."""

    def __init__(self, spec: DatasetSpec, slides: list[CohortSlide], folder: Path) -> None:
        self._spec = spec
        self._slides = slides
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._fields: list[dict[str, Any]] = []
        self._notes: list[dict[str, Any]] = []

    def run(self, progress: Callable[[BuildProgress], None]) -> None:
        """Draw, balance, write."""
        (self._folder / SHARD_FOLDER).mkdir()
        areas = [self._areas(slide) for slide in self._slides]
        for number, (slide, area) in enumerate(zip(self._slides, areas, strict=True)):
            progress(BuildProgress(number, len(self._slides), slide.slide.name))
            wanted = {label: self._share(number, label, areas) for label in CLASS_NAMES}
            self._draw(number, slide, area, wanted)
        self._balance(np.random.default_rng(self._spec.seed))
        if self._spec.fields:
            self._draw_fields(areas)
        self._write_tables()

    def _areas(self, row: CohortSlide) -> _Areas:
        with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
            slide.require_resolution(self._spec.mpp)
            return _areas_on(slide, row, self._spec.classes)

    def _share(self, number: int, label: int, areas: list[_Areas]) -> int:
        """What this slide should give of a class.

        An equal share of what is still missing, so that a slide with too little is made up for by those after it.
        """
        split = self._slides[number].split
        if _area_of(areas[number], label).is_empty:
            return 0
        offering = [
            i for i in range(number, len(areas)) if self._slides[i].split == split and not _area_of(areas[i], label).is_empty
        ]
        have = sum(row["split"] == split and row["label"] == label for row in self._rows)
        missing: int = self._spec.per_class[split] - have
        return max(0, math.ceil(missing / len(offering)))

    def _draw(self, number: int, row: CohortSlide, areas: _Areas, wanted: dict[int, int]) -> None:
        sampler = Sampler(self._spec.mpp, self._spec.patch_m, self._spec.seed)
        with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
            found = sampler.sample(slide, areas.tumour_l0, areas.non_tumour_l0, wanted, test_rule=row.split == "test")
            fingerprint, pixel_size = slide.fingerprint, slide.pixel_size
        shard = _shard_name(number, row)
        if found.patches:
            np.save(self._folder / SHARD_FOLDER / shard, np.stack(found.patches))
        self._rows += _rows_of(row, shard, found)
        self._notes.append(
            {
                "slide": row.slide.name,
                "fingerprint": fingerprint,
                "pixel_size_um": [pixel_size.x_um, pixel_size.y_um],
                "group": row.group,
                "split": row.split,
                "windows_read": found.windows_read,
                "dropped_out_of_focus": found.out_of_focus,
                **areas.notes,
            }
        )

    def _balance(self, rng: np.random.Generator) -> None:
        """Keep as many patches of one class as of the other in each split, chosen at random."""
        kept: list[dict[str, Any]] = []
        for split in SPLITS:
            of_class = [[row for row in self._rows if row["split"] == split and row["label"] == label] for label in CLASS_NAMES]
            if split not in self._spec.per_class:
                continue
            count = min(self._spec.per_class[split], *map(len, of_class))
            if count == 0:
                raise _no_patches(split, [CLASS_NAMES[i] for i, rows in enumerate(of_class) if not rows])
            for rows in of_class:
                kept += [rows[i] for i in np.sort(rng.permutation(len(rows))[:count])]
        self._rows = kept
        for shard in sorted({row["shard"] for row in kept}):
            _keep_rows(self._folder / SHARD_FOLDER / shard, [row for row in kept if row["shard"] == shard])
        listed = {row["shard"] for row in kept}
        for path in (self._folder / SHARD_FOLDER).iterdir():
            if path.name not in listed:
                path.unlink()

    def _draw_fields(self, areas: list[_Areas]) -> None:
        """Read some of the kept patches again, with their surroundings."""
        (self._folder / FIELD_FOLDER).mkdir()
        chosen = choose_fields(self._rows, fields_wanted(self._spec.fields), self._spec.seed)
        for number, (row, area) in enumerate(zip(self._slides, areas, strict=True)):
            of_slide = [patch for patch in chosen if patch["shard"] == _shard_name(number, row)]
            if of_slide:
                self._draw_fields_of(row, area, of_slide)

    def _draw_fields_of(self, row: CohortSlide, areas: _Areas, patches: Sequence[Mapping[str, Any]]) -> None:
        sampler = Sampler(self._spec.mpp, self._spec.patch_m, self._spec.seed)
        with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
            areas_m = sampler.areas_m(slide, areas.tumour_l0, areas.non_tumour_l0)
            fields = [read_field(slide, sampler, areas_m, patch) for patch in patches]
        path = self._folder / FIELD_FOLDER / patches[0]["shard"]
        np.save(path, np.stack([pixels for pixels, _, _ in fields]))
        np.save(labels_path(path), np.stack([labels for _, labels, _ in fields]))
        for number, (patch, (_, _, place)) in enumerate(zip(patches, fields, strict=True)):
            same = {key: patch[key] for key in ("split", "shard", "label", "slide", "group")}
            sides = {"side_x_l0": round(place.width, 4), "side_y_l0": round(place.height, 4)}
            self._fields.append({**same, "row": number, "x_l0": round(place.x, 4), "y_l0": round(place.y, 4), **sides})

    def _write_tables(self) -> None:
        _write_table(self._folder / TABLE_NAME, COLUMNS, self._rows)
        if self._spec.fields:
            _write_table(self._folder / FIELD_TABLE, FIELD_COLUMNS, self._fields)
        spec = asdict(self._spec)
        classes = {key: sorted(names) for key, names in spec.pop("classes").items()}
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "software": f"hepamap {__version__}",
            "mpp": spec["mpp"],
            "patch": spec["patch_m"],
            "seed": spec["seed"],
            "asked_per_class": spec["per_class"],
            "patches_per_class": {split: self._count(split) for split in self._spec.per_class},
            **self._fields_note(),
            "classes": classes,
            "slides": self._notes,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (self._folder / MANIFEST_NAME).write_text(text, encoding="utf-8")

    def _fields_note(self) -> dict[str, Any]:
        if not self._spec.fields:
            return {}
        counts = {
            split: sum(row["split"] == split and row["label"] == TUMOUR for row in self._fields)
            for split in fields_wanted(self._spec.fields)
        }
        side = field_side_m(self._spec.patch_m)
        return {"fields": {"side": side, "margin": MARGIN_M, "label_distance": UNIT_M, "fields_per_class": counts}}

    def _count(self, split: str) -> int:
        return sum(row["split"] == split and row["label"] == TUMOUR for row in self._rows)


def _shard_name(number: int, row: CohortSlide) -> str:
    """Slides of different folders may have one name; their numbers differ."""
    return f"{number:04d}-{row.slide.stem}.npy"


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _areas_on(slide: Slide, row: CohortSlide, classes: ClassMap) -> _Areas:
    """The labelled areas of a slide in level-0 px, and what is to be said of them."""
    areas = labelled_areas(slide, row, classes)
    notes = {
        "annotations": row.annotations.name,
        "tumour_mm2": _mm2(areas.tumour_l0, slide),
        "non_tumour_mm2": _mm2(areas.non_tumour_l0, slide),
        "conflict_mm2": round(areas.conflict_area_l0 * slide.pixel_size.area_um2 / 1e6, 4),
        "repaired_polygons": areas.file.repaired,
        "ignored_objects": areas.file.ignored,
        "ignored_classes": areas.ignored_classes,
    }
    return _Areas(areas.tumour_l0, areas.non_tumour_l0, notes)


def _mm2(area_l0: BaseGeometry, slide: Slide) -> float:
    return round(area_l0.area * slide.pixel_size.area_um2 / 1e6, 4)


def _area_of(areas: _Areas, label: int) -> BaseGeometry:
    return areas.tumour_l0 if label == TUMOUR else areas.non_tumour_l0


def _rows_of(row: CohortSlide, shard: str, found: SlidePatches) -> Iterable[dict[str, Any]]:
    for number, record in enumerate(found.records):
        place = {"split": row.split, "shard": shard, "row": number, "slide": row.slide.name, "group": row.group}
        values = {key: round(value, 4) for key, value in asdict(record).items()}
        yield {**place, **values}


def _keep_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rewrite a shard with the rows that are kept, and number them anew."""
    patches: NDArray[np.uint8] = np.load(path)
    np.save(path, patches[[row["row"] for row in rows]])
    for number, row in enumerate(rows):
        row["row"] = number


def _no_patches(split: str, classes: list[str]) -> DatasetEmptyError:
    return DatasetEmptyError(
        f"The split “{split}” has no patch of {' and none of '.join(classes)}.",
        cure="Check the class names of the annotations and that the split has slides with both classes.",
    )
