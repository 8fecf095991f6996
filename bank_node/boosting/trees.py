"""A trained tree, its use on rows, and its checkpoint; it neither trains nor knows XGBoost's file formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bank_node.boosting.archive import pack_arrays, unpack_arrays
from bank_node.boosting.binning import BinnedRows
from bank_node.boosting.errors import BoostingError, RowError
from bank_node.boosting.gradients import base_margin
from bank_node.boosting.kernels import kernel

__all__ = [
    "Tree",
    "add_tree",
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
        split_bin: int32 (m,), rows with bin <= this go left; -1 sends every present value right.
        threshold: float32 (m,), rows with value < this go left, in the feature's unit; 0 for a leaf.
        default_left: uint8 (m,), whether missing values go left.
        weight: float32 (m,), the optimal weight of an inner node, and eta times it for a leaf.
        loss_change: float32 (m,), 0 for a leaf.
        sum_hessian: float32 (m,).
        value: float32 (m,), what a leaf adds to the margin, 0 for inner nodes.
        magnitudes: int64 (2,), bounds of all banks' Σ|g| and Σh after this tree, in fixed-point units; -1 where the
            layout does not need them. No part of the model: a checkpoint goes on from them.
    """

    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    parent: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    split_bin: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    default_left: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]
    loss_change: npt.NDArray[np.float32]
    sum_hessian: npt.NDArray[np.float32]
    value: npt.NDArray[np.float32]
    magnitudes: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(2, -1, dtype=np.int64))

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
}


@kernel
def _leaf_of_binned(
    bins: npt.NDArray[np.uint8],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    split_bin: npt.NDArray[np.int32],
    default_left: npt.NDArray[np.uint8],
    missing_bins: npt.NDArray[np.int64],
    out: npt.NDArray[np.int32],
) -> None:
    for i in range(bins.shape[0]):
        node = np.int32(0)
        while left[node] >= 0:
            f = feature[node]
            b = np.int64(bins[i, f])
            goes_left = default_left[node] == 1 if b == missing_bins[f] else b <= split_bin[node]
            node = left[node] if goes_left else right[node]
        out[i] = node


def leaf_of_rows(tree: Tree, binned: BinnedRows) -> npt.NDArray[np.int32]:
    """The leaf each binned row falls in, int32 (n,). Cost: one comparison a level."""
    out = np.empty(binned.n_rows, dtype=np.int32)
    _leaf_of_binned(
        binned.bins,
        tree.left,
        tree.right,
        tree.feature,
        tree.split_bin,
        tree.default_left,
        binned.cuts.n_bins,
        out,
    )
    return out


def leaf_of_rows_naive(tree: Tree, binned: BinnedRows) -> npt.NDArray[np.int32]:
    """Twin of `leaf_of_rows`, row by row in plain Python."""
    leaves = []
    for row in binned.bins:
        node = 0
        while tree.left[node] >= 0:
            b = row[tree.feature[node]]
            is_missing = b == binned.cuts.n_bins[tree.feature[node]]
            goes_left = tree.default_left[node] if is_missing else b <= tree.split_bin[node]
            node = int(tree.left[node] if goes_left else tree.right[node])
        leaves.append(node)
    return np.array(leaves, dtype=np.int32)


def add_tree(margins: npt.NDArray[np.float32], tree: Tree, binned: BinnedRows) -> None:
    """Adds a tree's leaf values to float32 (n,) margins in place, with the bits training gives them."""
    margins += tree.value[leaf_of_rows(tree, binned)]


@kernel
def _add_margins(
    columns: npt.NDArray[np.float32],
    roots: npt.NDArray[np.int64],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    threshold: npt.NDArray[np.float32],
    default_left: npt.NDArray[np.uint8],
    value: npt.NDArray[np.float32],
    margins: npt.NDArray[np.float32],
) -> None:
    for i in range(columns.shape[0]):
        margin = margins[i]
        for t in range(roots.shape[0]):
            root = roots[t]
            node = np.int64(0)
            while left[root + node] >= 0:
                at = root + node
                x = columns[i, feature[at]]
                goes_left = default_left[at] == 1 if x != x else x < threshold[at]
                node = np.int64(left[at]) if goes_left else np.int64(right[at])
            margin = np.float32(margin + value[root + node])
        margins[i] = margin


def predict_margin(
    trees: Sequence[Tree], columns: npt.NDArray[np.float32], base_score: float
) -> npt.NDArray[np.float32]:
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
    if trees:
        sizes = np.array([tree.n_nodes for tree in trees], dtype=np.int64)
        _add_margins(
            columns,
            np.cumsum(sizes) - sizes,
            np.concatenate([tree.left for tree in trees]),
            np.concatenate([tree.right for tree in trees]),
            np.concatenate([tree.feature for tree in trees]),
            np.concatenate([tree.threshold for tree in trees]),
            np.concatenate([tree.default_left for tree in trees]),
            np.concatenate([tree.value for tree in trees]),
            margins,
        )
    return margins


def predict_margin_naive(
    trees: Sequence[Tree], columns: npt.NDArray[np.float32], base_score: float
) -> npt.NDArray[np.float32]:
    """Twin of `predict_margin` in plain Python."""
    out = []
    for row in columns:
        margin = base_margin(base_score)
        for tree in trees:
            node = 0
            while tree.left[node] >= 0:
                x = row[tree.feature[node]]
                goes_left = tree.default_left[node] if np.isnan(x) else x < tree.threshold[node]
                node = int(tree.left[node] if goes_left else tree.right[node])
            margin = np.float32(margin + tree.value[node])
        out.append(margin)
    return np.array(out, dtype=np.float32)


def trees_to_bytes(trees: Sequence[Tree]) -> bytes:
    """Trees as a checkpoint, npz without pickle; equal trees give equal bytes."""
    arrays = {"sizes": np.array([tree.n_nodes for tree in trees], dtype=np.int64)}
    for name, dtype in _DTYPES.items():
        arrays[name] = np.concatenate([np.empty(0, dtype=dtype), *(getattr(tree, name) for tree in trees)])
    arrays["magnitudes"] = np.array([tree.magnitudes for tree in trees], dtype=np.int64).reshape(-1, 2)
    return pack_arrays(arrays)


def trees_from_bytes(data: bytes) -> list[Tree]:
    """Reads what `trees_to_bytes` wrote.

    Raises:
        BoostingError: When the bytes are not such a checkpoint.
    """
    arrays = unpack_arrays(data, ("sizes", *_DTYPES, "magnitudes"), what="trees")
    ends = np.cumsum(arrays["sizes"])
    n_nodes = int(ends[-1]) if ends.size else 0
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or arrays[name].shape != (n_nodes,):
            raise BoostingError(f"the checkpoint of the trees has a wrong array {name}; remove it and join again")
    if arrays["magnitudes"].shape != (ends.size, 2):
        raise BoostingError("the checkpoint of the trees has a wrong array magnitudes; remove it and join again")
    pieces = {name: np.split(arrays[name], ends[:-1]) for name in _DTYPES} if ends.size else {}
    return [
        Tree(**{name: pieces[name][i] for name in _DTYPES}, magnitudes=arrays["magnitudes"][i])
        for i in range(ends.size)
    ]
