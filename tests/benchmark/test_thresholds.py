import numpy as np

from hepamap.benchmark.thresholds import markdown, measure_thresholds, ragged_map
from hepamap.geometry import Size
from hepamap.pipeline import regions_of

SMALL = Size(170, 240)


def test_the_map_is_ragged_with_holes_and_glass() -> None:
    values = ragged_map(SMALL).values
    assert values.shape == (240, 170)
    assert 0.05 < np.isnan(values).mean() < 0.6
    regions = regions_of(ragged_map(SMALL), 0.5, 1e4, 1e4)
    assert len(regions) > 3
    assert any(len(region.polygon_l0.interiors) for region in regions)


def test_the_server_answers_what_tracing_finds() -> None:
    report = measure_thresholds(SMALL, (0.3, 0.5, 0.7))
    found = [len(regions_of(ragged_map(SMALL), threshold, 1e4, 1e4)) for threshold in (0.3, 0.5, 0.7)]
    assert report.regions == (min(found), max(found))
    assert 0 < report.contours[0] <= report.contours[1]
    assert report.over_rest[0] > report.opencv[0]
    assert "| contours over REST |" in markdown(report, SMALL)
