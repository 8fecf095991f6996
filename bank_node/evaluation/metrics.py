"""Metrics of a ranking of rows, from counts: exact for one bank's rows, by secure sum for all banks'. No I/O.

AUC-PR is average precision: the sum over score thresholds of precision times the recall gained. With the
consortium's score histogram, rows that share a cell count as ties, so its figures are exact up to 4096 cells.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.consortium import SecureSum
from bank_node.dtypes import Integers
from protocol.steps import Step

__all__ = ["SCORE_CELLS", "RankingMetrics", "metrics_from_counts", "rank_metrics", "score_histogram", "secure_metrics"]

#: Cells of the score histogram; margins from -12 to 12 are told apart by 0.006, two cells catch the rest.
SCORE_CELLS = 4096
_MARGIN_LIMIT = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingMetrics:
    """How well scores rank frauds. NaN-free: `None` where a figure has no meaning (no fraud, or nothing else).

    Attributes:
        rows: rows that were judged: outgoing payments whose label is known.
        frauds: how many of them are frauds.
        auc_pr: average precision: precision at each score, weighted by the recall gained there. A random order has the
            share of frauds, a perfect one 1.
        auc_roc: chance that a fraud has a higher score than another row, ties by half.
        recall_at_budget: share of the frauds among the alerts.
        precision_at_budget: share of the alerts that are frauds.
        alerts: rows that the alert budget allows: its share of all rows, rounded down.
    """

    rows: int
    frauds: int
    auc_pr: float | None
    auc_roc: float | None
    recall_at_budget: float | None
    precision_at_budget: float | None
    alerts: int

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping, floats rounded to 6 digits."""
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}


def metrics_from_counts(positives: Integers, negatives: Integers, alert_budget: float) -> RankingMetrics:
    """Metrics of rows grouped by score.

    Args:
        positives, negatives: int64, shape (k,): rows of each class per group, ascending by score.
        alert_budget: share of all rows that can be alerted on; a group that straddles the limit counts by share.
    """
    frauds, others = int(positives.sum()), int(negatives.sum())
    rows = frauds + others
    alerts = int(np.floor(alert_budget * rows))
    if frauds == 0 or others == 0:
        return RankingMetrics(
            rows=rows,
            frauds=frauds,
            auc_pr=None,
            auc_roc=None,
            recall_at_budget=None,
            precision_at_budget=None,
            alerts=alerts,
        )
    true_positives = np.cumsum(positives[::-1], dtype=np.int64)
    flagged = np.cumsum((positives + negatives)[::-1], dtype=np.int64)
    seen = flagged > 0
    precision = true_positives[seen] / flagged[seen]
    gained = np.diff(true_positives[seen], prepend=0) / frauds
    false_positives = flagged - true_positives
    height = np.diff(true_positives, prepend=0)
    # Area above each positive: negatives ranked below it, ties by half.
    below = others - false_positives + 0.5 * np.diff(false_positives, prepend=0)
    auc_roc = float((height * below).sum() / (frauds * others))
    full = int(np.searchsorted(flagged, alerts, side="right"))
    caught = float(true_positives[full - 1]) if full else 0.0
    used = int(flagged[full - 1]) if full else 0
    if full < flagged.size and alerts > used:
        caught += float(height[full]) * (alerts - used) / float(flagged[full] - used)
    return RankingMetrics(
        rows=rows,
        frauds=frauds,
        auc_pr=float((precision * gained).sum()),
        auc_roc=auc_roc,
        recall_at_budget=caught / frauds,
        precision_at_budget=caught / alerts if alerts else None,
        alerts=alerts,
    )


def rank_metrics(labels: npt.NDArray[Any], scores: npt.NDArray[Any], alert_budget: float) -> RankingMetrics:
    """Exact metrics of one set of rows; equal scores are ties.

    Args:
        labels: shape (n,), 1 for fraud.
        scores: shape (n,), higher is more suspicious.
        alert_budget: share of rows that can be alerted on.
    """
    _, group = np.unique(np.asarray(scores), return_inverse=True)
    groups = int(group.max()) + 1 if group.size else 1
    positive = np.asarray(labels) > 0.5
    positives = np.bincount(group[positive], minlength=groups).astype(np.int64)
    negatives = np.bincount(group[~positive], minlength=groups).astype(np.int64)
    return metrics_from_counts(positives, negatives, alert_budget)


def score_histogram(labels: npt.NDArray[Any], margins: npt.NDArray[Any]) -> Integers:
    """Integers per margin cell: int64 of shape (2 * SCORE_CELLS,), frauds first."""
    share = (np.asarray(margins, dtype=np.float64) + _MARGIN_LIMIT) / (2 * _MARGIN_LIMIT)
    cell = np.clip((share * SCORE_CELLS).astype(np.int64), 0, SCORE_CELLS - 1)
    positive = np.asarray(labels) > 0.5
    return np.concatenate(
        [np.bincount(cell[positive], minlength=SCORE_CELLS), np.bincount(cell[~positive], minlength=SCORE_CELLS)]
    ).astype(np.int64)


def secure_metrics(
    labels: npt.NDArray[Any],
    margins: npt.NDArray[Any],
    alert_budget: float,
    secure_sum: SecureSum,
    step: str = Step.evaluation().text,
) -> RankingMetrics:
    """The whole consortium's metrics: one secure sum of score histograms."""
    total = secure_sum(step, score_histogram(labels, margins))
    return metrics_from_counts(total[:SCORE_CELLS], total[SCORE_CELLS:], alert_budget)
