"""Metrics: against scikit-learn, and by secure sum against the exact figure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from bank_node.evaluation.metrics import SCORE_CELLS, metrics_from_counts, rank_metrics, score_histogram, secure_metrics


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=4, max_size=80))
def test_figures_are_scikit_learn_s_ties_included(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([r[0] for r in rows], dtype=np.uint8)
    scores = np.array([r[1] for r in rows], dtype=float)
    found = rank_metrics(labels, scores, 0.1)
    if labels.all() or not labels.any():
        assert found.auc_pr is None and found.auc_roc is None
        return
    assert found.auc_pr == pytest.approx(average_precision_score(labels, scores))
    assert found.auc_roc == pytest.approx(roc_auc_score(labels, scores))


def test_recall_at_budget_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 1, 0, 1], dtype=np.uint8)
    found = rank_metrics(labels, np.arange(10.0), 0.3)
    assert (found.alerts, found.recall_at_budget, found.precision_at_budget) == (3, 0.5, pytest.approx(2 / 3))


def test_ties_at_the_budget_count_by_share() -> None:
    found = rank_metrics(np.array([1, 0, 0, 1], dtype=np.uint8), np.array([1.0, 1.0, 1.0, 1.0]), 0.5)
    assert found.recall_at_budget == pytest.approx(0.5)


def test_the_sum_of_banks_histograms_gives_the_figures_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.05).astype(np.uint8)
    margins = (rng.normal(size=4000) + 2 * labels).astype(np.float32)
    halves = [score_histogram(labels[:1500], margins[:1500]), score_histogram(labels[1500:], margins[1500:])]
    found = secure_metrics(labels[:1500], margins[:1500], 0.01, lambda _step, _own: halves[0] + halves[1])
    exact = rank_metrics(labels, margins, 0.01)
    assert found.rows == 4000 and found.frauds == exact.frauds
    assert found.auc_pr == pytest.approx(exact.auc_pr, abs=2e-3)
    assert found.auc_roc == pytest.approx(exact.auc_roc, abs=1e-3)
    assert halves[0].shape == (2 * SCORE_CELLS,)


def test_no_rows_give_no_figures() -> None:
    nothing = np.zeros(3, dtype=np.int64)
    assert metrics_from_counts(nothing, nothing, 0.01).auc_pr is None
