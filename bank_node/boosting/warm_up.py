"""Loads all kernels before a run begins, so that no bank makes the others wait for its compiler."""

import numpy as np

from bank_node.boosting.binning import bin_rows, global_bins
from bank_node.boosting.gradients import log_odds, logistic_losses, probabilities, sigmoid
from bank_node.boosting.grower import train_trees
from bank_node.boosting.sampling import row_keys
from bank_node.boosting.trees import predict_margin
from protocol.parameters import BoostingParameters

__all__ = ["warm_up"]


def warm_up() -> None:
    """Trains two tiny trees in each layout on made-up rows. Cost: 0.5 s, half a minute on a machine's first use."""
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(64, 2)).astype(np.float32)
    columns[0, 0] = np.nan
    labels = (columns[:, 1] > 0).astype(np.uint8)
    keys = row_keys(range(64))
    grids = [np.linspace(-2.0, 2.0, 16)] * 2
    for layout in ("wide", "packed"):
        params = BoostingParameters(n_estimators=2, max_depth=3, max_bin=8, histogram_layout=layout, subsample=0.9)
        cuts = global_bins(columns, labels, grids, params.max_bin, lambda _, vector: vector)
        trees = train_trees(
            bin_rows(columns, cuts), labels, params, lambda _, vector: vector, n_rows_total=64, row_keys=keys
        )
        train_trees(
            bin_rows(columns, cuts),
            labels,
            params,
            lambda _, vector: vector,
            n_rows_total=64,
            row_keys=keys,
            resume=trees[:1],
        )
        logistic_losses(predict_margin(trees, columns, 0.5), labels, 24)
        sigmoid(predict_margin(trees, columns, cuts.base_score(params)))
        log_odds(probabilities(np.zeros(1)))
