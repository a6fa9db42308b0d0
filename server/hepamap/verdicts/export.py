"""Verdicts as a folder that `hepamap dataset build` and `hepamap evaluate` take: table, annotations, and every verdict.

- cohort.csv: one row for each slide that somebody accepted or edited, with its annotations in level-0 px.
- annotations/: GeoJSON, classes “Tumor” and “Non-tumor”.
- verdicts.csv: every verdict, the rejected ones too, and whether it is in the annotations.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from hepamap.errors import OutputExistsError, OutputNotWritableError
from hepamap.folders import is_anchored, make_folder, put_in_place, sync_tree
from hepamap.verdicts.errors import NoVerdictsError
from hepamap.verdicts.judging import plain
from hepamap.verdicts.slides import SlideFound, find_slide, groups_of
from hepamap.verdicts.splits import splits_of
from hepamap.verdicts.store import VerdictStore
from hepamap.verdicts.truth import Truth, last_ones, says_where, truth_of
from hepamap.verdicts.verdict import Decision, Verdict

COHORT_NAME = "cohort.csv"
VERDICTS_NAME = "verdicts.csv"
ANNOTATIONS_FOLDER = "annotations"

SplitChoice = Literal["auto", "train", "val", "test"]

# Columns of the table of `hepamap dataset build`; its reader is not known here, tests hold both together.
_COHORT = ("slide", "annotations", "group", "split", "unannotated", "frame", "mpp")
_VERDICTS = (
    *("id", "at", "analysis", "decision", "exported", "reason", "user", "actor", "model", "weights_sha256"),
    *("threshold", "min_area_um2", "iou", "area_mm2", "slide", "slide_fingerprint", "annotations"),
)
_CLASSES = {"Tumor": [200, 0, 0], "Non-tumor": [0, 160, 0]}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export holds."""

    verdicts: int
    slides: int
    """Rows of cohort.csv."""
    accepted: int
    """Verdicts in the annotations that are the model's own contours."""
    edited: int
    left_out: Mapping[str, int]
    """How many verdicts are not in the annotations, by reason."""


def export(
    store: VerdictStore, folder: Path, *, since: datetime | None = None, split: SplitChoice = "auto", overwrite: bool = False
) -> Exported:
    """Write the folder, whole or not at all; an earlier export goes only when the new one is in its place.

    Args:
        store: the verdicts.
        folder: where to.
        since: only verdicts of this time or later.
        split: which rows of the table are for training, validation and test: `auto` decides by group, see `splits_of`.
        overwrite: replace an earlier export.

    Raises:
        NoVerdictsError: nobody said anything.
        OutputExistsError: the folder is not empty, or none that can be replaced.
        OutputNotWritableError: it cannot be written.
    """
    folder = folder.resolve()
    _require_free(folder, overwrite)
    known = list(_all(store))
    verdicts = [verdict for verdict in known if since is None or verdict.at >= since.astimezone(UTC)]
    if not verdicts:
        raise NoVerdictsError("There are no verdicts to export.", cure="Accept, edit or reject results in QuPath first.")
    try:
        with _staging_beside(folder) as staging:
            done = _write(store, known, verdicts, staging, split)
            # Before the name appears, so that a power cut cannot leave a hollow export.
            sync_tree(staging)
            _require_free(folder, overwrite)  # slides were opened meanwhile, which takes its time
            put_in_place(staging, folder)
    except OSError as error:
        raise OutputNotWritableError(
            f"The export {folder.name} cannot be written ({error.strerror}).", cure="Check permissions and free space."
        ) from error
    return done


@contextmanager
def _staging_beside(folder: Path) -> Iterator[Path]:
    make_folder(folder.parent)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name[:64]}-", suffix=".partial", dir=folder.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_free(folder: Path, overwrite: bool) -> None:
    if folder.exists() and is_anchored(folder):
        raise OutputExistsError(
            f"The export cannot take the place of {folder}: it is a mounted disk, or the folder that you are in.",
            cure="Name a folder inside it.",
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if overwrite and (folder / VERDICTS_NAME).is_file():
        return
    raise OutputExistsError(
        f"{folder.name} is there already" + (", and is no export of verdicts." if overwrite else "."),
        cure="Name another folder." if overwrite else "Name another folder, or add --overwrite.",
    )


def _all(store: VerdictStore) -> Iterator[Verdict]:
    after: tuple[datetime, str] | None = None
    while True:
        page = store.page(after=after)
        yield from page.verdicts
        if not page.has_more:
            return
        after = (page.verdicts[-1].at, page.verdicts[-1].id)


def _write(
    store: VerdictStore, known: Sequence[Verdict], verdicts: Sequence[Verdict], folder: Path, split: SplitChoice
) -> Exported:
    (folder / ANNOTATIONS_FOLDER).mkdir()
    # Those before `since` too: where a slide lies and which split it is in does not depend on what is asked for.
    all_on = _by_slide(known)
    groups = {fingerprint: groups_of(of_slide, _file_name(fingerprint)) for fingerprint, of_slide in all_on.items()}
    splits = splits_of(groups)
    # In the order of the verdicts, not of the analyses: of two on one place the newer one counts.
    last = sorted(last_ones(verdicts).values(), key=lambda one: (one.at, one.id))
    by_slide = _by_slide(verdict for verdict in last if says_where(verdict))
    fate = {verdict.id: "rejected" if not says_where(verdict) else "superseded" for verdict in verdicts}
    files: dict[str, str] = {}
    rows = []
    for fingerprint, counting in sorted(by_slide.items()):
        found = find_slide(all_on[fingerprint], counting[-1].slide.pixel_size)
        if isinstance(found, str):
            fate |= {verdict.id: found for verdict in counting}
            continue
        name = f"{ANNOTATIONS_FOLDER}/{_file_name(fingerprint)}.geojson"
        whole = [store.get(verdict.id) for verdict in counting]
        truth = truth_of([verdict for verdict in whole if verdict is not None], found.bounds_l0)
        (folder / name).write_text(_geojson(truth, counting), encoding="utf-8")
        rows.append(_cohort_row(found, name, groups[fingerprint][-1], splits[fingerprint] if split == "auto" else split))
        fate |= {verdict.id: "yes" for verdict in counting}
        files |= {verdict.id: name for verdict in counting}
    _table(folder / COHORT_NAME, _COHORT, rows)
    _table(folder / VERDICTS_NAME, _VERDICTS, [_verdict_row(one, fate[one.id], files.get(one.id, "")) for one in verdicts])
    return _summed(verdicts, fate, len(rows))


def _by_slide(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        found[verdict.slide.fingerprint].append(verdict)
    return found


def _cohort_row(slide: SlideFound, annotations: str, group: str, split: str) -> dict[str, str]:
    return {
        "slide": slide.path,
        "annotations": annotations,
        "group": group,
        "split": split,
        # What is not tumour is drawn, too: outside of both nobody looked.
        "unannotated": "ignore",
        "frame": "level0",
        "mpp": slide.mpp,
    }


def _geojson(truth: Truth, verdicts: Sequence[Verdict]) -> str:
    features = []
    for name, area in (("Tumor", truth.tumour_l0), ("Non-tumor", truth.non_tumour_l0)):
        for polygon in plain(area)["coordinates"]:
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": polygon},
                    "properties": {
                        "objectType": "annotation",
                        "name": name,
                        "classification": {"name": name, "color": _CLASSES[name]},
                    },
                }
            )
    properties = {"frame": "level0", "verdicts": [verdict.id for verdict in verdicts]}
    return json.dumps({"type": "FeatureCollection", "features": features, "properties": properties}) + "\n"


def _verdict_row(verdict: Verdict, exported: str, annotations: str) -> dict[str, Any]:
    opinion = verdict.opinion
    return {
        "id": verdict.id,
        "at": verdict.at.isoformat(),
        "analysis": verdict.job_id,
        "decision": opinion.decision.value,
        "exported": exported,
        "reason": _harmless(opinion.reason or ""),
        "user": _harmless(opinion.user),
        "actor": _harmless(verdict.actor),
        "model": f"{verdict.model.id}@{verdict.model.version}",
        "weights_sha256": verdict.model.weights_sha256,
        "threshold": opinion.threshold,
        "min_area_um2": opinion.min_area_um2,
        "iou": opinion.iou,
        "area_mm2": opinion.area_mm2,
        "slide": verdict.slide.path,
        "slide_fingerprint": verdict.slide.fingerprint,
        "annotations": annotations,
    }


def _harmless(text: str) -> str:
    """What a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _file_name(fingerprint: str) -> str:
    """Short, and harmless whatever a scanner writes into its slides."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]


def _summed(verdicts: Sequence[Verdict], fate: Mapping[str, str], slides: int) -> Exported:
    used = [verdict.opinion.decision for verdict in verdicts if fate[verdict.id] == "yes"]
    left_out: dict[str, int] = defaultdict(int)
    for reason in fate.values():
        if reason != "yes":
            left_out[reason] += 1
    return Exported(
        verdicts=len(verdicts),
        slides=slides,
        accepted=used.count(Decision.ACCEPTED),
        edited=used.count(Decision.EDITED),
        left_out=dict(sorted(left_out.items())),
    )
