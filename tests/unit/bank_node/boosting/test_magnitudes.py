"""Bounds of the first tree's gradients: exact where rows weigh alike, else never too small, and not much too large."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting.gradients import base_margin, logistic_gradients
from bank_node.boosting.magnitudes import first_magnitudes
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
