"""Loads or compiles all kernels of a run before it begins, so that no bank makes the others wait for its compiler.

Made-up rows only. numba compiles a kernel for each type of arguments, so rows go through `BankRows` here as they do in
a run: read-only, weighted or not. A test trains after it in a fresh process and sees that nothing is compiled any more.
"""

from dataclasses import replace
from time import perf_counter

import numpy as np

from bank_node.boosting import (
    BoostingParameters,
    Tree,
    bin_rows,
    global_bins,
    log_odds,
    logistic_losses,
    predict_margin,
    probabilities,
    row_keys,
    sigmoid,
    train_trees,
)
from bank_node.boosting.histogram import SlotLayout
from bank_node.boosting.local_rows import LocalRows, TreePlan
from bank_node.boosting.packing import Packing, Sizes
from bank_node.boosting.row_files import BankRows
from bank_node.dtypes import Integers
from bank_node.kernels import usable_cache
from bank_node.secure_aggregation.inner_products import inner_products

__all__ = ["warm_up"]

_ROWS, _BITS = 64, 24


def warm_up() -> float:
    """Calls every kernel as a run does. Cost: 0.5 s, half a minute on a machine's first use.

    Returns:
        Seconds that it took.

    Raises:
        ConfigError: anybody may write to the folder that compiled kernels are loaded from.
        LocalError: they can't be kept there, or what lies there is damaged.
    """
    started = perf_counter()
    with usable_cache():
        for weighted in (False, True):
            _train(_rows(weighted=weighted))
        numbers = np.ones((1, 2), dtype=np.uint64)
        inner_products(numbers, numbers)
    return perf_counter() - started


def _rows(*, weighted: bool) -> BankRows:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(_ROWS, 2)).astype(np.float32)
    columns[0, 0] = np.nan
    return BankRows(
        columns=columns,
        labels=(columns[:, 1] > 0).astype(np.uint8),
        weights=np.ones(_ROWS, dtype=np.float32) if weighted else None,
        keys=row_keys(range(_ROWS)),
    )


def _alone(_: str, vector: Integers) -> Integers:
    return vector


def _train(rows: BankRows) -> None:
    """Two tiny trees, and what only larger runs do."""
    params = BoostingParameters(n_estimators=2, max_depth=3, max_bin=8, subsample=0.9, histogram_layout="packed")
    grids = [np.linspace(-2.0, 2.0, 16)] * 2
    cuts = global_bins(rows.columns, rows.labels, grids, params.max_bin, _alone, weights=rows.weights)
    binned = bin_rows(rows.columns, cuts)

    def grow(n_estimators: int, before: list[Tree]) -> list[Tree]:
        return train_trees(
            binned,
            rows.labels,
            replace(params, n_estimators=n_estimators),
            _alone,
            n_rows_total=_ROWS,
            weights=rows.weights,
            row_keys=rows.keys,
            resume=before,
        )

    trees = grow(2, grow(1, []))
    margins = predict_margin(trees, rows.columns, 0.5)
    logistic_losses(margins, rows.labels, _BITS)
    sigmoid(margins)
    log_odds(probabilities(np.zeros(1)))
    store = LocalRows.checked(binned, rows.labels, params, weights=rows.weights, row_keys=rows.keys)
    store.start(np.float32(0.0), trees)
    store.begin_tree(TreePlan(round_index=0, layout=SlotLayout.of(cuts)))
    store.leaf_sums([0])
    size = _ROWS << _BITS
    packing = Packing.of(Sizes(size, size, size), _ROWS, _BITS)
    if packing is not None:
        store.histograms([0], [packing])
