from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from hepamap.geometry import Region
from hepamap.verdicts.truth import last_ones, truth_of
from hepamap.verdicts.verdict import Verdict
from tests.verdicts.opinions import MODEL, SLIDE, box, opinion

BOUNDS = Region(0, 0, 100, 100)
_numbers = count()


def verdict(area: BaseGeometry | None, region: BaseGeometry | None = None, job: str = "job", **values: Any) -> Verdict:
    slide = replace(SLIDE, region_l0=None if region is None else mapping(region))
    return Verdict(f"v{next(_numbers)}", job, datetime(2026, 1, 1, tzinfo=UTC), "key:1", opinion(area, **values), slide, MODEL)


def check(verdicts: list[Verdict], tumour: BaseGeometry, non_tumour: BaseGeometry) -> None:
    truth = truth_of(verdicts, BOUNDS)
    assert truth.tumour_l0.symmetric_difference(tumour).area == 0
    assert truth.non_tumour_l0.symmetric_difference(non_tumour).area == 0


NOTHING = shapely.MultiPolygon()


def test_on_a_whole_slide_all_the_rest_is_not_tumour() -> None:
    tumour = box(10, 10, 30, 30)
    check([verdict(tumour)], tumour, box(0, 0, 100, 100).difference(tumour))
    check([verdict(NOTHING)], NOTHING, box(0, 0, 100, 100))


def test_on_a_region_nobody_spoke_of_the_rest() -> None:
    tumour, region = box(10, 10, 30, 30), box(0, 0, 50, 50)
    check([verdict(tumour, region)], tumour, region.difference(tumour))
    # What was drawn beyond the region is tumour all the same.
    beyond = box(40, 40, 60, 60)
    check([verdict(beyond, region)], beyond, region.difference(beyond))


def test_a_rejected_one_says_nothing() -> None:
    check([verdict(None)], NOTHING, NOTHING)
    tumour, region = box(10, 10, 30, 30), box(0, 0, 50, 50)
    check([verdict(tumour, region), verdict(None, job="other")], tumour, region.difference(tumour))


def test_where_two_speak_of_one_place_the_newer_one_counts() -> None:
    older = verdict(box(0, 0, 60, 60))
    newer = verdict(box(40, 40, 50, 50), box(30, 30, 100, 100))
    tumour = box(0, 0, 60, 60).difference(box(30, 30, 100, 100)).union(box(40, 40, 50, 50))
    check([older, newer], tumour, box(0, 0, 100, 100).difference(tumour))
    check([newer, older], box(0, 0, 60, 60), box(0, 0, 100, 100).difference(box(0, 0, 60, 60)))


def test_of_each_analysis_the_last_one_counts() -> None:
    first, second, other = verdict(box(0, 0, 1, 1)), verdict(None), verdict(box(0, 0, 2, 2), job="other")
    assert last_ones([first, other, second]) == {"job": second, "other": other}
