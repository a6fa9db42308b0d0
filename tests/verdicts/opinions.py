"""Verdicts that the tests of this folder share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import PixelSize, Point
from hepamap.results import Frame
from hepamap.verdicts.judging import plain
from hepamap.verdicts.store import VerdictStore
from hepamap.verdicts.verdict import Decision, ModelFacts, Opinion, SlideFacts, Verdict

SLIDE = SlideFacts("fingerprint-1", "/slides/a.tif", PixelSize(0.5, 0.5), Frame("bounds", Point(10.0, 20.0)), None, None)
MODEL = ModelFacts("hcc-5x", "1.0.0", "ab" * 32)


def opinion(area: BaseGeometry | None = None, **values: Any) -> Opinion:
    """An edited one where there is an area, else a rejected one."""
    own = Opinion(
        decision=Decision.REJECTED if area is None else Decision.EDITED,
        reason=None,
        user="A. Pathologist",
        threshold=0.5,
        min_area_um2=10_000.0,
        geometry_l0=None if area is None else plain(area),
        iou=None if area is None else 0.75,
        area_mm2=None if area is None else area.area / 4e6,
    )
    return replace(own, **values)


def say(store: VerdictStore, job_id: str, area: BaseGeometry | None = None, slide: SlideFacts = SLIDE, **values: Any) -> Verdict:
    return store.add(job_id, opinion(area, **values), slide, MODEL, actor="key:1")


def box(left: float, top: float, right: float, bottom: float) -> BaseGeometry:
    return shapely.box(left, top, right, bottom)
