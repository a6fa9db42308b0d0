"""Slides: does the server see the file, and is it the one that the client has open."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from hepamap.api.errors import SlideNotAllowedError
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import FrameAnswer
from hepamap.api.services import ServicesOf
from hepamap.api.slide_paths import SlideFolders
from hepamap.api.slide_schemas import ReasonAnswer, ResolvedAnswer, ResolveRequest, SlideAnswer
from hepamap.detection import ClientView, frame_of
from hepamap.errors import PixelSizeMissingError, SlideError, SlideMismatchError
from hepamap.geometry import PixelSize
from hepamap.results import Frame, frame_json
from hepamap.slide import Slide

router = APIRouter(prefix="/slides", tags=["slides"])


@router.post("/resolve", responses=problems(s400="The body cannot be read as text.", s422="The request is not valid."))
def resolve_slide(wanted: ResolveRequest, services: ServicesOf) -> ResolvedAnswer:
    """Say whether the server sees a slide under a client's path, and whether it is the client's slide; always 200."""
    try:
        return services.readers.run(_look_for, services.slide_folders, wanted)
    except SlideNotAllowedError as error:
        return ResolvedAnswer(reason=ReasonAnswer(code=error.reason, message=error.message, cure=error.cure))
    except SlideError as error:
        return ResolvedAnswer(reason=ReasonAnswer(code=error.code, message=error.message, cure=error.cure))


def _look_for(folders: SlideFolders, wanted: ResolveRequest) -> ResolvedAnswer:
    # In the child too: following the links of a path asks its storage, which may not answer.
    return _look_at(folders.find(wanted.path), wanted)


def _look_at(path: Path, wanted: ResolveRequest) -> ResolvedAnswer:
    view = _view_of(wanted)
    client = None
    if wanted.pixel_width_um is not None and wanted.pixel_height_um is not None:
        client = PixelSize(wanted.pixel_width_um, wanted.pixel_height_um)
    # An analysis may still be asked for with a pixel size, as of a slide that says none.
    with Slide.open(path, client_pixel_size=client, senseless_is_missing=True) as slide:
        try:
            frame = frame_of(slide, view, None)
        except SlideMismatchError as error:
            reason = ReasonAnswer(code=error.code, message=error.message, cure=error.cure)
            return ResolvedAnswer(visible=True, same_slide=False, slide=_facts(slide, None), reason=reason)
        return ResolvedAnswer(visible=True, same_slide=None if view is None else True, slide=_facts(slide, frame))


def _view_of(wanted: ResolveRequest) -> ClientView | None:
    if wanted.width is None or wanted.height is None:
        return None
    return ClientView(wanted.width, wanted.height, wanted.pixel_width_um, wanted.pixel_height_um)


def _facts(slide: Slide, frame: Frame | None) -> SlideAnswer:
    try:
        pixel_size: PixelSize | None = slide.pixel_size
    except PixelSizeMissingError:
        pixel_size = None
    return SlideAnswer(
        path=str(slide.path),
        fingerprint=slide.fingerprint,
        width=slide.size_l0.width,
        height=slide.size_l0.height,
        pixel_width_um=None if pixel_size is None else pixel_size.x_um,
        pixel_height_um=None if pixel_size is None else pixel_size.y_um,
        frame=None if frame is None else FrameAnswer.model_validate(frame_json(frame)),
    )
