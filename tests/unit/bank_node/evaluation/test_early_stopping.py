"""The validation metrics: against scikit-learn, ties included, and the same however rows are spread over banks."""

import math
import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss

from bank_node.evaluation.early_stopping import VALIDATION_CELLS, ValidationJudge, average_precision
from bank_node.evaluation.metrics import metrics_from_counts

GROUPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


def counts(groups: list[tuple[int, int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found = np.array(groups, dtype=np.int64)
    return found[:, 0], found[:, 1]


@given(GROUPS)
def test_it_is_scikit_learn_s_figure_ties_included(groups: list[tuple[int, int]]) -> None:
    positives, negatives = counts(groups)
    found = average_precision(positives, negatives)
    if not positives.sum() or not negatives.sum():
        assert math.isnan(found)
        return
    scores = np.concatenate([np.repeat(np.arange(len(groups)), kind) for kind in (positives, negatives)])
    labels = np.repeat([1, 0], [positives.sum(), negatives.sum()])
    assert found == pytest.approx(average_precision_score(labels, scores), rel=1e-12)
    assert found == pytest.approx(metrics_from_counts(positives, negatives, 0.1).auc_pr, rel=1e-12)


def test_by_hand() -> None:
    # From the top: one fraud alone, then a tie of a fraud and another row, then only others.
    assert average_precision(*counts([(0, 3), (1, 1), (1, 0)])) == (1 / 1 + 2 / 3) / 2
    assert average_precision(*counts([(2, 6)])) == 0.25  # all tied: the share of frauds


@given(GROUPS, st.integers(0, 10))
def test_empty_groups_change_no_bit(groups: list[tuple[int, int]], place: int) -> None:
    more = [*groups[:place], (0, 0), *groups[place:]]
    assert str(average_precision(*counts(more))) == str(average_precision(*counts(groups)))


@settings(deadline=None)
@given(
    metric=st.sampled_from(["aucpr", "logloss"]),
    rows=st.lists(st.tuples(st.booleans(), st.floats(-8, 8, width=32)), min_size=2, max_size=40),
    cut=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_every_bank_gets_the_same_bits_as_one_bank_with_all_rows(
    metric: str, rows: list[tuple[bool, float]], cut: int, seed: int
) -> None:
    def measured(parts: list[list[tuple[bool, float]]]) -> set[float]:
        sent = []
        for part in parts:
            judge(part, lambda _step, own: sent.append(own) or own).measure("s")
        return {judge(part, lambda _step, _own: sum(sent[1:], sent[0])).measure("s") for part in parts}

    def judge(part: list[tuple[bool, float]], secure_sum: object) -> ValidationJudge:
        labels = np.array([fraud for fraud, _ in part], dtype=np.uint8)
        margins = np.array([margin for _, margin in part], dtype=np.float32)
        return ValidationJudge(np.zeros((len(part), 1), np.float32), labels, margins, metric, secure_sum)  # type: ignore[arg-type]

    shuffled = random.Random(seed).sample(rows, len(rows))
    (whole,) = {str(value) for value in measured([rows])}
    assert {str(value) for value in measured([shuffled[:cut], shuffled[cut:]])} == {whole}
    labels, margins = [fraud for fraud, _ in rows], np.array([margin for _, margin in rows])
    if all(labels) or not any(labels):
        assert whole == "nan"
    elif metric == "logloss":
        assert -float(whole) == pytest.approx(log_loss(labels, 1 / (1 + np.exp(-margins)), labels=[0, 1]), abs=1e-6)
    else:
        cells = np.floor((margins + 12) / 24 * VALIDATION_CELLS)
        assert float(whole) == pytest.approx(average_precision_score(labels, cells), rel=1e-12)
