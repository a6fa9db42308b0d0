from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hepamap.training.evaluation.bootstrap import Bootstrap, Interval, pair_wins
from hepamap.training.evaluation.summary import summarise

FEW = Bootstrap(resamples=150, seed=3)


def slow_mean(values: list[float | None], groups: list[str]) -> tuple[float, float]:
    """Draw patients, put all their slides on a heap, take the mean; percentiles of that."""
    names = sorted(set(groups))
    means = []
    for row in np.random.default_rng(FEW.seed).integers(len(names), size=(FEW.resamples, len(names))):
        heap = [value for index in row for value, group in zip(values, groups, strict=True) if group == names[index]]
        known = [value for value in heap if value is not None]
        if known:
            means.append(np.mean(known))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 1)), st.sampled_from(["a", "b", "c", "d"])), min_size=2, max_size=12))
def test_means_as_the_slow_way(slides: list[tuple[float | None, str]]) -> None:
    values, groups = [value for value, _ in slides], [group for _, group in slides]
    got = FEW.of_mean(values, groups)
    known = [value for value in values if value is not None]
    if not known:
        assert got is None
        return
    assert got is not None
    assert got.value == pytest.approx(np.mean(known))
    if len({group for value, group in slides if value is not None}) < 2:
        assert (got.low, got.high) == (None, None)
    else:
        assert (got.low, got.high) == pytest.approx(slow_mean(values, groups))


def test_auc_as_the_slow_way() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice(list("abcde"), 120).tolist()
    truth = rng.random(120) < 0.4
    answer = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), 1).astype(np.float32)  # with ties
    names = sorted(set(groups))
    areas = []
    for row in np.random.default_rng(FEW.seed).integers(len(names), size=(FEW.resamples, len(names))):
        heap = np.concatenate([np.flatnonzero(np.array(groups) == names[index]) for index in row])
        areas.append(roc_auc_score(truth[heap], answer[heap]))
    got = FEW.of_auc(truth, answer, np.array([names.index(group) for group in groups]))
    assert got is not None
    assert got.value == pytest.approx(roc_auc_score(truth, answer))
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_a_million_patches_do_not_carry_the_names_of_their_patients() -> None:
    rng = np.random.default_rng(0)
    outcomes = []
    for group in ("patient from a register with a long name", "another one from there"):
        truth = rng.random(500_000) < 0.3
        answer = (rng.random(len(truth)) + 0.2 * truth).astype(np.float32)
        outcomes.append(SimpleNamespace(group=group, truth=truth, answer=answer))
    tracemalloc.start()
    try:
        summarise(None, (), outcomes, FEW)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6  # the names alone would take more


def test_wins_are_counted_pair_by_pair() -> None:
    rng = np.random.default_rng(1)
    truth, group_of = rng.random(40) < 0.5, rng.integers(3, size=40)
    answer = (rng.integers(5, size=40) / 4).astype(np.float32)
    expected = np.zeros((3, 3))
    for one in np.flatnonzero(truth):
        for other in np.flatnonzero(~truth):
            won = 1.0 if answer[one] > answer[other] else 0.5 if answer[one] == answer[other] else 0.0
            expected[group_of[one], group_of[other]] += won
    assert pair_wins(truth, answer, group_of, 3) == pytest.approx(expected)


def test_ratios_are_of_sums() -> None:
    got = FEW.of_ratio(np.array([1.0, 9.0]), np.array([10.0, 10.0]))
    assert got is not None
    assert got == Interval(0.5, 0.1, 0.9)  # one patient twice, or the other: a quarter of the draws each


def test_equal_seeds_give_equal_intervals() -> None:
    values, groups = [0.1, 0.5, 0.9, 0.7], list("abcd")
    assert FEW.of_mean(values, groups) == Bootstrap(150, 3).of_mean(values, groups)
    assert FEW.of_mean(values, groups) != Bootstrap(150, 4).of_mean(values, groups)


def test_patients_without_spread_have_no_width() -> None:
    assert FEW.of_mean([0.5, 0.5, 0.5], ["a", "b", "b"]) == Interval(0.5, 0.5, 0.5)


def test_one_class_has_no_auc() -> None:
    assert FEW.of_auc(np.ones(2, np.bool_), np.zeros(2, np.float32), np.array([0, 1])) is None


def test_one_class_in_all_but_one_patient_gives_an_auc_without_an_interval() -> None:
    truth = np.array([True, True, False, False, False])
    answer = np.array([0.9, 0.4, 0.5, 0.1, 0.2], np.float32)
    got = FEW.of_auc(truth, answer, np.array([0, 0, 0, 1, 2]))
    assert got == Interval(5 / 6, None, None)


def test_draws_without_a_figure_do_not_count() -> None:
    """Two patients of three have tumour: a draw of nothing but the third has no sensitivity."""
    got = FEW.of_ratio(np.array([3.0, 1.0, 0.0]), np.array([4.0, 4.0, 0.0]))
    assert got == Interval(0.5, 0.25, 0.75)


def test_a_figure_of_one_patient_has_no_interval() -> None:
    assert FEW.of_ratio(np.array([3.0, 0.0]), np.array([4.0, 0.0])) == Interval(0.75, None, None)
    assert FEW.of_mean([0.95, 0.75, None, None], ["a", "a", "b", "c"]) == Interval(0.85, None, None)


def test_false_patches_of_patients_without_tumour_are_no_f1_of_nothing() -> None:
    """Hits 9 and 8, false patches 3 and 2 of patients without tumour: whoever draws only those has no F1."""
    hits, alarms, missed = np.array([9.0, 8.0, 0.0, 0.0]), np.array([1.0, 0.0, 3.0, 2.0]), np.array([1.0, 2.0, 0.0, 0.0])
    got = FEW.of_ratio(2 * hits, 2 * hits + alarms + missed, hits + missed)
    assert got is not None
    assert got.low is not None
    # At worst the second once, and the third three times.
    assert got.low >= 2 * 8 / (2 * 8 + 2 + 3 * 3)
    assert FEW.of_ratio(0 * hits, alarms, 0 * hits) is None
