"""Reads a model file that this engine exported, to go on from it; it accepts no other XGBoost model."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from bank_node.boosting.errors import BoostingError
from bank_node.boosting.trees import Tree

__all__ = ["ReadModel", "read_booster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModel:
    """A model's trees, without bins: `predict_margin` works on them, `add_tree` on binned rows does not."""

    trees: tuple[Tree, ...]
    base_score: float
    feature_names: tuple[str, ...]
    categorical_features: tuple[str, ...]


def read_booster(model: bytes) -> ReadModel:
    """Reads what `export_booster` wrote.

    Raises:
        BoostingError: When the bytes are no such model; use the file that a run released.
    """
    try:
        learner = json.loads(model)["learner"]
        if learner["objective"]["name"] != "binary:logistic" or learner["gradient_booster"]["name"] != "gbtree":
            raise BoostingError("the model to go on from is of another kind than binary:logistic trees")
        names, types = learner["feature_names"], learner["feature_types"]
        return ReadModel(
            trees=tuple(_tree(tree) for tree in learner["gradient_booster"]["model"]["trees"]),
            base_score=float(np.float32(learner["learner_model_param"]["base_score"])),
            feature_names=tuple(names),
            categorical_features=tuple(name for name, kind in zip(names, types, strict=True) if kind == "c"),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BoostingError("the model to go on from is not one that a run released") from error


def _tree(tree: dict[str, Any]) -> Tree:
    left = np.array(tree["left_children"], dtype=np.int32)
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    is_leaf, is_set = left < 0, np.array(tree["split_type"], dtype=np.uint8) == 1
    parent = np.array(tree["parents"], dtype=np.int64)
    right_sets = np.zeros((len(tree["categories_nodes"]), 256), dtype=np.uint8)
    for row, (begin, size) in enumerate(zip(tree["categories_segments"], tree["categories_sizes"], strict=True)):
        right_sets[row, tree["categories"][begin : begin + size]] = 1
    return Tree(
        left=left,
        right=np.array(tree["right_children"], dtype=np.int32),
        parent=np.where(parent >= left.size, -1, parent).astype(np.int32),
        feature=np.array(tree["split_indices"], dtype=np.int32),
        split_bin=np.zeros(left.size, dtype=np.int32),
        threshold=np.where(is_leaf | is_set, np.float32(0.0), conditions),
        default_left=np.array(tree["default_left"], dtype=np.uint8),
        weight=np.array(tree["base_weights"], dtype=np.float32),
        loss_change=np.array(tree["loss_changes"], dtype=np.float32),
        sum_hessian=np.array(tree["sum_hessian"], dtype=np.float32),
        value=np.where(is_leaf, conditions, np.float32(0.0)),
        set_of_node=np.where(is_set, np.cumsum(is_set) - 1, -1).astype(np.int32),
        right_sets=right_sets,
    )
