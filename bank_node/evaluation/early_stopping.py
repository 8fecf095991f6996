"""The validation metric after each tree, of all banks' validation rows by secure sum; it decides nothing.

Metrics are computed from summed integers with exact or correctly rounded operations only, so all banks get the same to
the last bit, whatever their machines, and stop after the same tree. Rows count alike, whatever they weigh in training.
"""

import math
from collections.abc import Sequence

import numpy as np

from bank_node.boosting import Tree, add_trees, logistic_losses
from bank_node.consortium import SecureSum
from bank_node.dtypes import Floats, Integers, Marks
from protocol.steps import Step

__all__ = ["VALIDATION_CELLS", "ValidationJudge", "average_precision"]

#: Cells of the score histogram, so that both kinds of rows fill one ciphertext: margins are told apart by 0.012.
VALIDATION_CELLS = 2047
_MARGIN_LIMIT = 12.0
_LOSS_BITS = 24


def average_precision(positives: Integers, negatives: Integers) -> float:
    """AUC-PR of rows grouped by score, ascending; NaN without both kinds. The same bits on every machine."""
    frauds = int(positives.sum())
    if frauds == 0 or int(negatives.sum()) == 0:
        return math.nan
    caught = flagged = 0
    terms = []
    for hits, others in zip(positives[::-1].tolist(), negatives[::-1].tolist(), strict=True):
        caught, flagged = caught + hits, flagged + hits + others
        if hits:
            terms.append(caught / flagged * hits)
    return math.fsum(terms) / frauds


class ValidationJudge:
    """Follows this bank's validation rows through training; each call, or `measure`, is one secure sum."""

    def __init__(
        self,
        columns: Floats,
        labels: Marks,
        start: Floats,
        metric: str,
        secure_sum: SecureSum,
    ) -> None:
        """Takes the rows, which may be none, and their margins before the first tree.

        Args:
            columns: float32 (n, f), NaN for missing, real values, not bins.
            labels: uint8 (n,), 0 or 1.
            start: float32 (n,).
            metric: ``aucpr`` or ``logloss``.
            secure_sum: the sum over the banks.
        """
        self._columns, self._labels = columns, labels
        self._margins = start.astype(np.float32, copy=True)
        self._metric, self._sum = metric, secure_sum

    def follow(self, trees: Sequence[Tree]) -> None:
        """Add trees whose metric is known already."""
        add_trees(self._margins, trees, self._columns)

    def __call__(self, round_index: int, tree: Tree) -> float:
        """The metric after this tree, the higher the better: AUC-PR, or minus the mean logistic loss."""
        self.follow([tree])
        return self.measure(Step.train(round_index, "metric").text)

    def measure(self, step: str) -> float:
        """The metric of the margins as they are now; NaN where all banks' rows lack one kind of label."""
        if self._metric == "aucpr":
            total = self._sum(step, self._histogram())
            return average_precision(total[:VALIDATION_CELLS], total[VALIDATION_CELLS:])
        rows, frauds = self._labels.size, int(self._labels.sum())
        loss = logistic_losses(self._margins, self._labels, _LOSS_BITS)
        total = self._sum(step, np.array([rows, frauds, loss], dtype=np.int64))
        if not 0 < int(total[1]) < int(total[0]):
            return math.nan
        return -int(total[2]) / (int(total[0]) << _LOSS_BITS)

    def _histogram(self) -> Integers:
        """Integers per margin cell, frauds first."""
        share = (self._margins.astype(np.float64) + _MARGIN_LIMIT) / (2.0 * _MARGIN_LIMIT)
        cell = np.clip((share * VALIDATION_CELLS).astype(np.int64), 0, VALIDATION_CELLS - 1)
        fraud = self._labels == 1
        counts = [np.bincount(cell[kind], minlength=VALIDATION_CELLS) for kind in (fraud, ~fraud)]
        return np.concatenate(counts).astype(np.int64)
