"""From verdicts on one slide to where tumour is, where it is not, and where nobody said; level-0 px."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Region
from hepamap.regions import polygonal
from hepamap.verdicts.verdict import Decision, Verdict


@dataclass(frozen=True, slots=True)
class Truth:
    """What people said about a slide; the areas do not overlap."""

    tumour_l0: BaseGeometry
    non_tumour_l0: BaseGeometry
    """Looked at and not tumour: glass too, which has no patches anyway."""


def last_ones(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Of each analysis the verdict that counts: the last one, by the analysis's id.

    Args:
        verdicts: oldest first.
    """
    return {verdict.job_id: verdict for verdict in verdicts}


def says_where(verdict: Verdict) -> bool:
    """Whether a verdict says where tumour is: a rejected one does not, and must never become truth."""
    return verdict.opinion.decision is not Decision.REJECTED


def truth_of(verdicts: Iterable[Verdict], slide_l0: Region) -> Truth:
    """Lay the verdicts on one slide over each other: where two speak of one place, the newer one counts.

    Args:
        verdicts: oldest first, with their geometries; rejected ones say nothing.
        slide_l0: the scanned part of the slide.
    """
    whole = shapely.box(slide_l0.x, slide_l0.y, slide_l0.right, slide_l0.bottom)
    nothing: BaseGeometry = shapely.MultiPolygon()
    tumour, non_tumour, spoken = nothing, nothing, nothing
    for verdict in reversed(list(verdicts)):
        opinion, region = verdict.opinion, verdict.slide.region_l0
        if not says_where(verdict) or opinion.geometry_l0 is None:
            continue
        drawn = _shape(opinion.geometry_l0)
        # What was drawn beyond the analysed part is tumour all the same: a person says so.
        about = (whole if region is None else _shape(region)).union(drawn).difference(spoken)
        tumour = tumour.union(about.intersection(drawn))
        non_tumour = non_tumour.union(about.difference(drawn))
        spoken = spoken.union(about)
    return Truth(polygonal(tumour), polygonal(non_tumour))


def _shape(geometry: Mapping[str, Any]) -> BaseGeometry:
    found = shape(dict(geometry))
    return found if found.is_valid else shapely.make_valid(found)
