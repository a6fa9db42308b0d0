"""Requests and answers about verdicts and thresholds, as the OpenAPI document shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from hepamap import RESEARCH_USE_ONLY
from hepamap.api.schemas import Answer, FrameAnswer, RequestBody
from hepamap.verdicts.verdict import Decision

_SQUARE: dict[str, Any] = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
# PostgreSQL stores no NUL.
_NO_NUL = r"^[^\x00]*$"
UserName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_NO_NUL)]


class ThresholdRequest(RequestBody):
    """The threshold that a person found right."""

    threshold: FiniteFloat = Field(description="Tumour probability, above 0 and below 1.", examples=[0.62])
    user: UserName = Field(description="Who chose it.", examples=["A. Pathologist"])


class VerdictRequest(RequestBody):
    """What a person says about the contours of an analysis."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"decision": "accepted", "user": "A. Pathologist", "threshold": 0.62},
                {"decision": "edited", "user": "A. Pathologist", "threshold": 0.62, "geometry": _SQUARE},
                {"decision": "rejected", "user": "A. Pathologist", "reason": "Stained with reticulin, not H&E."},
            ]
        },
    )

    decision: Decision = Field(
        description="`accepted`: the contours, and nothing else in the analysed part, are tumour. `edited`: `geometry` is. "
        "`rejected`: the contours are of no use.",
    )
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000, pattern=_NO_NUL)] | None = Field(
        default=None, description="Why; required for `rejected`.", examples=["Necrosis was taken for tumour."]
    )
    user: UserName = Field(description="Who says so.", examples=["A. Pathologist"])
    threshold: FiniteFloat | None = Field(
        default=None,
        description="Threshold of the contours that the person saw; the chosen one, else that of the request, where left out.",
        examples=[0.62],
    )
    min_area_um2: FiniteFloat | None = Field(
        default=None, ge=0, description="Smaller contours were left out, µm²; as in the request where left out.", examples=[10000]
    )
    geometry: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="For `edited` only: GeoJSON polygons (geometry, Feature, FeatureCollection or list) of all tumour, in the "
        "frame of the analysis; an empty collection says that there is none.",
        examples=[_SQUARE],
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.decision is Decision.REJECTED and not self.reason:
            raise ValueError("a rejected one needs a reason")
        if (self.decision is Decision.EDITED) != (self.geometry is not None):
            raise ValueError("an edited one needs its geometry, and no other one has any")
        return self


class VerdictAnswer(Answer):
    """A stored verdict. It is never changed; of several on one analysis the last one counts."""

    id: str = Field(description="Its id.", examples=["0c7a4f6e-3f39-4c88-a9a1-7b8c5b0f4f10"])
    analysis: str = Field(description="Id of the analysis.", examples=["5f0c2b0e-6a55-4c0a-9d0b-0f0f5f3f9a11"])
    at: datetime = Field(description="When it was stored (UTC).")
    decision: Decision = Field(description="What was said.", examples=["edited"])
    reason: str | None = Field(description="Why, where it was said.", examples=[None])
    user: str = Field(description="Who said so, as the client said.", examples=["A. Pathologist"])
    actor: str = Field(description="Whose key or token it came with, as in the audit trail.", examples=["key:9f2c01ab77de"])
    threshold: float = Field(description="Threshold of the contours.", examples=[0.62])
    min_area_um2: float = Field(description="Smaller contours were left out, µm².", examples=[10000])
    iou: float | None = Field(
        description="Intersection over union of the final area with the contours: 1 where accepted, null where rejected.",
        examples=[0.93],
    )
    area_mm2: float | None = Field(description="The final area, mm²; null for a rejected one.", examples=[41.7])
    slide: str = Field(description="Fingerprint of the slide.")
    model: str = Field(description="Model that drew the contours.", examples=["hcc-10x@1.0.0"])
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class VerdictWithGeometry(VerdictAnswer):
    """A stored verdict with its final area."""

    frame: FrameAnswer = Field(description="The frame of `geometry`.")
    geometry: dict[str, Any] | None = Field(
        description="GeoJSON MultiPolygon of the final tumour area; null for a rejected one.", examples=[_SQUARE]
    )


class VerdictList(Answer):
    """The verdicts on one analysis."""

    items: list[VerdictAnswer] = Field(description="Oldest first; the last one counts. Geometries: `GET /verdicts/{id}`.")
    notice: str = Field(default=RESEARCH_USE_ONLY, description="What results may be used for.")


class VerdictPageAnswer(VerdictList):
    """Verdicts on all analyses."""

    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.", examples=[None])
