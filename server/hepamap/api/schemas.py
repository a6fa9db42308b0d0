"""Requests and answers of the REST interface, as the OpenAPI document shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from hepamap import RESEARCH_USE_ONLY
from hepamap.delivery.outbox import DEFAULT_SECRET
from hepamap.jobs.states import JobState

IdentityText = Annotated[str, Field(max_length=200)]
FrameName = Literal["level0", "bounds"]

_POLYGON: dict[str, Any] = {"type": "Polygon", "coordinates": [[[0, 0], [9000, 0], [9000, 9000], [0, 9000], [0, 0]]]}


class RequestBody(BaseModel):
    """Base of what clients send."""

    # A misspelt name must not silently leave a default in force.
    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of what they get."""

    model_config = ConfigDict(frozen=True)


class SlideReference(RequestBody):
    """Which slide."""

    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Path of the slide, inside one of the server's slide folders: as the server sees it, or by a prefix that "
        "it maps. Left out where a file is uploaded.",
        examples=["/slides/case-17.ndpi"],
    )
    upload: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Id of a finished upload (`/uploads`), instead of a path.",
        examples=["0c7a4f6e-3f39-4c88-a9a1-7b8c5b0f4f10"],
    )


class ClientView(RequestBody):
    """The slide as the client's viewer shows it: chooses the frame, and keeps contours off the wrong slide."""

    width: int = Field(gt=0, description="Width of the image, px.", examples=[10439])
    height: int = Field(gt=0, description="Height of the image, px.", examples=[7641])
    pixel_width_um: FiniteFloat | None = Field(
        default=None, gt=0, description="Pixel width, µm; null where the viewer does not know it.", examples=[0.3225]
    )
    pixel_height_um: FiniteFloat | None = Field(
        default=None, gt=0, description="Pixel height, µm; null where the viewer does not know it.", examples=[0.3225]
    )


class Identity(RequestBody):
    """Whose slide it is, by the sender's own names; given back unchanged and never logged.

    Nothing is computed from it, but that slides of one accession stay together when verdicts are exported.
    """

    accession: IdentityText | None = Field(default=None, description="Case or accession number.", examples=["S26-1234"])
    specimen: IdentityText | None = Field(default=None, description="Specimen.", examples=["A"])
    block: IdentityText | None = Field(default=None, description="Block.", examples=["A1"])
    slide_barcode: IdentityText | None = Field(
        default=None, description="Barcode on the slide's label.", examples=["S26-1234-A1-1"]
    )


class Callback(RequestBody):
    """Whom to tell when an analysis has finished, by a signed POST."""

    url: str = Field(min_length=1, description="http or https address.", examples=["https://lis.hospital.org/hepamap"])
    secret_id: str = Field(
        default=DEFAULT_SECRET,
        min_length=1,
        max_length=64,
        description="Name of the secret that signs it, as the operator gave it.",
        examples=["lis"],
    )


class AnalysisRequest(RequestBody):
    """What to analyse, and how; only the slide is required."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"slide": {"path": "/slides/case-17.ndpi"}, "model": "hcc-10x", "threshold": 0.5, "region": _POLYGON}]
        },
    )

    slide: SlideReference = Field(default=SlideReference(), description="The slide; `path` unless a file is uploaded.")
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Model pack: `id` (its newest version) or `id@version`; the server's default where left out.",
        examples=["hcc-10x", "hcc-10x@1.0.0"],
    )
    stride: int | None = Field(
        default=None,
        description="Step between patches, px at the model's resolution; one of the model's strides, its default where left out.",
        examples=[32],
    )
    mode: Literal["patch", "dense", "segment"] | None = Field(
        default=None,
        description="How the map is computed: each patch alone, or the convolutions once over a large field; the model's "
        "default where left out.",
        examples=["patch"],
    )
    threshold: FiniteFloat | None = Field(
        default=None,
        description="Tumour probability from which a cell counts as tumour, above 0 and below 1; the model's default "
        "where left out. Contours can be asked for at other thresholds later.",
        examples=[0.5],
    )
    min_area_um2: FiniteFloat | None = Field(
        default=None,
        description="Smaller contours are left out, µm²; 0 keeps all; the program's default where left out.",
        examples=[10000],
    )
    mpp_um: FiniteFloat | None = Field(
        default=None,
        description="Pixel size of level 0, µm/px. Stands above what the slide says; for slides that say nothing or "
        "something wrong.",
        examples=[0.2527],
    )
    region: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="GeoJSON Polygon or MultiPolygon (or a Feature, a FeatureCollection or a list of them) to which the analysis "
        "is limited, in px of `client_view` where that is given, else of level 0.",
        examples=[_POLYGON],
    )
    client_view: ClientView | None = Field(default=None, description="The slide as the client's viewer shows it.")
    identity: Identity | None = Field(default=None, description="The sender's names of the slide, given back unchanged.")
    callback: Callback | None = Field(
        default=None, description="Whom to tell when it has finished; the server must be set up to call that host."
    )
    priority: int | None = Field(
        default=None,
        ge=-100,
        le=100,
        description="Higher comes first; within one priority, age decides. Left out: 10 for a region, 0 for a whole slide.",
        examples=[0],
    )
    recompute: bool = Field(
        default=False,
        description="Compute anew what was computed before, for a slide that is believed to be other than it was; what others "
        "were answered stays. What waits or runs is still joined.",
        examples=[False],
    )


class ProgressAnswer(Answer):
    """How far an analysis is."""

    done: int = Field(description="Units done in this stage.", examples=[1200])
    total: int | None = Field(description="Units in this stage; null while nobody knows.", examples=[4800])
    stage: str = Field(description="What is being done.", examples=["classifying"])
    fraction: float = Field(ge=0, le=1, description="Share of this stage that is done.", examples=[0.25])
    eta_s: float | None = Field(
        description="Seconds until this stage is done, at the pace so far; null while nobody knows.", examples=[42.5]
    )


class FrameAnswer(Answer):
    """The frame that contours come in: the client's."""

    name: FrameName = Field(
        description="`level0`: origin at OpenSlide's level-0 corner. `bounds`: origin at the corner of the scanned part, as "
        "QuPath shows slides.",
        examples=["level0"],
    )
    offset_x: float = Field(description="What was subtracted from level-0 x, px.", examples=[0])
    offset_y: float = Field(description="What was subtracted from level-0 y, px.", examples=[0])


class WarningAnswer(Answer):
    """A reason to look twice at a result."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str = Field(description="Stable name, for programs.", examples=["no_tissue"])
    message: str = Field(description="A sentence for a person.", examples=["No tissue was found on the slide."])


class FailureAnswer(Answer):
    """Why an analysis failed, or a model pack cannot be used."""

    code: str = Field(description="Stable name, for programs.", examples=["slide_damaged"])
    message: str = Field(description="The cause, for a person.", examples=["Level 0 of case-17.ndpi cannot be decoded."])
    cure: str = Field(description="What the person can do.", examples=["Copy the slide from the scanner again."])


class LinksAnswer(Answer):
    """Where to go from here; paths on this server."""

    self: str = Field(description="This analysis.", examples=["/api/v1/analyses/5f0…"])
    contours: str = Field(description="Its contours, once it has succeeded.", examples=["/api/v1/analyses/5f0…/contours"])
    probability_map: str = Field(
        description="Its probability map, once it has succeeded.", examples=["/api/v1/analyses/5f0…/probability-map"]
    )


class ChosenThresholdAnswer(Answer):
    """The threshold that a person found right for this slide."""

    threshold: float = Field(description="Tumour probability, above 0 and below 1.", examples=[0.62])
    user: str = Field(description="Who chose it, as the client said.", examples=["A. Pathologist"])
    at: datetime = Field(description="When (UTC).")


class AnalysisAnswer(Answer):
    """One analysis as it stands."""

    id: str = Field(description="Its id.", examples=["5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"])
    state: JobState = Field(description="queued → running → succeeded | failed | cancelled.", examples=["queued"])
    outcome: str | None = Field(
        description="Of one that succeeded: `ok`, `ok_with_warnings` or `not_evaluable`; else null.", examples=["ok"]
    )
    progress: ProgressAnswer = Field(description="How far it is.")
    frame: FrameAnswer = Field(description="The frame that its contours come in unless another is asked for.")
    warnings: list[WarningAnswer] = Field(description="Reasons to look twice at the result.")
    error: FailureAnswer | None = Field(description="Of one that failed: why; else null.")
    cancel_requested: bool = Field(description="A client has cancelled it.", examples=[False])
    created_at: datetime = Field(description="When it was asked for (UTC).")
    started_at: datetime | None = Field(description="When its last start was (UTC).")
    finished_at: datetime | None = Field(description="When it ended (UTC).")
    chosen_threshold: ChosenThresholdAnswer | None = Field(
        description="What a person chose (`PUT …/threshold`): contours come at it unless another one is asked for; else null."
    )
    identity: dict[str, str | None] | None = Field(
        description="As it was sent.", examples=[{"accession": "S26-1234", "slide_barcode": "S26-1234-A1-1"}]
    )
    request: dict[str, Any] = Field(
        description="What was asked for, as it was sent, without `identity`; of `callback` the `host` in place of the `url`.",
        examples=[{"slide": {"path": "/slides/case-17.ndpi"}, "model": "hcc-10x"}],
    )
    links: LinksAnswer = Field(description="Where to go from here.")
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class AnalysisList(Answer):
    """Analyses, newest first."""

    items: list[AnalysisAnswer] = Field(description="The analyses of this page; `request.region` is left out.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.", examples=[None])
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class ModelAnswer(Answer):
    """An installed model pack."""

    id: str = Field(description="Name.", examples=["hcc-10x"])
    version: str = Field(description="Version.", examples=["1.0.0"])
    name: str = Field(description="`id@version`, as a request can name it.", examples=["hcc-10x@1.0.0"])
    default: bool = Field(description="Whether requests that name no model use it.", examples=[True])
    manifest: dict[str, Any] = Field(
        description="All of `model.json`: network, resolution, strides, operating points, training, evaluation, licence, and "
        "the sha256 of the weights."
    )
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class ModelList(Answer):
    """The installed model packs."""

    items: list[ModelAnswer] = Field(description="By id, newest version first.")
    broken: list[FailureAnswer] = Field(description="Packs that cannot be used, and why.", examples=[[]])
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class LiveAnswer(Answer):
    """The process answers."""

    status: Literal["ok"] = Field(default="ok", description="Always `ok`.")


class CheckAnswer(Answer):
    """One thing that the server needs."""

    ok: bool = Field(description="Whether it is as it should be.", examples=[True])
    detail: str = Field(description="What was found, for a person.", examples=["one worker process, last seen 0.4 s ago"])


class ReadyAnswer(Answer):
    """Whether an analysis that is asked for now would be done."""

    status: Literal["ready", "not_ready"] = Field(description="`ready` where every check is ok.", examples=["ready"])
    checks: dict[str, CheckAnswer] = Field(description="database, disk, queue, worker, models.")
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class VersionAnswer(Answer):
    """Which software answers."""

    name: Literal["hepamap"] = Field(default="hepamap", description="The software.")
    version: str = Field(description="Its version.", examples=["0.1.0"])
    api: str = Field(default="v1", description="Version of the REST interface.")
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class ProblemField(Answer):
    """One member of a request that is not as it should be."""

    field: str = Field(description="Where it is.", examples=["body.threshold"])
    message: str = Field(description="What is wrong with it.", examples=["Input should be a valid number"])


class Problem(Answer):
    """A problem document (RFC 9457)."""

    type: str = Field(description="The code as a URN.", examples=["urn:hepamap:problem:slide_not_found"])
    title: str = Field(description="The HTTP status in words.", examples=["Not Found"])
    status: int = Field(description="HTTP status.", examples=[404])
    detail: str = Field(description="What is wrong, for a person.", examples=["There is no file /slides/case-17.ndpi."])
    code: str = Field(description="Stable name, for programs.", examples=["slide_not_found"])
    cure: str = Field(description="What the person can do.", examples=["Check the path."])
    instance: str = Field(description="Path of the request.", examples=["/api/v1/analyses"])
    errors: list[ProblemField] | None = Field(default=None, description="Of an invalid request: each thing that is wrong.")
    request_id: str | None = Field(default=None, description="Of an internal error: its id in the server's log.")
