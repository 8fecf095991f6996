"""Bounds of the coming tree's gradients: exact before the first, never too small later, and not much too large."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting.gradients import base_margin, logistic_gradients
from bank_node.boosting.magnitudes import first_magnitudes, next_magnitudes
from bank_node.boosting.packing import Sizes


def _sums(gradients: np.ndarray) -> Sizes:
    g = gradients[:, 0]
    return Sizes(int(g[g > 0].sum()), int(-g[g < 0].sum()), int(gradients[:, 1].sum()))


@settings(deadline=None)
@given(st.floats(1e-6, 1 - 1e-6), st.integers(0, 500), st.integers(0, 500), st.floats(0.1, 50), st.integers(12, 30))
def test_the_first_trees_magnitudes_follow_from_counts(
    base_score: float, negative: int, positive: int, weight: float, bits: int
) -> None:
    labels = np.array([0] * negative + [1] * positive, dtype=np.uint8)
    margins = np.full(labels.size, base_margin(base_score), dtype=np.float32)
    sums = _sums(logistic_gradients(margins, labels, weight, bits))
    counts = (negative, positive)
    exact = first_magnitudes(base_score, counts, (negative << 24, positive << 24), weight, bits)
    assert exact == sums


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.floats(0.1, 50), st.integers(12, 30))
def test_the_first_trees_magnitudes_of_weighted_rows_are_close_bounds(
    seed: int, rows: int, scale: float, bits: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, weights = (rng.random(rows) < 0.3).astype(np.uint8), (rng.random(rows) * 5).astype(np.float32)
    margins = np.full(rows, base_margin(0.2), dtype=np.float32)
    sums = _sums(logistic_gradients(margins, labels, scale, bits, weights=weights))
    units = np.ceil(weights.astype(np.float64) * 2.0**24).astype(np.int64)
    of_label = tuple((int((labels == k).sum()), int(units[labels == k].sum())) for k in (0, 1))
    counts, masses = zip(*of_label, strict=True)
    bounds = first_magnitudes(0.2, counts, masses, scale, bits)
    for exact, bound in zip(sums, bounds, strict=True):
        assert exact <= bound <= exact * 1.001 + 4 * rows + 50 * scale * weights.sum()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.sampled_from([0.01, 1.0, 8.0, 40.0, 90.0]),
    st.sampled_from([0.0, 0.05, 1.0, 9.0, 70.0]),
    st.sampled_from([1.0, 0.2, 30.0]),
    st.integers(12, 30),
)
def test_the_next_trees_magnitudes_are_never_above_their_bounds(
    seed: int, rows: int, spread: float, step: float, weight: float, bits: int
) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(scale=spread, size=rows).astype(np.float32)
    labels = (rng.random(rows) < 0.3).astype(np.uint8)
    leaf = rng.integers(0, 5, rows)
    values = (rng.normal(size=5) * step).astype(np.float32)
    own = None if seed % 2 else (rng.random(rows) * 4).astype(np.float32)
    total_weight = rows if own is None else int(np.ceil(own.astype(np.float64).sum()))
    before = logistic_gradients(margins, labels, weight, bits, weights=own)
    leaf_sums = np.array([_sums(before[leaf == k]) for k in range(5)], dtype=np.int64)
    after = _sums(logistic_gradients(margins + values[leaf], labels, weight, bits, weights=own))
    bounds = next_magnitudes(values, leaf_sums, rows, total_weight, weight, bits)
    assert all(exact <= bound for exact, bound in zip(after, bounds, strict=True))
    if np.abs(values).max() < 1:
        # Tight: the factor, 1 in 1000, and a rounding a row.
        slack = 4 * rows + 4 * (total_weight + 1) * max(1.0, weight) * 2.0 ** (bits - 22)
        for old, bound in zip(leaf_sums.sum(axis=0), bounds, strict=True):
            assert bound <= old * np.exp(np.abs(values).max()) * 1.002 + slack
