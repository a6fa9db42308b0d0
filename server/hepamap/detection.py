"""One slide, one result folder: what the command line and the worker both call, so that every way in gives the same numbers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import normalize, to_wkb
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from hepamap import __version__
from hepamap.errors import ModelChangedError, ParameterError, SlideMismatchError
from hepamap.geometry import PixelSize, Point, Region
from hepamap.maps import require_dense_stride, require_segment_stride
from hepamap.model_pack import DEFAULT_MODEL, ModelPack, find_pack
from hepamap.pipeline import (
    Analysis,
    AnalysisParameters,
    Checkpoint,
    Piece,
    Progress,
    analyse,
    ignore_progress,
    never_cancelled,
    require_stride,
)
from hepamap.plausibility import Warning_
from hepamap.predictor import Predictor
from hepamap.provenance import provenance_json
from hepamap.regions import bounding_region, parse_region
from hepamap.results import Frame, frame_json, require_free, require_threshold, summary_of, write_result
from hepamap.slide import Slide

DEFAULT_MIN_AREA_UM2 = 10_000.0
ANALYSIS = "analysis"
"""The kind of computation that a detection is in the queue, between whoever asks and the worker."""

_PIXEL_SIZE_TOLERANCE = 0.02  # viewers and servers round a pixel size differently; 2 % apart is another slide or another scale
_OVERVIEW_SIDE_PX = 2000
_OVERVIEW_MIN_SIDE_PX = 800
_VIEW_MARGIN = 0.1  # of a region of interest, shown around it in the overlay


@dataclass(frozen=True, slots=True)
class ClientView:
    """What the client's viewer says of the slide that it has open."""

    width: int
    height: int
    pixel_width_um: float | None = None
    pixel_height_um: float | None = None


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """What a user asks for; None means as the model says."""

    slide_path: Path
    model: str = DEFAULT_MODEL
    stride_m: int | None = None
    mode: str | None = None
    threshold: float | None = None
    min_area_um2: float | None = None
    region: Any = None
    """GeoJSON in the client's frame."""
    mpp_override_um: float | None = None
    client_view: ClientView | None = None
    frame: str | None = None
    """`level0` or `bounds`; None: as the client's view says, else level0."""
    fingerprint: str | None = None
    """The slide must still be this one; None: whatever lies at the path."""
    computes: str | None = None
    """The model must still be this one, see `ModelPack.computes`; None: whatever has its name."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for a job's payload."""
        return {**asdict(self), "slide_path": str(self.slide_path)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DetectionRequest:
        """The opposite of `to_json`."""
        view = data["client_view"]
        client_view = None if view is None else ClientView(**view)
        return cls(**{**data, "slide_path": Path(data["slide_path"]), "client_view": client_view})


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that can be run: every default filled in, every part fits the slide."""

    pack: ModelPack
    parameters: AnalysisParameters
    frame: Frame
    slide: dict[str, Any]
    """Fingerprint, size and pixel size."""
    warnings: list[Warning_] = field(default_factory=list)

    def pinned(self, request: DetectionRequest) -> DetectionRequest:
        """The request, tied to the model, the slide and all defaults that were checked, for a run at a later time."""
        parameters = self.parameters
        return replace(
            request,
            model=self.pack.name,
            computes=self.pack.computes,
            fingerprint=self.slide["fingerprint"],
            mode=parameters.mode,
            stride_m=parameters.stride_m,
            threshold=parameters.threshold,
            min_area_um2=parameters.min_area_um2,
        )

    @property
    def key(self) -> str:
        """What the run computes, as a hash: slide, scale, weights, parameters, region, frame. Equal keys, equal results."""
        parameters = self.parameters
        region = parameters.region_l0
        numbers = {item.name: getattr(parameters, item.name) for item in fields(parameters) if item.name != "region_l0"}
        content = {
            "software": __version__,
            "slide": self.slide,
            "weights": self.pack.manifest.weights.sha256,
            "parameters": numbers,
            "region": None if region is None else to_wkb(normalize(region), hex=True),
            "frame": frame_json(self.frame),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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


class Detector:
    """The models in memory; loads each at its first use."""

    def __init__(self, models_dir: Path, precision: str = "auto") -> None:
        self.models_dir = models_dir
        self.precision = precision
        self._predictors: dict[str, Predictor] = {}

    def predictor(self, pack: ModelPack) -> Predictor:
        """The loaded network of a pack; a pack whose weights changed is loaded anew."""
        key = pack.manifest.weights.sha256
        if key not in self._predictors:
            self._predictors[key] = Predictor.load(pack, self.precision)
        return self._predictors[key]


def check_request(request: DetectionRequest, models_dir: Path) -> CheckedRequest:
    """Refuse what cannot be run, before anything is computed; cheap, and without keras.

    Raises:
        SlideError, RegionError, ParameterError, ModelError: see each.
    """
    pack = find_pack(models_dir, request.model)
    with _open(request) as slide:
        return _check(request, pack, slide)


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
        detector: the loaded models.
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
    with _open(request) as slide:
        checked = _check(request, pack, slide)
        progress(Progress(0, 1, "loading the model"))
        predictor = detector.predictor(pack)
        loaded = time.perf_counter()
        analysis = _analyse(slide, checked, predictor, progress, cancelled, checkpoint)
        machine = [Warning_(*warning) for warning in predictor.warnings]
        summary = _summary(analysis, replace(checked, warnings=[*checked.warnings, *machine]))
        view_l0 = _view(slide, checked.parameters.region_l0)
        thumbnail = _overview(slide, view_l0, analysis.map.lattice.grid.scale_x)
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
    """The analysis, with what the network ran on at last in its provenance."""
    parameters, machine = checked.parameters, {"device": predictor.device, "precision": predictor.policy}
    provenance = provenance_json(slide, checked.pack, mode=parameters.mode, stride_m=parameters.stride_m, **machine)
    kept = None if checkpoint is None else _OfPolicy(checkpoint, predictor)
    analysis = analyse(slide, predictor, parameters, provenance, progress=progress, cancelled=cancelled, checkpoint=kept)
    return _with_machine(analysis, predictor)


@dataclass(frozen=True, slots=True)
class _OfPolicy:
    """Pieces that were computed in the precision of now: another machine's would not fit in bit for bit."""

    kept: Checkpoint
    predictor: Predictor

    def load(self, unit: str) -> Piece | None:
        return self.kept.load(self._named(unit))

    def store(self, unit: str, piece: Piece) -> None:
        self.kept.store(self._named(unit), piece)

    def _named(self, unit: str) -> str:
        return f"{self.predictor.policy}-{unit}"  # asked each time: it changes where a GPU's memory does not suffice


def _with_machine(analysis: Analysis, predictor: Predictor) -> Analysis:
    """Say in the map's provenance what the network ran on at last: lack of memory may have moved it."""
    provenance = {**analysis.map.provenance, "device": predictor.device, "precision": predictor.policy}
    return replace(analysis, map=replace(analysis.map, provenance=provenance))


def frame_of(slide: Slide, client_view: ClientView | None, name: str | None) -> Frame:
    """Choose the coordinate system that the client sees.

    Raises:
        SlideMismatchError: the client has another slide open.
    """
    level0 = Frame("level0", Point(0.0, 0.0))
    bounds = Frame("bounds", Point(slide.bounds_l0.x, slide.bounds_l0.y))
    if client_view is None:
        return bounds if name == "bounds" else level0
    seen = (client_view.width, client_view.height)
    own, scanned = (slide.size_l0.width, slide.size_l0.height), (int(slide.bounds_l0.width), int(slide.bounds_l0.height))
    _require_same_pixel_size(slide, client_view)
    if seen == own:
        return level0
    if seen == scanned:
        return bounds
    raise SlideMismatchError(
        f"The viewer shows an image of {seen[0]} × {seen[1]} px; the slide on the server has {own[0]} × {own[1]} px"
        + ("." if own == scanned else f" ({scanned[0]} × {scanned[1]} px of them scanned)."),
        cure="Open the original slide in the viewer, not a cropped, rotated or exported copy, and check the path.",
    )


def _open(request: DetectionRequest) -> Slide:
    view = request.client_view
    client = None
    if view is not None and view.pixel_width_um is not None and view.pixel_height_um is not None:
        client = PixelSize(view.pixel_width_um, view.pixel_height_um)
    return Slide.open(request.slide_path, mpp_override_um=request.mpp_override_um, client_pixel_size=client)


def _check(request: DetectionRequest, pack: ModelPack, slide: Slide) -> CheckedRequest:
    _require_same_slide(slide, request.fingerprint)
    _require_same_model(pack, request.computes)
    manifest = pack.manifest
    stride_m = manifest.default_stride if request.stride_m is None else request.stride_m
    require_stride(stride_m, manifest.strides)
    mode = request.mode or manifest.default_mode
    if mode not in manifest.modes:
        raise ParameterError(f"The model {pack.name} has no mode {mode!r}.", cure=f"Use one of: {', '.join(manifest.modes)}.")
    if mode == "dense":
        require_dense_stride(stride_m)
    elif mode == "segment":
        require_segment_stride(stride_m, manifest.input.patch)
    threshold = require_threshold(manifest.default_threshold if request.threshold is None else request.threshold)
    min_area_um2 = _require_area(DEFAULT_MIN_AREA_UM2 if request.min_area_um2 is None else request.min_area_um2)
    frame = frame_of(slide, request.client_view, request.frame)
    region_l0 = None if request.region is None else parse_region(request.region, frame.offset_l0, slide.size_l0)
    slide.require_resolution(manifest.input.mpp)
    parameters = AnalysisParameters(
        mpp=manifest.input.mpp,
        patch_m=manifest.input.patch,
        stride_m=stride_m,
        threshold=threshold,
        min_area_um2=min_area_um2,
        min_hole_area_um2=min_area_um2,
        region_l0=region_l0,
        mode=mode,
    )
    return CheckedRequest(pack, parameters, frame, _slide_facts(slide), _pixel_size_warnings(slide))


def _require_same_slide(slide: Slide, fingerprint: str | None) -> None:
    if fingerprint is not None and slide.fingerprint != fingerprint:
        raise SlideMismatchError(
            f"The slide {slide.path.name} is not the one that the analysis was asked for: the file was replaced since.",
            cure="Ask for the analysis again.",
        )


def _require_same_model(pack: ModelPack, computes: str | None) -> None:
    if computes is not None and pack.computes != computes:
        raise ModelChangedError(
            f"The model {pack.name} is not the one that the analysis was asked for with: the pack was replaced since.",
            cure="Ask for the analysis again. Whoever changes weights should give the pack a new version.",
        )


def _require_area(min_area_um2: float) -> float:
    if not 0 <= min_area_um2 < 1e12:
        raise ParameterError(
            f"The smallest area, {min_area_um2:g} µm², is none.", cure="Give an area in µm² that is not negative, e.g. 10000."
        )
    return min_area_um2


def _require_same_pixel_size(slide: Slide, view: ClientView) -> None:
    own = slide.metadata_pixel_size
    if own is None or view.pixel_width_um is None or view.pixel_height_um is None:
        return
    pairs = ((view.pixel_width_um, own.x_um), (view.pixel_height_um, own.y_um))
    if any(not abs(seen - known) <= _PIXEL_SIZE_TOLERANCE * known for seen, known in pairs):
        raise SlideMismatchError(
            f"The viewer says {view.pixel_width_um:.4g} × {view.pixel_height_um:.4g} µm per pixel, the slide says "
            f"{own.x_um:.4g} × {own.y_um:.4g} µm.",
            cure="Check that both have the same slide, and that nobody changed the pixel size in the viewer.",
        )


def _pixel_size_warnings(slide: Slide) -> list[Warning_]:
    """An override that contradicts the slide is obeyed, and said."""
    found, own = slide.pixel_size_source, slide.metadata_pixel_size
    if found.source != "override" or own is None:
        return []
    if abs(found.pixel_size.mean_um - own.mean_um) <= _PIXEL_SIZE_TOLERANCE * own.mean_um:
        return []
    message = (
        f"The pixel size that was given ({found.pixel_size.mean_um:.4g} µm) stands against {own.mean_um:.4g} µm in the slide; "
        "the given one was used."
    )
    return [Warning_("pixel_size_overridden", message)]


def _slide_facts(slide: Slide) -> dict[str, Any]:
    pixel_size = slide.pixel_size
    return {
        "fingerprint": slide.fingerprint,
        "width": slide.size_l0.width,
        "height": slide.size_l0.height,
        "pixel_width_um": pixel_size.x_um,
        "pixel_height_um": pixel_size.y_um,
    }


def _summary(analysis: Analysis, checked: CheckedRequest) -> dict[str, Any]:
    parameters = checked.parameters
    region: Mapping[str, Any] | None = None if parameters.region_l0 is None else mapping(parameters.region_l0)
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
            "region_l0": region,
        },
    )
    own = [{"code": warning.code, "message": warning.message} for warning in checked.warnings]
    if own:
        summary["warnings"] = own + summary["warnings"]
        summary["outcome"] = "ok_with_warnings" if summary["outcome"] == "ok" else summary["outcome"]
    return summary


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
