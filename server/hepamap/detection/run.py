"""One slide, one result folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from hepamap import __version__
from hepamap.detection.checking import CheckedRequest, check, open_slide
from hepamap.detection.detector import Detector
from hepamap.detection.request import DetectionRequest
from hepamap.geometry import Region
from hepamap.model_pack import find_pack
from hepamap.pipeline import Analysis, AnalysisParameters, Checkpoint, Piece, Progress, analyse, ignore_progress, never_cancelled
from hepamap.plausibility import OK, OK_WITH_WARNINGS, Warning_
from hepamap.predictor import Predictor
from hepamap.provenance import provenance_json
from hepamap.regions import bounding_region
from hepamap.results import require_free, summary_of, write_result
from hepamap.slide import Slide

_OVERVIEW_SIDE_PX = 2000
_OVERVIEW_MIN_SIDE_PX = 800
_VIEW_MARGIN = 0.1  # of a region of interest, shown around it in the overlay


@dataclass(frozen=True, slots=True)
class DetectionSummary:
    """How a run ended."""

    outcome: str
    warnings: list[dict[str, str]]
    result: dict[str, Any]
    """Content of result.json."""

    def to_json(self) -> dict[str, Any]:
        """As result.json."""
        return dict(self.result)


def detect(
    request: DetectionRequest,
    out_dir: Path,
    detector: Detector,
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    checkpoint: Checkpoint | None = None,
) -> DetectionSummary:
    """Analyse one slide and write its result folder, whole or not at all.

    Args:
        request: what to do.
        out_dir: folder of the result.
        detector: loads the model, or has it in memory.
        overwrite: replace an earlier result in `out_dir`.
        progress: told how far the run is.
        cancelled: asked between batches.
        checkpoint: keeps finished pieces of the map, so that the same request goes on where it was killed.

    Raises:
        HepamapError: any of its children; nothing is written then.
    """
    started = time.perf_counter()
    require_free(out_dir, overwrite=overwrite)
    pack = find_pack(detector.models_dir, request.model)
    with open_slide(request) as slide:
        checked = check(request, pack, slide)
        progress(Progress(0, 1, "loading the model"))
        detector.predictor(pack)
        loaded = time.perf_counter()
        view_l0 = _view(slide, checked.parameters.region_l0)
        # Before the network takes its memory: the picture of a large slide would come on top of it.
        thumbnail = _overview(slide, view_l0, checked.parameters.mpp / slide.pixel_size.x_um)

        def look(network: Predictor) -> Analysis:
            return _analyse(slide, checked, network, progress, cancelled, checkpoint)

        analysis, predictor = detector.run(pack, look)
        machine = [Warning_(*warning) for warning in predictor.warnings]
        summary = _summary(analysis, replace(checked, warnings=[*checked.warnings, *machine]))
    progress(Progress(1, 1, "writing"))
    summary["seconds"] |= {"loading": loaded - started, "total": time.perf_counter() - started}
    write_result(
        out_dir,
        analysis,
        summary,
        checked.frame,
        thumbnail,
        view_l0,
        region_of_interest_l0=checked.parameters.region_l0,
        overwrite=overwrite,
    )
    return DetectionSummary(summary["outcome"], summary["warnings"], summary)


def _analyse(
    slide: Slide,
    checked: CheckedRequest,
    predictor: Predictor,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    checkpoint: Checkpoint | None,
) -> Analysis:
    """The analysis; its provenance is complete when it is over."""
    parameters = checked.parameters
    provenance = provenance_json(
        slide, checked.pack, mode=parameters.mode, stride_m=parameters.stride_m, region_l0=_region_json(parameters)
    )
    kept = None if checkpoint is None else _OfPolicy(checkpoint, predictor)
    analysis = analyse(slide, predictor, parameters, provenance, progress=progress, cancelled=cancelled, checkpoint=kept)
    return _with_machine(analysis, predictor)


@dataclass(frozen=True, slots=True)
class _OfPolicy:
    """Pieces of this software that were computed in the precision of now: others would not fit in bit for bit."""

    kept: Checkpoint
    predictor: Predictor

    def load(self, unit: str) -> Piece | None:
        return self.kept.load(self._named(unit))

    def store(self, unit: str, piece: Piece) -> None:
        self.kept.store(self._named(unit), piece)

    def _named(self, unit: str) -> str:
        # The policy is asked each time: it changes where a GPU's memory does not suffice.
        return f"{__version__}-{self.predictor.policy}-{unit}"


def _with_machine(analysis: Analysis, predictor: Predictor) -> Analysis:
    """Say in the map's provenance what the network ran on; not known before, for lack of memory may have moved it."""
    provenance = {**analysis.map.provenance, "device": predictor.device, "precision": predictor.policy}
    return replace(analysis, map=replace(analysis.map, provenance=provenance))


def _summary(analysis: Analysis, checked: CheckedRequest) -> dict[str, Any]:
    parameters = checked.parameters
    summary = summary_of(
        analysis,
        checked.frame,
        {
            "mode": parameters.mode,
            "mpp": parameters.mpp,
            "patch": parameters.patch_m,
            "stride": parameters.stride_m,
            "threshold": parameters.threshold,
            "min_area_um2": parameters.min_area_um2,
            "min_hole_area_um2": parameters.min_hole_area_um2,
            "region_l0": _region_json(parameters),
        },
    )
    own = [{"code": warning.code, "message": warning.message} for warning in checked.warnings]
    if own:
        summary["warnings"] = own + summary["warnings"]
        summary["outcome"] = OK_WITH_WARNINGS if summary["outcome"] == OK else summary["outcome"]
    return summary


def _region_json(parameters: AnalysisParameters) -> Mapping[str, Any] | None:
    return None if parameters.region_l0 is None else mapping(parameters.region_l0)


def _overview(slide: Slide, view_l0: Region, finest_step: float) -> NDArray[np.uint8]:
    """A picture of a part of the slide, for the overlay; never finer than the model looks: what the map saw can be shown."""
    longer_l0 = max(view_l0.width, view_l0.height)
    picture = slide.thumbnail_of(view_l0, max(1, round(min(_OVERVIEW_SIDE_PX, longer_l0 / finest_step))))
    factor = max(1, round(_OVERVIEW_MIN_SIDE_PX / max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _view(slide: Slide, region_l0: BaseGeometry | None) -> Region:
    """What the overlay shows: the scanned part, or the surroundings of the region of interest."""
    if region_l0 is None:
        return slide.bounds_l0
    box = bounding_region(region_l0)
    margin = _VIEW_MARGIN * max(box.width, box.height)
    grown = Region(box.x - margin, box.y - margin, box.width + 2 * margin, box.height + 2 * margin)
    return grown.intersection(Region.of_size(slide.size_l0)) or box
