from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hepamap.training.evaluation.operating_points import GRID, choose_thresholds, measured_points, rates_over_grid, remarks


def slow_choice(truth: NDArray[np.bool_], answer: NDArray[np.float32]) -> dict[str, float]:
    """By the definitions, threshold by threshold."""
    hits = np.array([np.mean(answer[truth] >= np.float32(t)) for t in GRID])
    left = np.array([np.mean(answer[~truth] < np.float32(t)) for t in GRID])
    youden = np.round(hits + left, 12)
    run = [first := int(np.argmax(youden))]
    while run[-1] + 1 < len(GRID) and youden[run[-1] + 1] == youden[first]:
        run.append(run[-1] + 1)
    balanced = GRID[run[(len(run) - 1) // 2]]
    sensitive = max((t for t, hit in zip(GRID, hits, strict=True) if hit >= 0.95), default=GRID[0])
    specific = min((t for t, calm in zip(GRID, left, strict=True) if calm >= 0.99), default=GRID[-1])
    return {"sensitive": min(sensitive, balanced), "balanced": balanced, "specific": max(specific, balanced)}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 3.0))
def test_as_defined(seed: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    truth = np.arange(300) % 3 == 0
    answer = (1 / (1 + np.exp(-rng.normal(apart * (2 * truth - 1), 1)))).astype(np.float32)
    got = choose_thresholds(truth, answer)
    assert got == pytest.approx(slow_choice(truth, answer))
    assert 0 < got["sensitive"] <= got["balanced"] <= got["specific"] < 1


def test_three_points_by_hand() -> None:
    """Tumour evenly from 0.2 to 1, the rest evenly from 0 to 0.6: the curves are straight lines."""
    truth = np.repeat([True, False], 4000)
    answer = np.concatenate([np.linspace(0.2, 1, 4000), np.linspace(0, 0.6, 4000)]).astype(np.float32)
    got = choose_thresholds(truth, answer)
    assert got["sensitive"] == pytest.approx(0.2 + 0.05 * 0.8, abs=0.001)
    assert got["balanced"] == pytest.approx(0.6, abs=0.002)  # the rest falls faster than the tumour up to its end
    assert got["specific"] == pytest.approx(0.6, abs=0.007)
    points = {point.name: point for point in measured_points(got, truth, answer)}
    assert points["sensitive"].sensitivity == pytest.approx(0.95, abs=0.002)
    assert points["sensitive"].specificity == pytest.approx(0.24 / 0.6, abs=0.002)


def test_a_perfect_network_needs_one_point_only_and_says_so() -> None:
    truth = np.array([True, False])
    answer = np.array([0.9, 0.1], np.float32)
    got = choose_thresholds(truth, answer)
    assert set(got.values()) == {0.5}  # the middle between 0.1 and 0.9
    points = measured_points(got, truth, answer)
    assert remarks(points) == [
        "The operating points sensitive and balanced coincide at 0.5.",
        "The operating points balanced and specific coincide at 0.5.",
    ]


def test_an_aim_that_is_out_of_reach_is_said() -> None:
    """Half of the tumour looks like glass: no threshold finds 95 % of it."""
    truth = np.array([True, True, False, False])
    answer = np.array([0.0, 0.9, 0.2, 0.3], np.float32)
    points = measured_points(choose_thresholds(truth, answer), truth, answer)
    assert points[0].threshold == 0.001
    assert "No threshold from 0.001 to 0.999 has a sensitivity of 0.95: the operating point sensitive has 0.500." in remarks(
        points
    )


def test_the_figures_are_those_of_the_stored_threshold() -> None:
    rng = np.random.default_rng(7)
    truth = rng.random(500) < 0.4
    answer = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).astype(np.float32)
    hits, left = rates_over_grid(truth, answer)
    for point in measured_points(choose_thresholds(truth, answer), truth, answer):
        index = int(np.flatnonzero(point.threshold == GRID)[0])
        assert point.sensitivity == pytest.approx(hits[index], abs=1e-4)
        assert point.specificity == pytest.approx(left[index], abs=1e-4)


def test_a_class_that_is_not_there_leaves_its_figure_open() -> None:
    (point,) = measured_points({"balanced": 0.5}, np.array([True]), np.array([0.7], np.float32))
    assert (point.sensitivity, point.specificity) == (1.0, None)
