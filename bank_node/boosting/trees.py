"""A trained tree, its use on rows, and its checkpoint; it neither trains nor knows XGBoost's file formats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bank_node.boosting.archive import pack_arrays, unpack_arrays
from bank_node.boosting.binning import BinnedRows
from bank_node.boosting.errors import BoostingError, RowError
from bank_node.boosting.gradients import base_margin
from bank_node.dtypes import Floats, Indices, Integers, Marks
from bank_node.kernels import kernel

__all__ = [
    "Tree",
    "add_tree",
    "add_trees",
    "leaf_of_rows",
    "leaf_of_rows_naive",
    "predict_margin",
    "predict_margin_naive",
    "trees_from_bytes",
    "trees_to_bytes",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """A binary tree as one array a property, nodes numbered level by level from the root, 0.

    Attributes:
        left: int32 (m,), left child, or -1 for a leaf.
        right: int32 (m,), right child, or -1.
        parent: int32 (m,), -1 for the root.
        feature: int32 (m,), 0 for a leaf.
        split_bin: int32 (m,), rows with bin <= this go left; -1 sends every present value right; 0 for a set.
        threshold: float32 (m,), rows with value < this go left, in the feature's unit; 0 for a leaf or a set.
        set_of_node: int32 (m,), the row of `right_sets` a node splits by, or -1.
        right_sets: uint8 (c, 256), marks the categories that go right; all others go left, unknown ones too.
        default_left: uint8 (m,), whether missing values go left.
        weight: float32 (m,), the optimal weight of an inner node, and eta times it for a leaf.
        loss_change: float32 (m,), 0 for a leaf.
        sum_hessian: float32 (m,).
        value: float32 (m,), what a leaf adds to the margin, 0 for inner nodes.
        metric: The validation metric after this tree, NaN where there is none; for early stopping, as `magnitudes`.
        magnitudes: int64 (3,), how large all banks' gradients at its root were, as `packing.Sizes`; -1 where the layout
            does not need them. No part of the model: a checkpoint goes on from them.
    """

    left: Indices
    right: Indices
    parent: Indices
    feature: Indices
    split_bin: Indices
    threshold: Floats
    default_left: Marks
    weight: Floats
    loss_change: Floats
    sum_hessian: Floats
    value: Floats
    set_of_node: Indices
    right_sets: Marks
    metric: float = math.nan
    magnitudes: Integers = field(default_factory=lambda: np.full(3, -1, dtype=np.int64))

    @property
    def n_nodes(self) -> int:
        """Nodes, leaves included."""
        return int(self.left.size)


_DTYPES = {
    "left": np.int32,
    "right": np.int32,
    "parent": np.int32,
    "feature": np.int32,
    "split_bin": np.int32,
    "threshold": np.float32,
    "default_left": np.uint8,
    "weight": np.float32,
    "loss_change": np.float32,
    "sum_hessian": np.float32,
    "value": np.float32,
    "set_of_node": np.int32,
}
_PER_TREE = ("right_sets", "sets", "metrics", "magnitudes")


@kernel
def _leaf_of_binned(
    bins: Marks,
    left: Indices,
    right: Indices,
    feature: Indices,
    split_bin: Indices,
    default_left: Marks,
    set_of_node: Indices,
    right_sets: Marks,
    missing_bins: Integers,
    out: Indices,
) -> None:
    for i in range(bins.shape[0]):
        node = np.int32(0)
        while left[node] >= 0:
            f = feature[node]
            b = np.int64(bins[i, f])
            if b == missing_bins[f]:
                goes_left = default_left[node] == 1
            elif set_of_node[node] >= 0:
                goes_left = right_sets[set_of_node[node], b] == 0
            else:
                goes_left = b <= split_bin[node]
            node = left[node] if goes_left else right[node]
        out[i] = node


def leaf_of_rows(tree: Tree, binned: BinnedRows) -> Indices:
    """The leaf each binned row falls in, int32 (n,). Cost: one comparison a level."""
    out = np.empty(binned.n_rows, dtype=np.int32)
    _leaf_of_binned(
        binned.bins,
        tree.left,
        tree.right,
        tree.feature,
        tree.split_bin,
        tree.default_left,
        tree.set_of_node,
        tree.right_sets,
        binned.cuts.n_bins,
        out,
    )
    return out


def leaf_of_rows_naive(tree: Tree, binned: BinnedRows) -> Indices:
    """Twin of `leaf_of_rows`, row by row in plain Python."""
    leaves = []
    for row in binned.bins:
        node = 0
        while tree.left[node] >= 0:
            b = row[tree.feature[node]]
            is_missing = b == binned.cuts.n_bins[tree.feature[node]]
            right_set = _right_set(tree, node)
            present_left = b <= tree.split_bin[node] if right_set is None else int(b) not in right_set
            goes_left = tree.default_left[node] if is_missing else present_left
            node = int(tree.left[node] if goes_left else tree.right[node])
        leaves.append(node)
    return np.array(leaves, dtype=np.int32)


def _right_set(tree: Tree, node: int) -> frozenset[int] | None:
    row = int(tree.set_of_node[node])
    return None if row < 0 else frozenset(np.flatnonzero(tree.right_sets[row]).tolist())


def add_tree(margins: Floats, tree: Tree, binned: BinnedRows) -> None:
    """Adds a tree's leaf values to float32 (n,) margins in place, with the bits training gives them."""
    margins += tree.value[leaf_of_rows(tree, binned)]


@kernel
def _add_margins(
    columns: Floats,
    roots: Integers,
    left: Indices,
    right: Indices,
    feature: Indices,
    threshold: Floats,
    default_left: Marks,
    set_of_node: Indices,
    right_sets: Marks,
    value: Floats,
    margins: Floats,
) -> None:
    for i in range(columns.shape[0]):
        margin = margins[i]
        for t in range(roots.shape[0]):
            root = roots[t]
            node = np.int64(0)
            while left[root + node] >= 0:
                at = root + node
                x = columns[i, feature[at]]
                if x != x:
                    goes_left = default_left[at] == 1
                elif set_of_node[at] >= 0:
                    # Category numbers nobody trained on go left, as in XGBoost.
                    known = x >= np.float32(0.0) and x < np.float32(256.0)
                    goes_left = not known or right_sets[set_of_node[at], np.int64(x)] == 0
                else:
                    goes_left = x < threshold[at]
                node = np.int64(left[at]) if goes_left else np.int64(right[at])
            margin = np.float32(margin + value[root + node])
        margins[i] = margin


def predict_margin(trees: Sequence[Tree], columns: Floats, base_score: float) -> Floats:
    """Log odds of rows, as `xgboost.Booster.predict(..., output_margin=True)` gives them for the exported model.

    Args:
        trees: The model's trees in order.
        columns: float32 (n, f), NaN for missing, in the order of training.
        base_score: The probability training started from.

    Returns:
        float32 (n,). The sigmoid of it is the probability.

    Raises:
        RowError: When there are fewer columns than the trees use.
    """
    columns = np.ascontiguousarray(columns, dtype=np.float32)
    used = max((int(tree.feature.max()) + 1 for tree in trees), default=0)
    if columns.ndim != 2 or columns.shape[1] < used:
        raise RowError(f"feature columns have shape {columns.shape}, the model needs at least {used} columns")
    margins = np.full(columns.shape[0], base_margin(base_score), dtype=np.float32)
    add_trees(margins, trees, columns)
    return margins


def add_trees(margins: Floats, trees: Sequence[Tree], columns: Floats) -> None:
    """Adds trees' leaf values to float32 (n,) margins of real rows, float32 (n, f), in place, tree by tree."""
    if trees:
        sizes = np.array([tree.n_nodes for tree in trees], dtype=np.int64)
        sets = np.array([tree.right_sets.shape[0] for tree in trees], dtype=np.int64)
        first_sets = np.cumsum(sets) - sets
        _add_margins(
            columns,
            np.cumsum(sizes) - sizes,
            np.concatenate([tree.left for tree in trees]),
            np.concatenate([tree.right for tree in trees]),
            np.concatenate([tree.feature for tree in trees]),
            np.concatenate([tree.threshold for tree in trees]),
            np.concatenate([tree.default_left for tree in trees]),
            np.concatenate(
                [
                    np.where(tree.set_of_node < 0, -1, tree.set_of_node + first).astype(np.int32)
                    for tree, first in zip(trees, first_sets, strict=True)
                ]
            ),
            np.concatenate([tree.right_sets for tree in trees]),
            np.concatenate([tree.value for tree in trees]),
            margins,
        )


def predict_margin_naive(trees: Sequence[Tree], columns: Floats, base_score: float) -> Floats:
    """Twin of `predict_margin` in plain Python."""
    out = []
    for row in columns:
        margin = base_margin(base_score)
        for tree in trees:
            node = 0
            while tree.left[node] >= 0:
                x = row[tree.feature[node]]
                right_set = _right_set(tree, node)
                present_left = x < tree.threshold[node] if right_set is None else x not in right_set
                goes_left = tree.default_left[node] if np.isnan(x) else present_left
                node = int(tree.left[node] if goes_left else tree.right[node])
            margin = np.float32(margin + tree.value[node])
        out.append(margin)
    return np.array(out, dtype=np.float32)


def trees_to_bytes(trees: Sequence[Tree]) -> bytes:
    """Trees as a checkpoint, npz without pickle; equal trees give equal bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {"sizes": np.array([tree.n_nodes for tree in trees], dtype=np.int64)}
    for name, dtype in _DTYPES.items():
        arrays[name] = np.concatenate([np.empty(0, dtype=dtype), *(getattr(tree, name) for tree in trees)])
    # 256 marks as 32 bytes.
    sets = np.concatenate([np.empty((0, 256), dtype=np.uint8), *(tree.right_sets for tree in trees)])
    arrays["right_sets"] = np.packbits(sets, axis=1, bitorder="little")
    arrays["sets"] = np.array([tree.right_sets.shape[0] for tree in trees], dtype=np.int64)
    arrays["metrics"] = np.array([tree.metric for tree in trees], dtype=np.float64)
    arrays["magnitudes"] = np.array([tree.magnitudes for tree in trees], dtype=np.int64).reshape(-1, 3)
    return pack_arrays(arrays)


def trees_from_bytes(data: bytes) -> list[Tree]:
    """Reads what `trees_to_bytes` wrote.

    Raises:
        BoostingError: When the bytes are not such a checkpoint.
    """
    arrays = unpack_arrays(data, ("sizes", *_DTYPES, *_PER_TREE), what="trees")
    ends, set_ends = np.cumsum(arrays["sizes"]), np.cumsum(arrays["sets"])
    n_nodes, n_sets = (int(each[-1]) if each.size else 0 for each in (ends, set_ends))
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].shape != (n_nodes,):
            raise BoostingError(f"the checkpoint of the trees has a wrong array {name}")
    shapes = {"right_sets": (n_sets, 32), "sets": ends.shape, "metrics": ends.shape, "magnitudes": (ends.size, 3)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise BoostingError(f"the checkpoint of the trees has a wrong array {name}")
    if not ends.size:
        return []
    pieces = {name: np.split(arrays[name], ends[:-1]) for name in _DTYPES}
    marks = np.unpackbits(arrays["right_sets"], axis=1, bitorder="little")
    right_sets = np.split(marks, set_ends[:-1])
    return [
        Tree(
            **{name: pieces[name][i] for name in _DTYPES},
            right_sets=right_sets[i],
            metric=float(arrays["metrics"][i]),
            magnitudes=arrays["magnitudes"][i],
        )
        for i in range(ends.size)
    ]
