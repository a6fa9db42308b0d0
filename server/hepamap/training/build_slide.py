"""What a build does with one slide: draw its patches, read its fields. Runs in any process; leaves its result in files.

Each result is a shard and a JSON file that is written last: where it stands, the work is done and is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Point
from hepamap.slide import Slide
from hepamap.training.areas import labelled_areas
from hepamap.training.class_map import ClassMap
from hepamap.training.cohort import CohortSlide
from hepamap.training.dataset import shard_name
from hepamap.training.field_sampling import Row, read_field
from hepamap.training.fields import labels_path
from hepamap.training.patches import TUMOUR
from hepamap.training.pixel_masks import pixel_mask
from hepamap.training.sampling import Sampler, SlidePatches


@dataclass(frozen=True, slots=True)
class SlideJob:
    """One slide of a build."""

    number: int
    """In the table."""
    row: CohortSlide
    sampler: Sampler
    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    fingerprint: str
    notes: dict[str, Any]
    """What the manifest says of the slide's annotations."""

    @property
    def shard(self) -> str:
        """Name of its files."""
        return shard_name(self.number, self.row.slide.name)

    def has(self, label: int) -> bool:
        """Whether anything is drawn of a class."""
        return not (self.tumour_l0 if label == TUMOUR else self.non_tumour_l0).is_empty


@dataclass(frozen=True, slots=True)
class Draw:
    """The patches of one slide, on disk."""

    shard: Path
    """uint8 (n, P, P, 3); missing where there are none."""
    rows: list[Row]
    """As in patches.csv, one for each patch of the shard."""
    notes: dict[str, Any]

    def count(self, label: int) -> int:
        """Patches of one class."""
        return sum(row["label"] == label for row in self.rows)


def slide_job(number: int, row: CohortSlide, sampler: Sampler, classes: ClassMap) -> SlideJob:
    """Look at a slide and its annotations; raises what is wrong with them before hours are spent."""
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        slide.require_resolution(sampler.mpp)
        areas = labelled_areas(slide, row, classes)
        um2 = slide.pixel_size.area_um2
        notes = {
            "slide": row.slide.name,
            "fingerprint": slide.fingerprint,
            "pixel_size_um": [slide.pixel_size.x_um, slide.pixel_size.y_um],
            "group": row.group,
            "split": row.split,
            "annotations": row.annotations.name,
            "tumour_mm2": round(areas.tumour_l0.area * um2 / 1e6, 4),
            "non_tumour_mm2": round(areas.non_tumour_l0.area * um2 / 1e6, 4),
            "conflict_mm2": round(areas.conflict_area_l0 * um2 / 1e6, 4),
            "repaired_polygons": areas.file.repaired,
            "ignored_objects": areas.file.ignored,
            "ignored_classes": areas.ignored_classes,
        }
        return SlideJob(number, row, sampler, areas.tumour_l0, areas.non_tumour_l0, slide.fingerprint, notes)


def draw(job: SlideJob, wanted: Mapping[int, int], folder: Path) -> Draw:
    """Draw the patches of a slide, or take them up where they were drawn before.

    Args:
        job: the slide.
        wanted: patches by label.
        folder: for the results.
    """
    name = f"{job.number:04d}-" + "-".join(str(wanted[label]) for label in sorted(wanted))
    shard, marker = folder / f"{name}.npy", folder / f"{name}.json"
    if not marker.exists():
        with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
            is_test = job.row.split == "test"
            found = job.sampler.sample(slide, job.tumour_l0, job.non_tumour_l0, dict(wanted), test_rule=is_test)
        if found.patches:
            np.save(shard, np.stack(found.patches))
        notes = {"windows_read": found.windows_read, "dropped_out_of_focus": found.out_of_focus}
        _write_marker(marker, {"rows": _rows_of(job, found), "notes": notes})
    done = json.loads(marker.read_text(encoding="utf-8"))
    return Draw(shard, done["rows"], {**job.notes, **done["notes"]})


def draw_fields(job: SlideJob, patches: Sequence[Row], folder: Path) -> list[Row]:
    """Read some patches of a slide again, with their surroundings; writes the shard and its label maps.

    Returns:
        Rows as in fields.csv.
    """
    path, marker = folder / job.shard, folder / f"{job.shard}.json"
    if not marker.exists():
        with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
            areas_m = job.sampler.areas_m(slide, job.tumour_l0, job.non_tumour_l0)
            fields = [read_field(slide, job.sampler, areas_m, patch) for patch in patches]
        np.save(path, np.stack([pixels for pixels, _, _ in fields]))
        np.save(labels_path(path), np.stack([labels for _, labels, _ in fields]))
        rows = []
        for number, (patch, (_, _, place)) in enumerate(zip(patches, fields, strict=True)):
            same = {key: patch[key] for key in ("split", "shard", "label", "slide", "group")}
            sides = {"side_x_l0": round(place.width, 4), "side_y_l0": round(place.height, 4)}
            rows.append({**same, "row": number, "x_l0": round(place.x, 4), "y_l0": round(place.y, 4), **sides})
        _write_marker(marker, rows)
    taken: list[Row] = json.loads(marker.read_text(encoding="utf-8"))
    return taken


def draw_masks(job: SlideJob, patches: Sequence[Row]) -> NDArray[np.int8]:
    """The masks of some patches of a slide, (n, P, P); see `pixel_masks`."""
    with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
        grid = job.sampler.grid(slide)
        areas_m = job.sampler.areas_m(slide, job.tumour_l0, job.non_tumour_l0)
    # Patches lie on whole model px; the table rounds their place to 0.0001 level-0 px.
    corners_m = [Point(round(patch["x_l0"] / grid.scale_x), round(patch["y_l0"] / grid.scale_y)) for patch in patches]
    return np.stack([pixel_mask(areas_m, corner_m, job.sampler.patch_m) for corner_m in corners_m])


def keep_rows(source: Path, target: Path, rows: Sequence[Row]) -> None:
    """Write the chosen rows of a shard as a new one, and number them anew."""
    patches: NDArray[np.uint8] = np.load(source, mmap_mode="r")
    np.save(target, patches[[row["row"] for row in rows]])
    for number, row in enumerate(rows):
        row["row"] = number


def _rows_of(job: SlideJob, found: SlidePatches) -> list[Row]:
    place = {"split": job.row.split, "shard": job.shard, "slide": job.row.slide.name, "group": job.row.group}
    return [
        {**place, "row": number, **{key: round(value, 4) for key, value in asdict(record).items()}}
        for number, record in enumerate(found.records)
    ]


def _write_marker(path: Path, content: Any) -> None:
    """Whole or not at all: a half-written one would pass for finished work."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
