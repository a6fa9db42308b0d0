"""A request against its slide and its model: refused before anything is computed, or with every default filled in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shapely import normalize, to_wkb

from hepamap import __version__
from hepamap.detection.request import ClientView, DetectionRequest
from hepamap.errors import ModelChangedError, ParameterError, SlideMismatchError
from hepamap.geometry import PixelSize, Point
from hepamap.maps import require_dense_stride, require_segment_stride
from hepamap.model_pack import ModelPack, find_pack
from hepamap.pipeline import AnalysisParameters, require_stride
from hepamap.pixel_size import agree
from hepamap.plausibility import Warning_
from hepamap.regions import bare_region, parse_region
from hepamap.results import Frame, frame_json, require_threshold
from hepamap.slide import Slide

DEFAULT_MIN_AREA_UM2 = 10_000.0


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
            # What else a client's objects hold is nobody's business, and may be what a database does not store.
            region=None if request.region is None else bare_region(request.region),
        )

    @property
    def key(self) -> str:
        """What the run says, as a hash: slide, scale, weights, parameters, region, frame, warnings. Equal keys, equal results."""
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
            # They stand in the result: nobody is told what only another one's viewer gave cause for.
            "warnings": [(warning.code, warning.message) for warning in self.warnings],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_request(request: DetectionRequest, models_dir: Path) -> CheckedRequest:
    """Refuse what cannot be run, before anything is computed; cheap, and without keras.

    Raises:
        SlideError, RegionError, ParameterError, ModelError: see each.
    """
    pack = find_pack(models_dir, request.model)
    with open_slide(request) as slide:
        return check(request, pack, slide)


def open_slide(request: DetectionRequest) -> Slide:
    """Open the slide of a request, at the pixel size that the request or its viewer says.

    Raises:
        SlideError: it cannot be opened.
    """
    client = None if request.client_view is None else request.client_view.pixel_size
    return Slide.open(request.slide_path, mpp_override_um=request.mpp_override_um, client_pixel_size=client)


def check(request: DetectionRequest, pack: ModelPack, slide: Slide) -> CheckedRequest:
    """As `check_request`, with pack and slide at hand."""
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
    return CheckedRequest(pack, parameters, frame, _slide_facts(slide), _pixel_size_warnings(slide, request.client_view))


def frame_of(slide: Slide, client_view: ClientView | None, name: str | None) -> Frame:
    """Choose the coordinate system that the client sees.

    Args:
        slide: the open slide.
        client_view: what the client's viewer shows, which decides the frame.
        name: `level0` or `bounds`, of a client without a viewer; None: level0.

    Raises:
        SlideMismatchError: the client has another slide open.
        ParameterError: both a view and a name are given.
    """
    if client_view is not None and name is not None:
        raise ParameterError(
            f"A frame ({name}) and a client's view were given; the view says the frame already.",
            cure="Give one of them: the view for a viewer, else the frame.",
        )
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
    """The viewer must agree with the slide, or with the pixel size that a person gave: who corrects one may correct both."""
    seen, own, override = view.pixel_size, slide.metadata_pixel_size, slide.override_pixel_size
    if seen is None or own is None or agree(seen, own) or (override is not None and agree(seen, override)):
        return
    raise SlideMismatchError(
        f"The viewer says {_text(seen)} per pixel, the slide says {_text(own)}"
        + ("." if override is None else f", and {_text(override)} was given."),
        cure="Check that both have the same slide, and that nobody changed the pixel size in the viewer.",
    )


def _pixel_size_warnings(slide: Slide, view: ClientView | None) -> list[Warning_]:
    """An override that contradicts the slide, or the viewer where the slide is silent, is obeyed, and said."""
    override, own = slide.override_pixel_size, slide.metadata_pixel_size
    known, where = (own, "in the slide") if own is not None or view is None else (view.pixel_size, "in the viewer")
    if override is None or known is None or agree(override, known):
        return []
    message = f"The pixel size that was given ({_text(override)}) stands against {_text(known)} {where}; the given one was used."
    return [Warning_("pixel_size_overridden", message)]


def _text(pixel_size: PixelSize) -> str:
    return f"{pixel_size.x_um:.4g} × {pixel_size.y_um:.4g} µm"


def _slide_facts(slide: Slide) -> dict[str, Any]:
    pixel_size = slide.pixel_size
    return {
        "fingerprint": slide.fingerprint,
        "width": slide.size_l0.width,
        "height": slide.size_l0.height,
        "pixel_width_um": pixel_size.x_um,
        "pixel_height_um": pixel_size.y_um,
    }
