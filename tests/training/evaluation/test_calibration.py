from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from hepamap.training.evaluation.calibration import TEMPERATURE_RANGE, at_temperature, fit_temperature, reliability


def test_error_by_hand() -> None:
    # 4 patches near 0.1, one of them tumour; 6 near 0.9, all tumour.
    answer = np.array([0.1] * 4 + [0.9] * 6, np.float32)
    truth = np.array([True, False, False, False] + [True] * 6)
    found = reliability(truth, answer)
    assert found.expected_error == pytest.approx(0.4 * 0.15 + 0.6 * 0.1, abs=1e-6)
    assert found.patches.sum() == 10
    assert found.observed[1] == 0.25  # the bin from 1/15 to 2/15
    assert found.observed[13] == 1.0


def test_a_probability_of_one_belongs_to_the_last_bin() -> None:
    found = reliability(np.array([True]), np.array([1.0], np.float32))
    assert found.patches[-1] == 1
    assert found.expected_error == 0.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.beta(0.7, 0.7, 100_000)
    truth = rng.random(honest.size) < honest
    answer = at_temperature(honest, 1 / temperature)  # logits too large by the temperature
    got = fit_temperature(truth, answer)
    assert got == pytest.approx(temperature, rel=0.03)
    before, after = (reliability(truth, values).expected_error for values in (answer, at_temperature(answer, got)))
    assert after < 0.01
    assert temperature == 1.0 or after < before / 3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_no_other_temperature_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.5
    answer = np.clip(rng.normal(0.45 + 0.15 * truth, 0.25), 0.001, 0.999)
    best = fit_temperature(truth, answer)
    loss = log_loss(truth, at_temperature(answer, best), labels=[False, True])
    for other in np.geomspace(*TEMPERATURE_RANGE, 20):
        assert loss <= log_loss(truth, at_temperature(answer, other), labels=[False, True]) + 1e-9


def test_no_temperature_is_cold_enough_for_a_perfect_network() -> None:
    truth = np.array([True, False])
    assert fit_temperature(truth, np.array([0.9, 0.1], np.float32)) == pytest.approx(TEMPERATURE_RANGE[0])


def test_a_temperature_changes_no_order() -> None:
    answer = np.linspace(0, 1, 101, dtype=np.float32)
    assert np.all(np.diff(at_temperature(answer, 3.0)) > 0)
    assert at_temperature(answer, 1.0)[1:-1] == pytest.approx(answer[1:-1], abs=1e-6)
