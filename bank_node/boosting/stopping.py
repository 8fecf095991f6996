"""Early stopping: when to stop and which trees to keep, from the trees' validation metrics; it computes no metric."""

import math
from collections.abc import Callable, Sequence

from bank_node.boosting.errors import RowError
from bank_node.boosting.trees import Tree
from protocol.parameters import BoostingParameters

__all__ = ["Judge", "best_round", "judged", "kept_trees", "stops"]

Judge = Callable[[int, Tree], float]
"""The validation metric of all trees up to this one, the higher the better, the same at every bank to the last bit."""


def judged(judge: Judge, round_index: int, tree: Tree) -> float:
    """The metric after a tree.

    Raises:
        RowError: When it has no value: the validation rows of all banks lack one kind of label.
    """
    metric = judge(round_index, tree)
    if math.isnan(metric):
        raise RowError("the validation rows of all banks together need both frauds and others")
    return metric


def best_round(trees: Sequence[Tree]) -> int:
    """The number of the tree after which the metric was best, the first of equals."""
    metrics = [tree.metric for tree in trees]
    return metrics.index(max(metrics))


def stops(trees: Sequence[Tree], params: BoostingParameters) -> bool:
    """Whether no further tree is to be grown: the metric has not got better for `early_stopping_rounds` trees."""
    patience = params.early_stopping_rounds
    return patience > 0 and len(trees) > 0 and len(trees) - 1 - best_round(trees) >= patience


def kept_trees(trees: Sequence[Tree], params: BoostingParameters) -> list[Tree]:
    """The trees of the model: up to the best one with early stopping, else all."""
    if params.early_stopping_rounds == 0 or not trees:
        return list(trees)
    return list(trees[: best_round(trees) + 1])
