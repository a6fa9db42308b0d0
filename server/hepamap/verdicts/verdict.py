"""The values that describe verdicts and chosen thresholds. All times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from hepamap.geometry import PixelSize
from hepamap.results import Frame


class Decision(StrEnum):
    """What a person said of the contours at a threshold."""

    ACCEPTED = "accepted"
    """They are right: they, and nothing else in the analysed part, are tumour."""
    EDITED = "edited"
    """They were changed: what the person left, and nothing else in the analysed part, is tumour."""
    REJECTED = "rejected"
    """They are of no use; says nothing about where there is tumour."""


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """Which slide, so that a verdict says what it is about when the analysis is gone."""

    fingerprint: str
    path: str
    """As the server sees it."""
    pixel_size: PixelSize
    frame: Frame
    """The client's."""
    region_l0: Mapping[str, Any] | None
    """GeoJSON of the part that was analysed, level-0 px; None: the whole slide."""
    case: str | None
    """Pseudonym of the case: equal for slides that were sent with one accession number; None where none was sent."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model drew the contours."""

    id: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a person says, with what follows from it."""

    decision: Decision
    reason: str | None
    user: str
    """The name that the client gives; `Verdict.actor` is who proved it."""
    threshold: float
    min_area_um2: float
    geometry_l0: Mapping[str, Any] | None
    """GeoJSON of the final tumour area, level-0 px, perhaps without any part; None for a rejected one."""
    iou: float | None
    """Intersection over union of the final area with the contours; None for a rejected one."""
    area_mm2: float | None
    """Of the final area; None for a rejected one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An opinion about one analysis, as it was stored; never changed. Of several on one analysis the last one counts."""

    id: str
    job_id: str
    at: datetime
    actor: str
    """Who sent it, as in the audit trail."""
    opinion: Opinion
    slide: SlideFacts
    model: ModelFacts


@dataclass(frozen=True, slots=True)
class VerdictPage:
    """Some verdicts, oldest first, without their geometries; and whether newer ones follow."""

    verdicts: tuple[Verdict, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """The threshold that a person found right for an analysis."""

    threshold: float
    user: str
    at: datetime
