"""The folder of one result: written whole or not at all, read back, thresholded again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepamap import RESEARCH_USE_ONLY
from hepamap.errors import OutputExistsError, OutputNotWritableError, ResultDamagedError, ThresholdInvalidError
from hepamap.features import feature_collection, to_text
from hepamap.folders import is_anchored, make_folder, put_in_place, sync_tree
from hepamap.geometry import Point, Region
from hepamap.pipeline import Analysis, regions_of
from hepamap.plausibility import NOT_EVALUABLE, OK
from hepamap.probability_map import ProbabilityMap
from hepamap.rendering import colour_png, grey_png, index_png, overlay_png, write_ome_tiff

SUMMARY_NAME = "result.json"
CONTOURS_NAME = "contours.geojson"
OME_TIFF_NAME = "probability-map.ome.tif"
PNG_NAME = "probability-map.png"
OVERLAY_NAME = "overlay.png"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Frame:
    """The client's coordinate system: its name, and where its origin lies in level-0 px."""

    name: str
    """`level0`, or `bounds` as in QuPath, which crops a slide to what was scanned."""
    offset_l0: Point

    @property
    def offset_x(self) -> float:
        """Its origin along x, level-0 px."""
        return self.offset_l0.x

    @property
    def offset_y(self) -> float:
        """Its origin along y, level-0 px."""
        return self.offset_l0.y


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result folder that was read back."""

    folder: Path
    map: ProbabilityMap
    summary: Mapping[str, Any]

    @property
    def frame(self) -> Frame:
        """The frame that its contours were written in."""
        return frame_from_json(self.summary["frame"])

    def contours(
        self, *, threshold: float | None = None, min_area_um2: float | None = None, frame: Frame | None = None
    ) -> dict[str, Any]:
        """The tumour regions as GeoJSON, from the stored map; what is None is as in the run.

        There are none of a result that is not evaluable, whatever is asked for.

        Holes are filled up to the run's area, and never larger ones than the smallest region: in a filled hole there may be a
        region that is shown by itself, and would count twice.

        Raises:
            ThresholdInvalidError: not strictly between 0 and 1.
        """
        parameters = self.summary["parameters"]
        threshold = require_threshold(parameters["threshold"] if threshold is None else threshold)
        min_area_um2 = parameters["min_area_um2"] if min_area_um2 is None else min_area_um2
        min_hole_area_um2 = min(parameters["min_hole_area_um2"], min_area_um2)
        return contours_of(self.map, self.summary, threshold, min_area_um2, min_hole_area_um2, frame or self.frame)

    def colour_png(self) -> bytes:
        """The map in colour, one pixel per cell."""
        return colour_png(self.map)

    def index_png(self) -> bytes:
        """The map in grey for programs, one pixel per cell; see `rendering.index_png`."""
        return index_png(self.map)


def require_threshold(threshold: float) -> float:
    """Check a threshold.

    Raises:
        ThresholdInvalidError: not strictly between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ThresholdInvalidError(
            f"The threshold {threshold:g} is no probability strictly between 0 and 1.", cure="Use a value such as 0.5."
        )
    return threshold


def contours_of(
    probability_map: ProbabilityMap,
    summary: Mapping[str, Any],
    threshold: float,
    min_area_um2: float,
    min_hole_area_um2: float,
    frame: Frame,
) -> dict[str, Any]:
    """The tumour regions of a map as a GeoJSON collection with its provenance and its outcome.

    Args:
        probability_map: the map.
        summary: content of result.json: the outcome of the run and its warnings.
        threshold: probability from which a cell is tumour.
        min_area_um2: smaller regions are left out.
        min_hole_area_um2: smaller holes are filled.
        frame: what the coordinates count from.

    Returns:
        The collection. Of a result that is not evaluable it has no features, and its `tumour_area_mm2` is None, not 0:
        that no tumour was found would be a finding.
    """
    evaluable = summary["outcome"] != NOT_EVALUABLE
    regions = regions_of(probability_map, threshold, min_area_um2, min_hole_area_um2) if evaluable else []
    properties = {
        "notice": RESEARCH_USE_ONLY,
        "outcome": summary["outcome"],
        "warning_codes": _codes(summary),
        "frame": frame_json(frame),
        "threshold": threshold,
        "min_area_um2": min_area_um2,
        "min_hole_area_um2": min_hole_area_um2,
        "tissue_area_mm2": probability_map.tissue_area_um2 / 1e6,
        "tumour_area_mm2": sum(region.area_um2 for region in regions) / 1e6 if evaluable else None,
        "provenance": dict(probability_map.provenance),
    }
    collection: dict[str, Any] = feature_collection(
        regions,
        tissue_area_um2=probability_map.tissue_area_um2,
        cell_area_um2=probability_map.lattice.cell_area_um2,
        offset_l0=frame.offset_l0,
        properties=properties,
        metadata=_metadata(probability_map.provenance, summary["outcome"], threshold, frame),
    )
    return collection


def frame_json(frame: Frame) -> dict[str, Any]:
    """A frame as answers and result.json show it."""
    return {"name": frame.name, "offset_x": frame.offset_l0.x, "offset_y": frame.offset_l0.y}


def frame_from_json(data: Mapping[str, Any]) -> Frame:
    """The opposite of `frame_json`."""
    return Frame(data["name"], Point(data["offset_x"], data["offset_y"]))


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Check that a result may go into a folder, before any work is done.

    Raises:
        OutputExistsError: something is there, and nobody asked to replace it.
    """
    try:
        _require_free(folder, overwrite=overwrite)
        # A folder beside it now, so that hours of work do not end at a door that is locked.
        make_folder(folder.resolve().parent)
        os.rmdir(_staging_beside(folder))
    except OSError as error:
        raise _not_writable(folder, error) from error


def _require_free(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputExistsError(
            f"{folder.name} is a file, not a folder.", cure="Give the name of a folder that is not there yet."
        )
    if is_anchored(folder):
        raise OutputExistsError(
            f"The result cannot take the place of {folder.resolve()}: it is a mounted disk, or the folder that you are in.",
            cure="Give a new folder inside it.",
        )
    if not any(folder.iterdir()):
        return
    if not (folder / SUMMARY_NAME).exists():
        # Replacing means deleting: only what we wrote ourselves is ever deleted.
        raise OutputExistsError(
            f"The folder {folder.name} is not empty, and what is in it is no result of hepamap.", cure="Give another folder."
        )
    if not overwrite:
        raise OutputExistsError(
            f"There is a result in {folder.name} already.", cure="Give another folder, or ask to replace it (--overwrite)."
        )


def write_result(
    folder: Path,
    analysis: Analysis,
    summary: Mapping[str, Any],
    frame: Frame,
    thumbnail: NDArray[np.uint8],
    view_l0: Region,
    *,
    region_of_interest_l0: Any = None,
    overwrite: bool = False,
) -> None:
    """Write all files of a result; the folder appears when they are complete.

    Args:
        folder: where the result goes.
        analysis: what was computed.
        summary: content of result.json; `parameters`, `frame` and `outcome` are read back from it later.
        frame: the frame of contours.geojson.
        thumbnail: RGB picture of `view_l0`, for the overlay.
        view_l0: what the thumbnail shows, level-0 px.
        region_of_interest_l0: shape that was asked for, level-0 px.
        overwrite: replace an earlier result.

    Raises:
        OutputExistsError: there is a result, and `overwrite` is not set.
        OutputNotWritableError: no permission, or the disk is full.
    """
    require_free(folder, overwrite=overwrite)
    parameters = summary["parameters"]
    contours = contours_of(
        analysis.map, summary, parameters["threshold"], parameters["min_area_um2"], parameters["min_hole_area_um2"], frame
    )
    regions = None if summary["outcome"] == NOT_EVALUABLE else analysis.regions
    with _published(folder) as staging:
        analysis.map.save(staging)
        (staging / CONTOURS_NAME).write_text(to_text(contours), encoding="utf-8")
        write_ome_tiff(analysis.map, staging / OME_TIFF_NAME)
        (staging / PNG_NAME).write_bytes(grey_png(analysis.map))
        overlay = overlay_png(thumbnail, view_l0, analysis.map, regions, region_of_interest_l0)
        (staging / OVERLAY_NAME).write_bytes(overlay)
        (staging / SUMMARY_NAME).write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def open_result(folder: Path) -> StoredResult:
    """Read a result back.

    Raises:
        ResultDamagedError: a file is missing or cannot be read.
    """
    try:
        summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
        frame_from_json(summary["frame"])
        _ = summary["outcome"], _codes(summary)
        _ = [float(summary["parameters"][name]) for name in ("threshold", "min_area_um2", "min_hole_area_um2")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultDamagedError(
            f"The result in {folder.name} cannot be read: {type(error).__name__}.", cure="Run the analysis again."
        ) from error
    return StoredResult(folder, ProbabilityMap.open(folder), summary)


def summary_of(analysis: Analysis, frame: Frame, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What result.json says: numbers first, then what they come from. What is not evaluable has no numbers of tumour: None."""
    return {
        "notice": RESEARCH_USE_ONLY,
        "outcome": analysis.outcome,
        "warnings": [asdict(warning) for warning in analysis.warnings],
        "tissue_area_mm2": analysis.map.tissue_area_um2 / 1e6,
        **_tumour_numbers(analysis),
        "frame": frame_json(frame),
        "parameters": dict(parameters),
        "seconds": dict(analysis.seconds),
        "provenance": dict(analysis.map.provenance),
    }


def _tumour_numbers(analysis: Analysis) -> dict[str, float | None]:
    if analysis.outcome == NOT_EVALUABLE:
        return dict.fromkeys(("tumour_area_mm2", "tumour_share_of_tissue", "tumour_regions", "max_probability"))
    known = analysis.map.values[np.isfinite(analysis.map.values)]
    return {
        "tumour_area_mm2": sum(region.area_um2 for region in analysis.regions) / 1e6,
        "tumour_share_of_tissue": _tumour_cells(analysis) / len(known) if len(known) else None,
        "tumour_regions": len(analysis.regions),
        "max_probability": float(known.max()) if len(known) else None,
    }


def _tumour_cells(analysis: Analysis) -> int:
    """Cells at or above the threshold in the regions; glass in filled holes is no tissue, and does not count."""
    return sum(region.cells for region in analysis.regions)


def _codes(summary: Mapping[str, Any]) -> list[str]:
    return [str(warning["code"]) for warning in summary["warnings"]]


def _metadata(provenance: Mapping[str, Any], outcome: str, threshold: float, frame: Frame) -> dict[str, str]:
    """The provenance that travels with each object: QuPath keeps flat strings only."""
    doubt = {} if outcome == OK else {"hepamap.outcome": outcome}
    software, model, slide = provenance["software"], provenance["model"], provenance["slide"]
    return {
        "hepamap.notice": RESEARCH_USE_ONLY,
        "hepamap.version": f"{software['version']} ({software['commit']})",
        "hepamap.model": f"{model['id']}@{model['version']}",
        "hepamap.weights_sha256": model["weights_sha256"],
        "hepamap.slide_fingerprint": slide["fingerprint"],
        "hepamap.mode": provenance["mode"],
        "hepamap.stride_px": str(provenance["stride_m"]),
        "hepamap.threshold": f"{threshold:g}",
        "hepamap.frame": frame.name,
        **doubt,
    }


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """A staging folder beside the target, renamed to it at the end; nothing is left behind when anything fails."""
    folder = folder.resolve()
    try:
        make_folder(folder.parent)
        staging = _staging_beside(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    try:
        staging.chmod(0o755)
        yield staging
        # Before the name appears, so that a power cut cannot leave a hollow result.
        sync_tree(staging)
        _replace(staging, folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(staging: Path, folder: Path) -> None:
    """Give the staging folder its name; only an earlier result makes room for it."""
    _require_free(folder, overwrite=True)
    put_in_place(staging, folder)


def _staging_beside(folder: Path) -> Path:
    """A new, empty, hidden folder beside the target: on the same disk, so that renaming it is one step."""
    target = folder.resolve()
    return Path(tempfile.mkdtemp(prefix=f".{target.name[:64]}-", suffix=".partial", dir=target.parent))


def _not_writable(folder: Path, error: OSError) -> OutputNotWritableError:
    if error.errno in _NO_SPACE:
        return OutputNotWritableError(
            f"The result does not fit on the disk of {folder.name}: no space is left.",
            cure="Free some space, or give a folder on another disk; nothing of this result was left behind.",
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputNotWritableError(
        f"The result cannot be written to {folder.name}: {reason}.", cure="Give a folder that you may write to."
    )
