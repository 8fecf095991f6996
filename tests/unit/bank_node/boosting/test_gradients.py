"""Gradients: twin, independence of a row from its place, bounds, and the base score."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters, RowError, estimate_base_score, sigmoid
from bank_node.boosting.gradients import (
    _exp,
    base_margin,
    fraction_bits,
    logistic_gradients,
    logistic_gradients_naive,
)


def _rows(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    margins = np.concatenate(([0.0, 90.0, -90.0, 88.7, -88.7, 1e-6], rng.normal(0, 4, n))).astype(np.float32)
    return margins, rng.integers(0, 2, margins.size).astype(np.uint8)


@pytest.mark.parametrize("weight", [1.0, 7.3, 0.25])
def test_twin(weight: float) -> None:
    margins, labels = _rows(3000)
    fast = logistic_gradients(margins, labels, weight, 30)
    assert np.array_equal(fast, logistic_gradients_naive(margins, labels, weight, 30))
    own = np.random.default_rng(1).random(margins.size).astype(np.float32) * 3
    weighted = logistic_gradients(margins, labels, weight, 30, weights=own)
    assert np.array_equal(weighted, logistic_gradients_naive(margins, labels, weight, 30, own))
    assert np.array_equal(logistic_gradients(margins, labels, weight, 30, weights=np.ones_like(own)), fast)


def test_hand_case() -> None:
    got = logistic_gradients(np.zeros(2, np.float32), np.array([0, 1], np.uint8), 2.0, 4)
    assert got.tolist() == [[8, 4], [-16, 8]]  # (0.5, 0.25) and 2 * (-0.5, 0.25), in sixteenths


def test_a_row_has_the_same_gradient_anywhere_in_the_array() -> None:
    margins, labels = _rows(517)
    whole = logistic_gradients(margins, labels, 3.0, 30)
    order = np.random.default_rng(0).permutation(margins.size)
    assert np.array_equal(logistic_gradients(margins[order], labels[order], 3.0, 30), whole[order])
    for length in range(1, 20):
        part = logistic_gradients(margins[:length], labels[:length], 3.0, 30)
        assert np.array_equal(part, whole[:length])


@given(st.floats(-90, 90))
def test_exp_is_accurate(x: float) -> None:
    assert math.isclose(_exp(x), math.exp(x), rel_tol=1e-15)


def test_sigmoid_is_accurate_to_float32() -> None:
    margins, _ = _rows(1000)
    expected = 1 / (1 + np.exp(-np.clip(margins, np.float32(-88.7), np.float32(88.7)).astype(np.float64)))
    assert np.allclose(sigmoid(margins), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize(
    ("rows", "weight", "bits"), [(1, 1, 30), (2**26, 1, 30), (2**26 + 1, 1, 29), (300_000, 600, 28), (0, 0.1, 30)]
)
def test_fraction_bits(rows: int, weight: float, bits: int) -> None:
    assert fraction_bits(rows, weight) == bits
    assert max(1, rows) * max(1.0, weight) * 2**bits <= 2**56


def test_too_many_rows_are_refused() -> None:
    assert fraction_bits(2**44, 1.0) == 12
    with pytest.raises(RowError, match="leave 11 fraction bits"):
        fraction_bits(2**44, 1.5)


def test_base_score_is_the_share_of_positives_or_one_newton_step() -> None:
    assert estimate_base_score(BoostingParameters(), 2000, 513) == pytest.approx(0.2565)
    weighted = estimate_base_score(BoostingParameters(scale_pos_weight=2.0), 2000, 513)
    assert weighted == pytest.approx(0.4092922, abs=1e-7)  # what xgboost 3.2 and 3.4 store for these counts
    assert estimate_base_score(BoostingParameters(base_score=0.5), 10, 0) == 0.5
    for positive in (0, 10):
        with pytest.raises(RowError, match="nothing to learn"):
            estimate_base_score(BoostingParameters(), 10, positive)


@given(st.floats(2.0**-20, 1 - 2.0**-20, width=32))
def test_base_margin_is_the_log_odds(score: float) -> None:
    x = np.float32(1) / np.float32(score) - np.float32(1)
    assert float(base_margin(score)) == pytest.approx(-math.log(float(x)), rel=1e-7, abs=1e-37)
