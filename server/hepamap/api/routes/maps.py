"""The probability map of an analysis: as pictures and arrays, and where its cells lie."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from hepamap import RESEARCH_USE_ONLY
from hepamap.api.representations import has_it, not_modified, tag_headers, tagged
from hepamap.api.routes.analyses import AnalysisId, find_analysis
from hepamap.api.routes.problems import problems
from hepamap.api.schemas import Answer, FrameAnswer
from hepamap.api.services import Services, ServicesOf
from hepamap.api.stored import etag_of_result, frame_named, require_finished, result_of
from hepamap.api.views import chosen_of
from hepamap.errors import ModelError, ResultDamagedError
from hepamap.jobs.job import Job
from hepamap.model_pack import find_pack
from hepamap.results import OME_TIFF_NAME, PNG_NAME, StoredResult, frame_json

router = APIRouter(prefix="/analyses/{analysis_id}", tags=["results"])

MapFormat = Literal["png", "color", "ome-tiff", "npy", "index8", "json"]
_MAP_FILES: dict[MapFormat, tuple[str, str]] = {
    "png": (PNG_NAME, "image/png"),
    "ome-tiff": (OME_TIFF_NAME, "image/tiff"),
    "npy": ("probability-map.npy", "application/octet-stream"),
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class OperatingPointAnswer(Answer):
    """A named threshold of a model."""

    name: str = Field(description="Its name.", examples=["balanced"])
    threshold: float = Field(description="Tumour probability, above 0 and below 1.", examples=[0.5])
    sensitivity: float | None = Field(description="Measured share of tumour found; null where nobody measured.", examples=[0.93])
    specificity: float | None = Field(description="Measured share of non-tumour left alone, or null.", examples=[0.95])


class MapModelAnswer(Answer):
    """The model that made a map."""

    id: str = Field(description="Name.", examples=["hcc-10x"])
    version: str = Field(description="Version.", examples=["1.0.0"])
    weights_sha256: str = Field(description="SHA-256 of its weights.", examples=["9b74c9897bac770f…"])


class MapAnswer(Answer):
    """Where the cells of a map lie on the slide, and what is needed to show it; coordinates in px of the full resolution."""

    columns: int = Field(description="Cells along x: the width of the map as a picture.", examples=[1700])
    rows: int = Field(description="Cells along y.", examples=[850])
    x: float = Field(description="Left edge of the first cell; may be left of the slide.", examples=[-32.0])
    y: float = Field(description="Upper edge of the first cell.", examples=[-32.0])
    width: float = Field(description="Of all cells together.", examples=[108800.0])
    height: float = Field(description="Of all cells together.", examples=[54400.0])
    cell_width: float = Field(description="Of one cell.", examples=[64.0])
    cell_height: float = Field(description="Of one cell.", examples=[64.0])
    no_data: int = Field(default=0, description="In `index8`: the value of cells without tissue.", examples=[0])
    frame: FrameAnswer = Field(description="The frame of these coordinates.")
    model: MapModelAnswer = Field(description="The model that made the map.")
    threshold: float = Field(description="At which contours come unless another one is asked for.", examples=[0.5])
    operating_points: list[OperatingPointAnswer] = Field(
        description="Named thresholds of the model, as it is installed; none where it is not installed any more."
    )
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


@router.get(
    "/probability-map",
    response_class=Response,
    responses={
        200: {
            "description": "The map, one value per cell; or where it lies (`json`).",
            "content": {
                "image/png": _BINARY,
                "image/tiff": _BINARY,
                "application/octet-stream": _BINARY,
                "application/json": {"schema": {"$ref": "#/components/schemas/MapAnswer"}},
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
            description="`png`: grey, 8 bit, transparent where there is no data. `index8`: the same for programs, 0 where there "
            "is none, else v from 1 to 255 for the probability (v - 1) / 254. `json`: where the cells lie. `color`: for people. "
            "`ome-tiff`: pyramid with physical sizes, opens in QuPath. `npy`: float32 as computed, NaN where there is no data."
        ),
    ] = "png",
    frame: Annotated[
        Literal["client", "level0", "bounds"], Query(description="Of `json`: the client's frame, or another one.")
    ] = "client",
) -> Response:
    """The tumour probability of every cell."""
    job = find_analysis(analysis_id, services)
    require_finished(job, services)
    if format == "json":
        return _described(job, request, services, frame)
    etag = etag_of_result(job, "map", format)
    if has_it(request.headers, etag):
        return not_modified(etag)
    result = result_of(job, services)
    if format in ("color", "index8"):
        picture = result.colour_png() if format == "color" else result.index_png()
        return Response(picture, media_type="image/png", headers=tag_headers(etag))
    name, media_type = _MAP_FILES[format]
    path = result.folder / name
    if not path.is_file():
        raise ResultDamagedError(f"The file {name} of the analysis is gone.", cure="Ask for the analysis again.")
    return FileResponse(path, media_type=media_type, filename=f"{job.id}-{name}", headers=tag_headers(etag))


def _described(job: Job, request: Request, services: Services, frame: str) -> Response:
    result = result_of(job, services)
    chosen = chosen_of(job, services)
    threshold = result.summary["parameters"]["threshold"] if chosen is None else chosen.threshold
    text = map_answer(result, frame, threshold, services).model_dump_json()
    etag = etag_of_result(job, text)
    return not_modified(etag) if has_it(request.headers, etag) else tagged(request.headers, text, "application/json", etag)


def map_answer(result: StoredResult, frame_name: str, threshold: float, services: Services) -> MapAnswer:
    """Where the cells of a map lie, in a frame."""
    frame, lattice = frame_named(frame_name, result), result.map.lattice
    region_l0, cell_l0 = lattice.region_l0, lattice.cell_size_l0
    model = result.summary["provenance"]["model"]
    return MapAnswer(
        columns=lattice.columns,
        rows=lattice.rows,
        x=region_l0.x - frame.offset_x,
        y=region_l0.y - frame.offset_y,
        width=region_l0.width,
        height=region_l0.height,
        cell_width=cell_l0.x,
        cell_height=cell_l0.y,
        frame=FrameAnswer.model_validate(frame_json(frame)),
        model=MapModelAnswer.model_validate({name: model[name] for name in ("id", "version", "weights_sha256")}),
        threshold=threshold,
        operating_points=_operating_points(model, services),
    )


def _operating_points(model: dict[str, Any], services: Services) -> list[OperatingPointAnswer]:
    try:
        manifest = find_pack(services.settings.models_dir, f"{model['id']}@{model['version']}").manifest
    except ModelError:
        return []
    if manifest.weights.sha256 != model["weights_sha256"]:
        return []  # what was measured with other weights says nothing about this map
    return [OperatingPointAnswer.model_validate(point.model_dump()) for point in manifest.operating_points]
