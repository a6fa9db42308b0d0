"""Results of an analysis: contours at any threshold, and the probability map; all from what the worker stored."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import FiniteFloat

from hepamap import __version__
from hepamap.api.errors import AnalysisNotFinishedError
from hepamap.api.representations import etag_of, has_it, not_modified, tag_headers, tagged
from hepamap.api.routes.analyses import AnalysisId, find_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.services import Services, ServicesOf
from hepamap.api.views import failure_answer
from hepamap.errors import ParameterError, ResultDamagedError
from hepamap.features import to_text
from hepamap.geometry import Point
from hepamap.jobs.job import Job
from hepamap.jobs.states import JobState
from hepamap.results import OME_TIFF_NAME, PNG_NAME, Frame, StoredResult, open_result

router = APIRouter(prefix="/analyses/{analysis_id}", tags=["results"])

GEOJSON_TYPE = "application/geo+json"
MapFormat = Literal["png", "color", "ome-tiff", "npy"]
_MAP_FILES: dict[MapFormat, tuple[str, str]] = {
    "png": (PNG_NAME, "image/png"),
    "ome-tiff": (OME_TIFF_NAME, "image/tiff"),
    "npy": ("probability-map.npy", "application/octet-stream"),
}


@router.get(
    "/contours",
    response_class=Response,
    responses={
        200: {
            "description": "A GeoJSON FeatureCollection that QuPath imports as it is.",
            "content": {GEOJSON_TYPE: {"schema": {"type": "object"}}},
        },
        304: {"description": "It is as the client has it (`If-None-Match`)."},
        **problems(
            s404="There is no analysis of that id.",
            s409="It has no result (yet).",
            s422="The threshold is not a probability, or another parameter is not valid.",
        ),
    },
)
def get_contours(
    analysis_id: AnalysisId,
    request: Request,
    services: ServicesOf,
    threshold: Annotated[
        FiniteFloat | None,
        Query(description="Tumour probability, above 0 and below 1; as in the request where left out.", examples=[0.7]),
    ] = None,
    min_area_um2: Annotated[
        FiniteFloat | None,
        Query(description="Smaller contours are left out, µm²; as in the request where left out.", examples=[10000]),
    ] = None,
    frame: Annotated[
        Literal["client", "level0", "bounds"],
        Query(description="Frame of the coordinates: the client's (see `frame` of the analysis), or another one."),
    ] = "client",
) -> Response:
    """Tumour contours at a threshold, from the stored map; the model does not run again."""
    job = find_analysis(analysis_id, services)
    result = _result_of(job, services)
    if min_area_um2 is not None and min_area_um2 < 0:
        raise ParameterError(f"The minimum area {min_area_um2:g} µm² is below zero.", cure="Use 0 or more.")
    etag = _etag_of(job, "contours", threshold, min_area_um2, frame)
    if has_it(request.headers, etag):
        return not_modified(etag)
    contours = result.contours(threshold=threshold, min_area_um2=min_area_um2, frame=_frame_of(frame, result))
    return tagged(request.headers, to_text(contours), GEOJSON_TYPE, etag)


@router.get(
    "/probability-map",
    response_class=Response,
    responses={
        200: {
            "description": "The map, one value per cell.",
            "content": {
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                "image/tiff": {"schema": {"type": "string", "format": "binary"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        304: {"description": "It is as the client has it (`If-None-Match`)."},
        **problems(
            s404="There is no analysis of that id.",
            s409="It has no result (yet).",
            s422="The format is not one of these.",
        ),
    },
)
def get_probability_map(
    analysis_id: AnalysisId,
    request: Request,
    services: ServicesOf,
    format: Annotated[  # the name of the parameter in the URL
        MapFormat,
        Query(
            description="`png`: grey, 8 bit. `color`: for people, transparent where there is no data. `ome-tiff`: pyramid with "
            "physical sizes, opens in QuPath. `npy`: float32 as computed, NaN where there is no data."
        ),
    ] = "png",
) -> Response:
    """The tumour probability of every cell."""
    job = find_analysis(analysis_id, services)
    result = _result_of(job, services)
    etag = _etag_of(job, "map", format)
    if has_it(request.headers, etag):
        return not_modified(etag)
    if format == "color":
        return Response(result.colour_png(), media_type="image/png", headers=tag_headers(etag))
    name, media_type = _MAP_FILES[format]
    path = result.folder / name
    if not path.is_file():
        raise ResultDamagedError(f"The file {name} of the analysis is gone.", cure="Ask for the analysis again.")
    return FileResponse(path, media_type=media_type, filename=f"{job.id}-{name}", headers=tag_headers(etag))


def _etag_of(job: Job, *question: object) -> str:
    """A result never changes, so what was asked of which run tells all; another version may draw it in another way."""
    return etag_of(__version__, job.id, job.finished_at, *question)


def _frame_of(name: str, result: StoredResult) -> Frame | None:
    """The frame that was asked for; None for the one of the run."""
    if name == "client":
        return None
    if name == "level0":
        return Frame("level0", Point(0.0, 0.0))
    left, top, *_ = result.summary["provenance"]["slide"]["bounds_l0"]
    return Frame("bounds", Point(left, top))


def _result_of(job: Job, services: Services) -> StoredResult:
    if job.result is None:
        raise _not_finished(job, services)
    return open_result(services.settings.results_dir / job.result.location)


def _not_finished(job: Job, services: Services) -> AnalysisNotFinishedError:
    failure = failure_answer(job, services)
    if failure is not None:
        return AnalysisNotFinishedError(f"The analysis failed ({failure.code}): {failure.message}", cure=failure.cure)
    if job.state is JobState.CANCELLED:
        return AnalysisNotFinishedError("The analysis was cancelled and has no result.", cure="Ask for it again.")
    return AnalysisNotFinishedError(
        f"The analysis is {job.state.value} and has no result yet.", cure="Ask again when its state is succeeded."
    )
