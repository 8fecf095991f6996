"""XGBoost on the same binned rows, and how many of its trees are ours."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xgboost

from bank_node.boosting import BoostingParameters, Tree, sigmoid
from bank_node.boosting.gradients import base_margin
from bank_node.boosting.sampling import FeatureSampler
from bank_node.boosting.trees import leaf_of_rows
from bank_node.boosting.xgboost_settings import feature_types, rate_schedule, xgboost_settings
from tests.unit.bank_node.boosting.samples import Trained, names

Objective = Callable[[np.ndarray, xgboost.DMatrix], tuple[np.ndarray, np.ndarray]]

_VERSION = tuple(int(part) for part in xgboost.__version__.split(".")[:2])
ARITHMETIC = "3.4" if _VERSION >= (3, 4) else "3.2"


def binned_values(trained: Trained) -> np.ndarray:
    """The bin numbers, NaN for missing: XGBoost then has our bins."""
    bins = trained.binned.bins.astype(np.float32)
    bins[trained.binned.bins == trained.cuts.n_bins[None, :]] = np.nan
    return bins


def pooled(
    trained: Trained,
    labels: np.ndarray,
    params: BoostingParameters,
    weights: np.ndarray | None = None,
    objective: Objective | None = None,
) -> tuple[xgboost.Booster, np.ndarray]:
    """XGBoost's own training on all rows, and its margins."""
    columns = names(trained.binned.bins.shape[1])
    settings = xgboost_settings(params) | {"max_bin": 300, "nthread": 1}
    for sampling in ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode"):
        settings.pop(sampling)  # ours are other samples
    if objective is not None:
        settings |= {"base_score": trained.base_score}
    matrix = xgboost.DMatrix(
        binned_values(trained),
        labels,
        weight=weights,
        nthread=1,
        feature_names=columns,
        feature_types=feature_types(params, columns),
        enable_categorical=True,
    )
    booster = xgboost.train(settings, matrix, params.n_estimators, obj=objective, callbacks=rate_schedule(params))
    return booster, booster.predict(matrix, output_margin=True)


def xgboost_trees(booster: xgboost.Booster) -> list[dict[str, Any]]:
    """The trees as XGBoost's JSON has them."""
    return json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]


def same_trees(trained: Trained, booster: xgboost.Booster) -> float:
    """The share of trees whose links, features, split bins or sets and default directions are all equal."""
    theirs = xgboost_trees(booster)
    assert len(theirs) == len(trained.trees)
    return sum(same_tree(trained, ours, other) for ours, other in zip(trained.trees, theirs, strict=True)) / len(theirs)


def same_tree(trained: Trained, ours: Tree, other: dict[str, Any]) -> bool:
    """Whether one tree is the same."""
    if ours.left.tolist() != other["left_children"] or ours.feature.tolist() != other["split_indices"]:
        return False
    return all(
        split_of(ours, node) == xgboost_split(trained, other, node) for node in np.flatnonzero(ours.left >= 0).tolist()
    )


def split_of(tree: Tree, node: int) -> tuple[int, int, int, tuple[int, ...]]:
    """(feature, bin, default left, right set) of an inner node."""
    row = int(tree.set_of_node[node])
    chosen = () if row < 0 else tuple(np.flatnonzero(tree.right_sets[row]).tolist())
    return int(tree.feature[node]), 0 if chosen else int(tree.split_bin[node]), int(tree.default_left[node]), chosen


def xgboost_split(trained: Trained, other: dict[str, Any], node: int) -> tuple[int, int, int, tuple[int, ...]]:
    """The same of XGBoost's tree."""
    feature = other["split_indices"][node]
    if other["split_type"][node]:
        at = other["categories_nodes"].index(node)
        begin = other["categories_segments"][at]
        chosen = tuple(sorted(other["categories"][begin : begin + other["categories_sizes"][at]]))
        return feature, 0, other["default_left"][node], chosen
    last_bin = int(trained.cuts.n_bins[feature]) - 1
    # XGBoost's outer cuts lie beyond all values, in 3.4 at infinity; ours are before the first and after the last bin.
    split_bin = int(np.ceil(np.clip(other["split_conditions"][node], 0.0, last_bin + 1.0))) - 1
    return feature, split_bin, other["default_left"][node], ()


def masked_objective(labels: np.ndarray, inside: np.ndarray) -> Objective:
    """The logistic loss of some rows only."""

    def objective(margins: np.ndarray, matrix: xgboost.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        p = sigmoid(margins.astype(np.float32))
        return (p - labels) * inside, np.maximum(p * (1 - p), np.float32(1e-16)) * inside

    return objective


def node_by_node(trained: Trained, labels: np.ndarray, params: BoostingParameters) -> tuple[float, np.ndarray]:
    """Lets XGBoost choose each node's split anew, of the features that our sample allows it.

    Each node is one XGBoost training of depth 1 that sees the gradients of its rows and the sampled columns alone.

    Returns:
        The share of trees all of whose splits XGBoost chose alike, and all rows' margins by XGBoost's leaf values.
    """
    columns = names(trained.binned.bins.shape[1])
    values, types = binned_values(trained), feature_types(params, columns)
    settings = xgboost_settings(params) | {"max_bin": 300, "nthread": 1, "max_depth": 1, "base_score": 0.5}
    for sampling in ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode"):
        settings.pop(sampling)
    margins = np.full(labels.size, base_margin(trained.base_score), dtype=np.float32)
    same = 0
    for index, tree in enumerate(trained.trees):
        sampler = FeatureSampler(params, values.shape[1], index)
        ancestors = _paths(tree)
        leaf = leaf_of_rows(tree, trained.binned)
        after, alike = margins.copy(), True
        for node in range(tree.n_nodes):
            depth = len(ancestors[node]) - 1
            if depth == params.max_depth:
                continue
            here = np.array([node in ancestors[at] for at in leaf])
            seen = values.copy()
            seen[:, [f for f in range(values.shape[1]) if f not in sampler.node(depth, node)]] = np.nan
            matrix = xgboost.DMatrix(
                seen, labels, base_margin=margins, nthread=1, feature_names=columns, feature_types=types,
                enable_categorical=True,
            )  # fmt: skip
            booster = xgboost.train(settings, matrix, 1, obj=masked_objective(labels, here))
            other = xgboost_trees(booster)[0]
            if tree.left[node] < 0:
                alike &= other["left_children"] == [-1]
                continue
            alike &= other["left_children"][0] >= 0 and split_of(tree, node) == xgboost_split(trained, other, 0)
            after[here] = booster.predict(matrix, output_margin=True)[here]
        same += alike
        margins = after
    return same / len(trained.trees), margins


def _paths(tree: Tree) -> list[set[int]]:
    paths: list[set[int]] = []
    for node in range(tree.n_nodes):
        paths.append({node} | (paths[tree.parent[node]] if node else set()))
    return paths
