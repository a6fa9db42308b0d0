"""Contours of an analysis at any threshold, from what the worker stored."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import FiniteFloat

from hepamap.api.representations import has_it, not_modified, tagged
from hepamap.api.routes.analyses import AnalysisId, find_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.services import ServicesOf
from hepamap.api.stored import etag_of_result, frame_named, require_finished, result_of
from hepamap.api.views import chosen_of
from hepamap.errors import ParameterError
from hepamap.features import to_text
from hepamap.results import require_threshold

router = APIRouter(prefix="/analyses/{analysis_id}", tags=["results"])

GEOJSON_TYPE = "application/geo+json"


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
        Query(
            description="Tumour probability, above 0 and below 1; where left out, the one that a person chose, else as in the "
            "request.",
            examples=[0.7],
        ),
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
    """Tumour contours at a threshold, from the stored map; the model does not run again.

    The collection's `properties` have the run's `outcome` and `warning_codes`. Of an analysis that is `not_evaluable` there are
    no contours at any threshold, and `tumour_area_mm2` is null.
    """
    job = find_analysis(analysis_id, services)
    require_finished(job, services)
    if min_area_um2 is not None and min_area_um2 < 0:
        raise ParameterError(f"The minimum area {min_area_um2:g} µm² is below zero.", cure="Use 0 or more.")
    if threshold is None:
        chosen = chosen_of(job, services)
        threshold = None if chosen is None else chosen.threshold
    else:
        require_threshold(threshold)
    etag = etag_of_result(job, "contours", threshold, min_area_um2, frame)
    if has_it(request.headers, etag):
        return not_modified(etag)
    result = result_of(job, services)
    contours = result.contours(threshold=threshold, min_area_um2=min_area_um2, frame=frame_named(frame, result))
    return tagged(request.headers, to_text(contours), GEOJSON_TYPE, etag)
