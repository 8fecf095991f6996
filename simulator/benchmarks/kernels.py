"""The engine's kernels on one core against XGBoost's, by XGBoost's own monitor. Times nothing of the consortium."""

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bank_node.boosting import BoostingParameters, bin_rows, global_bins, train_trees
from bank_node.boosting import grower as grower_module
from bank_node.boosting.local_rows import LocalRows
from bank_node.boosting.splitting import find_splits
from simulator.harness.tables import SimulatedTable

__all__ = ["SAME_WORK", "kernel_seconds", "xgboost_seconds"]

#: XGBoost's monitor, and the kernels of ours that do the same.
SAME_WORK = {
    "BuildHist": "histograms",
    "EvaluateSplits": "find_splits",
    "UpdatePosition": "split",
    "GetGradient": "begin_tree",
}


def kernel_seconds(table: SimulatedTable, params: BoostingParameters) -> dict[str, float]:
    """Processor seconds by kernel of training on all rows as one bank in one thread; ``training`` is the whole."""
    rows = table.pooled(table.train)
    cuts = global_bins(rows.columns, rows.labels, table.grids, params.max_bin, lambda _, vector: vector)
    binned = bin_rows(rows.columns, cuts)
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[name] += time.thread_time() - started

        return measured

    def train() -> None:
        train_trees(binned, rows.labels, params, lambda _, vector: vector, n_rows_total=cuts.n_rows_total)

    names = ("begin_tree", "histograms", "split", "finish_tree")
    patches = [patch.object(LocalRows, name, timed(name, getattr(LocalRows, name))) for name in names]
    patches.append(patch.object(grower_module, "find_splits", timed("find_splits", find_splits)))
    for one in patches:
        one.start()
    try:
        worker = threading.Thread(target=timed("training", train))
        worker.start()
        worker.join()
    finally:
        for one in patches:
            one.stop()
    return dict(spent)


def xgboost_seconds(table: SimulatedTable, params: BoostingParameters) -> dict[str, float]:
    """Seconds by part of XGBoost's training on the same rows with one thread, as its monitor prints them."""
    rows = table.pooled(table.train)
    settings = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": params.max_depth,
        "eta": params.eta,
        "max_bin": params.max_bin,
        "nthread": 1,
        "verbosity": 3,
    }
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "columns.npy", rows.columns)
        np.save(Path(folder) / "labels.npy", rows.labels)
        # Its own process, since the monitor prints when it ends.
        printed = subprocess.run(
            [sys.executable, "-c", _TRAIN, folder, repr(settings), str(params.n_estimators)],
            capture_output=True,
            text=True,
            check=True,
        )
    text = printed.stdout + printed.stderr
    found = {name: float(seconds) for name, seconds in re.findall(r"\] (\w+): ([0-9.e+-]+)s, ", text)}
    found["training"] = found["UpdateOneIter"]
    return found


_TRAIN = """
import ast, sys, numpy, xgboost
folder, settings, rounds = sys.argv[1], ast.literal_eval(sys.argv[2]), int(sys.argv[3])
columns, labels = numpy.load(folder + "/columns.npy"), numpy.load(folder + "/labels.npy")
matrix = xgboost.QuantileDMatrix(columns, label=labels, max_bin=settings["max_bin"], nthread=1)
booster = xgboost.train(settings, matrix, rounds)
del booster
"""
