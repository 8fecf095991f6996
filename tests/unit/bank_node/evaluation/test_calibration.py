"""Scores as probabilities: judged by sums of integers, mended by a line in log-odds that those rows did not fit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bank_node.boosting import log_odds, probabilities
from bank_node.evaluation import calibration
from bank_node.evaluation.calibration import Calibration, calibrate, digest_of, fit, own_reliability, read
from bank_node.evaluation.costs import value_of_alerts
from bank_node.evaluation.reliability import CELLS, CellCounts, cell_counts, fold_of, reliability
from protocol.errors import LocalError


def _rows(n: int = 40_000, slope: float = 0.7, intercept: float = -1.0, seed: int = 1):
    """Margins that are wrong by a known line, and labels drawn by the right ones."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(-3.0, 1.5, n).astype(np.float32)
    labels = (rng.random(n) < probabilities(slope * margins.astype(np.float64) + intercept)).astype(np.uint8)
    columns = rng.normal(size=(n, 3)).astype(np.float32)
    return columns, margins, labels


def _folds(columns, margins, labels):
    return CellCounts.folds(cell_counts(labels, margins, fold_of(columns)))


def test_probabilities_and_log_odds_are_the_library_s_to_rounding() -> None:
    margins = np.linspace(-40, 12, 1001)
    assert np.allclose(probabilities(margins), 1 / (1 + np.exp(-margins)), rtol=1e-14)
    assert np.allclose(log_odds(probabilities(margins)), margins, rtol=1e-9)


def test_counts_by_hand() -> None:
    margins = np.array([-20.0, 0.0, 0.0, 20.0], dtype=np.float32)
    labels, folds = np.array([0, 1, 0, 1], dtype=np.uint8), np.array([0, 0, 0, 1], dtype=np.uint8)
    first, second = CellCounts.folds(cell_counts(labels, margins, folds))
    assert np.flatnonzero(first.rows).tolist() == [0, CELLS // 2] and first.rows[[0, CELLS // 2]].tolist() == [1, 2]
    assert first.frauds[CELLS // 2] == 1 and first.probability[CELLS // 2] == 2**28
    assert (second.rows[-1], second.frauds[-1], second.rows.sum()) == (1, 1, 1)
    judged = reliability(first, probabilities(first.margins))
    assert judged.error == pytest.approx(0.0, abs=1e-8), "half of the two rows said to be frauds by half are"
    assert [each[2] for each in judged.curve] == [1, 2]


def test_the_error_is_the_mean_distance_over_bins() -> None:
    margins, labels = np.zeros(100, dtype=np.float32), np.zeros(100, dtype=np.uint8)
    counts = CellCounts.folds(cell_counts(labels, margins, np.zeros(100, dtype=np.uint8)))[0]
    assert reliability(counts, probabilities(counts.margins)).error == pytest.approx(0.5)
    empty = CellCounts.folds(cell_counts(labels[:0], margins[:0], labels[:0]))[0]
    assert reliability(empty, probabilities(empty.margins)).error is None


def test_a_known_line_is_found_and_the_error_falls_on_rows_that_did_not_fit_it() -> None:
    made = calibrate(_folds(*_rows()), 0.005)
    assert made.calibration.slope == pytest.approx(0.7, abs=0.05)
    assert made.calibration.intercept == pytest.approx(-1.0, abs=0.15)
    assert made.of_fold[0] != made.of_fold[1] != made.calibration, "each fold is judged by the other's"
    assert made.after.error < made.before.error / 5 and made.after.error < 0.005
    assert made.after.expected_frauds == pytest.approx(made.after.frauds, rel=0.1)


def test_it_is_logistic_regression() -> None:
    columns, margins, labels = _rows()
    line = fit(sum_of(_folds(columns, margins, labels)))
    peer = LogisticRegression(C=1e6).fit(margins[:, None], labels)
    assert line.slope == pytest.approx(peer.coef_[0, 0], abs=0.01)
    assert line.intercept == pytest.approx(peer.intercept_[0], abs=0.03)


def sum_of(folds):
    return folds[0] + folds[1]


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(0.0005, 0.4), slope=st.floats(-2.0, 5.0), rows=st.integers(0, 3000), seed=st.integers(0, 2**32 - 1)
)
def test_it_always_ends_with_a_line_that_keeps_the_order(rate: float, slope: float, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.normal(-4, 4, rows).astype(np.float32)
    labels = (rng.random(rows) < np.clip(rate * np.exp(slope * margins / 4), 0, 1)).astype(np.uint8)
    folds = _folds(rng.normal(size=(rows, 2)).astype(np.float32), margins, labels)
    made = calibrate(folds, 0.01)
    assert made.calibration.slope > 0
    order = np.sort(margins).astype(np.float64)
    assert (np.diff(made.calibration.probability(order)) >= 0).all()
    if made.calibration.why:
        assert made.after == made.before, "what can't be judged is not shipped"


def test_separated_rows_do_not_run_away() -> None:
    margins = np.repeat(np.array([-2.0, 2.0], dtype=np.float32), 500)
    line = fit(sum_of(_folds(np.arange(1000, dtype=np.float32)[:, None], margins, (margins > 0).astype(np.uint8))))
    assert 1.0 < line.slope < 5.0 and abs(line.intercept) < 1.0


def test_too_few_frauds_leave_scores_as_they_are() -> None:
    columns, margins, labels = _rows()
    labels[np.flatnonzero(labels)[30:]] = 0
    made = calibrate(_folds(columns, margins, labels), 0.005)
    assert made.calibration == made.of_fold[0] and (made.calibration.slope, made.calibration.intercept) == (1.0, 0.0)
    assert "fewer than 20 frauds" in made.calibration.why


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_a_row_s_fold_is_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(300, 4)).astype(np.float32)
    columns[rng.random(columns.shape) < 0.2] = np.nan
    columns[rng.random(columns.shape) < 0.2] = 0.0
    other = columns.copy()
    other[other == 0.0] = -0.0
    other.view(np.uint32)[np.isnan(columns)] = 0xFFC00001
    order = rng.permutation(300)
    assert (fold_of(columns)[order] == fold_of(other[order])).all()
    assert 100 < fold_of(columns).sum() < 200


def test_thresholds_say_what_a_budget_brings() -> None:
    columns, margins, labels = _rows()
    made = calibrate(_folds(columns, margins, labels), 0.03)
    assert [each.budget for each in made.thresholds] == [0.001, 0.002, 0.005, 0.01, 0.02, 0.03]
    said = made.calibration.probability(margins.astype(np.float64))
    for each in made.thresholds:
        assert 0 < each.alerts <= each.budget * len(labels)
        above = said >= each.probability
        assert (int(above.sum()), int(labels[above].sum())) == (each.alerts, each.caught)
        assert each.expected_precision == pytest.approx(each.precision, abs=0.12)
        assert each.recall == pytest.approx(each.caught / labels.sum())
    everything = calibrate(_folds(columns[:50], np.zeros(50, dtype=np.float32), labels[:50]), 0.01)
    assert everything.thresholds[0].probability is None, "all rows share one score: no threshold keeps to the budget"


def test_a_bank_judges_its_own_rows_by_what_they_did_not_fit_alone() -> None:
    columns, margins, labels = _rows()
    made = calibrate(_folds(columns, margins, labels), 0.005)
    before, after = own_reliability(_folds(columns[:9000], margins[:9000], labels[:9000]), made)
    assert before.rows == after.rows == 9000 and after.error < before.error
    before, after = own_reliability(_folds(columns, margins, labels), made)
    assert (before, after) == (made.before, made.after), "with one bank they are the consortium's"


def test_alerts_that_pay_for_themselves() -> None:
    labels = np.array([1, 0, 1, 0], dtype=np.uint8)
    value = value_of_alerts(labels, np.array([0.5, 0.5, 0.1, 0.0]), np.array([100.0, 10.0, 40.0, np.nan]), 5.0)
    assert (value.alerts, value.caught, value.precision, value.lost_without) == (2, 1, 0.5, 140.0)
    assert value.expected_saved == pytest.approx(50 + 5 - 10) and value.saved == pytest.approx(100 - 10)
    assert value.expected_precision == pytest.approx(0.5)
    nothing = value_of_alerts(labels, np.zeros(4), np.ones(4), 1.0)
    assert (nothing.alerts, nothing.precision, nothing.saved) == (0, None, 0.0)


def test_the_sidecar_is_read_back_and_is_one_model_s() -> None:
    made = calibrate(_folds(*_rows()), 0.005)
    document = made.document("ab" * 32)
    assert read(document, "ab" * 32) == made.calibration
    with pytest.raises(LocalError, match="of model abababababab, not of cdcdcdcdcdcd"):
        read(document, "cd" * 32)
    with pytest.raises(LocalError, match="damaged"):
        read(document[:-9], "ab" * 32)
    with pytest.raises(LocalError, match="format"):
        read(json.dumps({"format": "other/9"}).encode(), "ab" * 32)
    with pytest.raises(LocalError, match="above 0"):
        read(document.replace(str(made.calibration.slope).encode(), b"-1.0"), "ab" * 32)
    assert digest_of(document) != digest_of(made.document("cd" * 32))
    assert calibration.FORMAT in document.decode()


def test_identity_is_the_default() -> None:
    margins = np.linspace(-5, 5, 11)
    assert (Calibration().probability(margins) == probabilities(margins)).all()
