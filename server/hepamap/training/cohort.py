"""The table of annotated slides that a data set is made from.

A CSV file with a header, UTF-8, comma or semicolon. Paths are relative to the table's folder.

- slide: the slide file.
- annotations: the file with what was drawn on it.
- group: tumour or patient; all slides of one group must stand in one split. Letter case and spaces do not matter.
- split: train, val or test.
- unannotated (optional): what tissue outside all annotations means: `ignore` (default), or `non_tumour`, e.g. on
  biopsies where only the tumour was drawn.
- frame (optional): `qupath` (default; QuPath counts from the corner of OpenSlide's bounds) or `level0`.
- mpp (optional): pixel size of the slide, µm/px, where the file does not say it.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hepamap.spelling import name_key
from hepamap.training.errors import CohortInvalidError, GroupInTwoSplitsError, SlideInTwoSplitsError

SPLITS = ("train", "val", "test")
_REQUIRED = ("slide", "annotations", "group", "split")
_CHOICES = {"split": SPLITS, "unannotated": ("ignore", "non_tumour"), "frame": ("qupath", "level0")}
_DEFAULTS = {"unannotated": "ignore", "frame": "qupath", "mpp": ""}


@dataclass(frozen=True, slots=True)
class CohortSlide:
    """One row of the table."""

    slide: Path
    annotations: Path
    group: str
    split: str
    unannotated: str = "ignore"
    frame: str = "qupath"
    mpp_override_um: float | None = None


def read_cohort(path: Path) -> list[CohortSlide]:
    """Read and check the table.

    Raises:
        CohortInvalidError: it cannot be read, a column or value is missing or wrong, a slide stands in it twice.
        GroupInTwoSplitsError: slides of one group stand in two splits.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CohortInvalidError(f"The table {path.name} cannot be read as text.", cure="Give a CSV file in UTF-8.") from error
    lines = text.splitlines()
    delimiter = ";" if lines and ";" in lines[0] else ","
    rows = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
    _check_columns(path.name, [name.strip() for name in rows.fieldnames or ()])
    slides = [_slide(path, number, row) for number, row in enumerate(rows, start=2)]
    check_cohort(slides, path.name)
    spelled: dict[str, str] = {}
    return [replace(slide, group=spelled.setdefault(name_key(slide.group), slide.group)) for slide in slides]


def check_cohort(slides: Iterable[CohortSlide], name: str) -> None:
    """Check what concerns several rows: each slide once, each group in one split; `name` is for the message."""
    slides = list(slides)
    if not slides:
        raise CohortInvalidError(f"The table {name} has no slides.", cure="Add a row for each annotated slide.")
    splits_of: dict[str, set[str]] = defaultdict(set)
    spelled: dict[str, str] = {}
    seen: set[Path] = set()
    for slide in slides:
        file = slide.slide.resolve()
        if file in seen:
            raise CohortInvalidError(f"The slide {slide.slide.name} stands twice in {name}.", cure="Remove one row.")
        seen.add(file)
        key = name_key(slide.group)
        spelled.setdefault(key, slide.group)
        splits_of[key].add(slide.split)
    for key, splits in splits_of.items():
        if len(splits) > 1:
            raise GroupInTwoSplitsError(
                f"Slides of the group “{spelled[key]}” stand in {' and '.join(sorted(splits))}.",
                cure="Put all slides of one tumour or patient into one split, or the score says nothing.",
            )


def require_one_split(slides: Iterable[tuple[str, str, str]]) -> None:
    """Check that no slide stands in two splits under two names, as a copy does.

    Args:
        slides: fingerprint, split and name of each.

    Raises:
        SlideInTwoSplitsError: one does.
    """
    first: dict[str, Sequence[str]] = {}
    for fingerprint, split, name in slides:
        other_split, other_name = first.setdefault(fingerprint, (split, name))
        if other_split != split:
            raise SlideInTwoSplitsError(
                f"{other_name} ({other_split}) and {name} ({split}) are the same slide.",
                cure="Keep each slide, with all its copies, in one split, or the score says nothing.",
            )


def require_own_names(slides: Sequence[CohortSlide]) -> None:
    """Results by slide go by its name.

    Raises:
        CohortInvalidError: two slides have the same.
    """
    names = [row.slide.stem for row in slides]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CohortInvalidError(
            f"Two slides are named “{twice[0]}”.", cure="Rename one of them: results go by the slide's name."
        )


def _check_columns(name: str, columns: list[str]) -> None:
    missing = [column for column in _REQUIRED if column not in columns]
    unknown = [column for column in columns if column not in (*_REQUIRED, *_DEFAULTS)]
    if missing or unknown:
        said = [f"no column “{column}”" for column in missing] + [f"an unknown column “{column}”" for column in unknown]
        raise CohortInvalidError(
            f"The table {name} has {' and '.join(said)}.",
            cure=f"Its first line must be: {','.join(_REQUIRED)}; optional columns are {', '.join(_DEFAULTS)}.",
        )


def _slide(path: Path, number: int, row: dict[str | None, str | None]) -> CohortSlide:
    values = {
        **_DEFAULTS,
        **{str(key).strip(): value.strip() for key, value in row.items() if isinstance(value, str) and value.strip()},
    }

    def wrong(what: str, cure: str) -> CohortInvalidError:
        return CohortInvalidError(f"Line {number} of the table {path.name} {what}.", cure=cure)

    for column in _REQUIRED:
        if not values.get(column):
            raise wrong(f"has nothing under “{column}”", "Fill it in, or remove the line.")
    for column, choices in _CHOICES.items():
        if values[column] not in choices:
            raise wrong(f"says “{values[column]}” under “{column}”", f"Use one of {', '.join(choices)}.")
    try:
        mpp = float(values["mpp"]) if values["mpp"] else None
    except ValueError as error:
        raise wrong(f"says “{values['mpp']}” under “mpp”", "Give a number of µm per pixel, such as 0.25.") from error
    return CohortSlide(
        slide=path.parent / values["slide"],
        annotations=path.parent / values["annotations"],
        group=values["group"],
        split=values["split"],
        unannotated=values["unannotated"],
        frame=values["frame"],
        mpp_override_um=mpp,
    )
