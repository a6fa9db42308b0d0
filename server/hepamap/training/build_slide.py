"""What a build does with one slide: draw its patches, read its fields, draw its masks. Runs in any process.

Each result is left in files named by all that decides it: a shard, and a JSON file that is written last. Where that stands, the
work is done and is not done again, whatever else has changed in the table. Of a slide's draws, only the last keeps its pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from hepamap import __version__
from hepamap.geometry import Point
from hepamap.slide import Slide
from hepamap.training.areas import labelled_areas
from hepamap.training.capacity import most_patches
from hepamap.training.class_map import ClassMap
from hepamap.training.cohort import CohortSlide
from hepamap.training.dataset import shard_name
from hepamap.training.field_sampling import Row, read_field
from hepamap.training.fields import labels_path
from hepamap.training.patches import TUMOUR
from hepamap.training.pixel_masks import pixel_mask
from hepamap.training.sampling import Sampler


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
    class_names: dict[str, str]
    """The classes of its annotations, and what each was taken for."""
    most: dict[int, int]
    """Patches by label that its annotations can hold, from `most_patches`."""

    @property
    def shard(self) -> str:
        """Name of its files."""
        return shard_name(self.number, self.row.slide.name)

    @property
    def key(self) -> str:
        """Tells the slide's pieces from others: all that decides its pixels and labels, but not its number."""
        row = self.row
        # By its name, too: the random places of its patches come from that, whatever a link leads to.
        where = (row.slide.name, str(row.slide.resolve()))
        told = (__version__, self.sampler, where, self.fingerprint, row.mpp_override_um, self.is_test)
        return _digest(repr(told).encode(), self.tumour_l0.wkb, self.non_tumour_l0.wkb)

    @property
    def is_test(self) -> bool:
        """Whether its patches get their labels by the test rule."""
        return self.row.split == "test"

    def has(self, label: int) -> bool:
        """Whether anything is drawn of a class."""
        return bool((self.tumour_l0 if label == TUMOUR else self.non_tumour_l0).area > 0)


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

    @property
    def is_lost(self) -> bool:
        """Whether only the numbers are left, because more was asked of the slide later."""
        return bool(self.rows) and not self.shard.exists()

    def forget(self) -> None:
        """Have it drawn again."""
        _marker_of(self.shard).unlink()


def slide_job(number: int, row: CohortSlide, sampler: Sampler, classes: ClassMap) -> SlideJob:
    """Look at a slide and its annotations; raises what is wrong with them before hours are spent."""
    with Slide.open(row.slide, mpp_override_um=row.mpp_override_um) as slide:
        slide.require_resolution(sampler.mpp)
        areas = labelled_areas(slide, row, classes)
        um2 = slide.pixel_size.area_um2
        areas_m = sampler.areas_m(slide, areas.tumour_l0, areas.non_tumour_l0)
        notes = {
            "slide": row.slide.name,
            "fingerprint": slide.fingerprint,
            "pixel_size_um": [slide.pixel_size.x_um, slide.pixel_size.y_um],
            "group": row.group,
            "split": row.split,
            "annotations": row.annotations.name,
            "tumour_mm2": round(areas.tumour_l0.area * um2 / 1e6, 4),
            "non_tumour_mm2": round(areas.non_tumour_l0.area * um2 / 1e6, 4),
            "conflict_mm2": round(areas.conflict_mm2, 4),
            "repaired_polygons": areas.file.repaired,
            "ignored_objects": areas.file.ignored,
            "ignored_classes": areas.ignored_classes,
        }
        names = {annotation.class_name for annotation in areas.file.annotations}
        class_names = {name or "no class": (classes.meaning(name) or "not known").replace("_", "-") for name in names}
        most = most_patches(areas_m, sampler.patch_m, test_rule=row.split == "test")
        return SlideJob(number, row, sampler, areas.tumour_l0, areas.non_tumour_l0, slide.fingerprint, notes, class_names, most)


def draw(job: SlideJob, wanted: Mapping[int, int], folder: Path) -> Draw:
    """Draw the patches of a slide, or take them up where they were drawn before.

    Args:
        job: the slide.
        wanted: patches by label.
        folder: for the results; keeps the pixels of the last draw of a slide only, and the numbers of all.
    """
    shard = folder / f"{job.key}-{'-'.join(str(wanted[label]) for label in sorted(wanted))}.npy"
    if not _marker_of(shard).exists():
        for superseded in folder.glob(f"{job.key}-*.npy"):
            superseded.unlink()
        with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
            found = job.sampler.sample(slide, job.tumour_l0, job.non_tumour_l0, dict(wanted), test_rule=job.is_test)
        if found.patches:
            np.save(shard, np.stack(found.patches))
        records = [{key: round(value, 4) for key, value in asdict(record).items()} for record in found.records]
        notes = {"windows_read": found.windows_read, "dropped_out_of_focus": found.out_of_focus}
        _write_marker(shard, {"records": records, "notes": notes})
    done = _read_marker(shard)
    place = {"split": job.row.split, "shard": job.shard, "slide": job.row.slide.name, "group": job.row.group}
    rows = [{**place, "row": number, **record} for number, record in enumerate(done["records"])]
    return Draw(shard, rows, {**job.notes, **done["notes"]})


def draw_fields(job: SlideJob, patches: Sequence[Row], folder: Path) -> tuple[Path, list[Row]]:
    """Read some patches of a slide again, with their surroundings, or take them up where they were read before.

    Returns:
        The shard, beside which its label maps stand; rows as in fields.csv.
    """
    shard = _piece(job, patches, folder)
    if not _marker_of(shard).exists():
        with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
            areas_m = job.sampler.areas_m(slide, job.tumour_l0, job.non_tumour_l0)
            fields = [read_field(slide, job.sampler, areas_m, patch) for patch in patches]
        np.save(shard, np.stack([pixels for pixels, _, _ in fields]))
        np.save(labels_path(shard), np.stack([labels for _, labels, _ in fields]))
        places = [{"x_l0": at.x, "y_l0": at.y, "side_x_l0": at.width, "side_y_l0": at.height} for _, _, at in fields]
        _write_marker(shard, [{key: round(value, 4) for key, value in place.items()} for place in places])
    same = ("split", "shard", "label", "slide", "group")
    rows = [
        {**{key: patch[key] for key in same}, "row": number, **place}
        for number, (patch, place) in enumerate(zip(patches, _read_marker(shard), strict=True))
    ]
    return shard, rows


def draw_masks(job: SlideJob, patches: Sequence[Row], folder: Path) -> Path:
    """Draw the masks of some patches of a slide, or take them up; the file holds (n, P, P), see `pixel_masks`."""
    shard = _piece(job, patches, folder)
    if not _marker_of(shard).exists():
        with Slide.open(job.row.slide, mpp_override_um=job.row.mpp_override_um) as slide:
            grid = job.sampler.grid(slide)
            areas_m = job.sampler.areas_m(slide, job.tumour_l0, job.non_tumour_l0)
        # Patches lie on whole model px; the table rounds their place to 0.0001 level-0 px.
        corners_m = [Point(round(patch["x_l0"] / grid.scale_x), round(patch["y_l0"] / grid.scale_y)) for patch in patches]
        np.save(shard, np.stack([pixel_mask(areas_m, corner_m, job.sampler.patch_m) for corner_m in corners_m]))
        _write_marker(shard, None)
    return shard


def keep_rows(source: Path, target: Path, rows: Sequence[Row]) -> None:
    """Write the chosen rows of a shard as a new one, and number them anew."""
    patches: NDArray[np.uint8] = np.load(source, mmap_mode="r")
    np.save(target, patches[[row["row"] for row in rows]])
    for number, row in enumerate(rows):
        row["row"] = number


def _piece(job: SlideJob, patches: Sequence[Row], folder: Path) -> Path:
    """Where what belongs to some patches of a slide stands; what belongs to others of it goes."""
    shard = folder / f"{job.key}-{_digest(json.dumps([(patch['x_l0'], patch['y_l0']) for patch in patches]).encode())}.npy"
    if not _marker_of(shard).exists():
        for superseded in sorted(folder.glob(f"{job.key}-*")):  # .json before .npy: no marker without its shard
            superseded.unlink()
    return shard


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _marker_of(shard: Path) -> Path:
    return shard.with_suffix(".json")


def _read_marker(shard: Path) -> Any:
    return json.loads(_marker_of(shard).read_text(encoding="utf-8"))


def _write_marker(shard: Path, content: Any) -> None:
    """Whole or not at all: a half-written one would pass for finished work."""
    partial = shard.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, _marker_of(shard))
