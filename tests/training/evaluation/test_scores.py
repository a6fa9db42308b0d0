from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from hepamap.training.evaluation.scores import Counts, auc, ratio, roc, youden_threshold

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.bool_)
# One liver patch (0.6) above one tumour patch (0.4): 15 of 16 pairs are in order.
ANSWER = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9], np.float32)


def patches(least: int = 1) -> st.SearchStrategy[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    """Few different probabilities, so that ties are common."""
    pair = st.tuples(st.booleans(), st.integers(0, 8))
    return st.lists(pair, min_size=least, max_size=40).map(
        lambda pairs: (np.array([t for t, _ in pairs], np.bool_), np.array([a / 8 for _, a in pairs], np.float32))
    )


def test_by_hand() -> None:
    counts = Counts.of(TRUTH, ANSWER, 0.5)
    assert counts == Counts(true_positive=3, false_positive=1, true_negative=3, false_negative=1)
    assert counts.scores(auc(TRUTH, ANSWER)) == {
        "sensitivity": 0.75,
        "specificity": 0.75,
        "precision": 0.75,
        "fall_out": 0.25,
        "auc": 15 / 16,
        "accuracy": 0.75,
        "f1": 0.75,
        "iou": None,  # no pixels were counted
    }


def test_a_threshold_counts_as_tumour_itself() -> None:
    assert Counts.of(TRUTH, ANSWER, float(ANSWER[4])).false_negative == 0


@settings(max_examples=30, deadline=None)
@given(patches(), st.integers(0, 8))
def test_equal_to_scikit_learn(given_patches: tuple[NDArray[np.bool_], NDArray[np.float32]], eighths: int) -> None:
    truth, answer = given_patches
    found = answer >= eighths / 8
    got = Counts.of(truth, answer, eighths / 8).scores(auc(truth, answer))
    tn, fp = metrics.confusion_matrix(truth, found, labels=[False, True])[0]
    expected = {
        "sensitivity": metrics.recall_score(truth, found, zero_division=np.nan),
        "specificity": metrics.recall_score(~truth, ~found, zero_division=np.nan),
        "precision": metrics.precision_score(truth, found, zero_division=np.nan),
        "fall_out": fp / (fp + tn) if fp + tn else np.nan,
        "accuracy": metrics.accuracy_score(truth, found),
        "f1": metrics.f1_score(truth, found) if truth.any() else np.nan,  # without tumour there is nothing to meet,
    }
    for name, value in expected.items():
        assert got[name] == (None if np.isnan(value) else pytest.approx(value, abs=1e-12)), name
    if 0 < truth.sum() < len(truth):
        assert got["auc"] == pytest.approx(metrics.roc_auc_score(truth, answer))
    else:
        assert got["auc"] is None


@settings(max_examples=30, deadline=None)
@given(patches())
def test_youden_is_the_best_of_all_thresholds(given_patches: tuple[NDArray[np.bool_], NDArray[np.float32]]) -> None:
    truth, answer = given_patches
    if truth.all() or not truth.any():
        assert youden_threshold(truth, answer) is None
        return

    def youden(threshold: float) -> float:
        return float(np.mean(answer[truth] >= threshold) - np.mean(answer[~truth] >= threshold))

    best = max(youden(value) for value in np.unique(answer))
    got = youden_threshold(truth, answer)
    assert got is not None
    assert youden(got) == pytest.approx(best)
    assert all(youden(value) < best - 1e-12 for value in np.unique(answer) if value > got)


def test_youden_by_hand() -> None:
    # 0.7 gives 0.75 - 0, and 0.4 gives 1 - 0.25, equal: the higher one.
    assert youden_threshold(TRUTH, ANSWER) == pytest.approx(0.7)


def test_a_network_that_is_always_wrong_has_a_threshold_all_the_same() -> None:
    assert youden_threshold(np.array([True, False]), np.array([0.1, 0.9], np.float32)) == pytest.approx(0.1)


def test_one_class_has_no_curve() -> None:
    only = np.ones(3, np.bool_)
    answer = np.array([0.1, 0.5, 0.9], np.float32)
    assert (auc(only, answer), roc(only, answer), youden_threshold(only, answer)) == (None, None, None)
    got = Counts.of(only, answer, 0.5).scores(None)
    assert (got["sensitivity"], got["specificity"], got["fall_out"]) == (2 / 3, None, None)


def test_nothing_at_all_has_no_figures() -> None:
    assert set(Counts(0, 0, 0, 0).scores(None).values()) == {None}
    assert ratio(0, 0) is None


def test_counts_add_up() -> None:
    whole = Counts(1, 2, 3, 4, 5, 6, 7) + Counts(10, 20, 30, 40, 50, 60, 70)
    assert whole == Counts(11, 22, 33, 44, 55, 66, 77)
    assert whole.pixel_iou == 55 / 66


def test_a_slide_without_tumour_has_no_iou_whatever_was_found() -> None:
    assert Counts(0, 5, 5, 0, pixels_shared=0, pixels_united=1280, pixels_tumour=0).pixel_iou is None
    assert Counts(0, 0, 9, 1, pixels_shared=0, pixels_united=256, pixels_tumour=256).pixel_iou == 0.0
