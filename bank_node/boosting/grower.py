"""Grows the trees of a run level by level, in lockstep with the other banks; it opens no connection.

The consortium is reached through `secure_sum` alone. Every decision is made from summed integers that all
banks hold alike, so all banks grow the same tree; a bank's own rows decide only where those rows go.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import BinnedRows, Cuts, SecureSum, check_labels
from bank_node.boosting.errors import BoostingError, RowError, SumError
from bank_node.boosting.gradients import BITS_OF_SUM, base_margin, fraction_bits
from bank_node.boosting.histogram import SlotLayout
from bank_node.boosting.local_rows import LocalRows, NodeSplits, RowStore
from bank_node.boosting.magnitudes import first_magnitudes, next_magnitudes
from bank_node.boosting.packing import Packing
from bank_node.boosting.parameters import BoostingParameters
from bank_node.boosting.splitting import SplitRules, Splits, find_splits, node_weight
from bank_node.boosting.trees import Tree

__all__ = ["OnRound", "train_trees"]

logger = logging.getLogger(__name__)

Integers = npt.NDArray[np.int64]

OnRound = Callable[[int, Tree], None]
"""Called after each new tree with its number, from 0, and the tree."""

_ABOVE_ALL = float(np.finfo(np.float32).max)
"""Threshold of a split of present values from missing ones: rows have no value this large, see `bin_rows`."""


def train_trees(
    binned: BinnedRows,
    labels: npt.ArrayLike,
    params: BoostingParameters,
    secure_sum: SecureSum,
    *,
    n_rows_total: int,
    base_score: float | None = None,
    resume: Sequence[Tree] = (),
    on_round: OnRound | None = None,
) -> list[Tree]:
    """Trains boosted trees for the logistic loss together with the other banks.

    Args:
        binned: This bank's rows, uint8 (n, f) with the cuts all banks share; n may be 0.
        labels: 0 or 1, (n,).
        params: The run's parameters, equal at all banks.
        secure_sum: Called as `secure_sum("train/<round>/<depth>", vector)`, once a level that can still split,
            with int64 values of which all banks' magnitudes together stay below 2**57. In the packed layout also
            for "train/<round>/leaves" after the levels.
        n_rows_total: Rows of all banks together.
        base_score: Probability to start from; None takes it from the parameters, or the cuts' counts.
        resume: Trees made before; their rounds are not trained again.
        on_round: Called after each new tree.

    Returns:
        All `params.n_estimators` trees, the resumed ones included. They depend on the rows of all banks
        together, not on which bank holds which, to the last bit.

    Raises:
        RowError: For labels that are not 0 or 1, missing values that the cuts say nobody has, or too many rows.
        SumError: When a summed vector is impossible.
    """
    marks = check_labels(labels, binned.n_rows)
    if n_rows_total < binned.n_rows:
        raise BoostingError(f"this bank has {binned.n_rows} rows but all banks together only {n_rows_total}")
    if len(resume) > params.n_estimators:
        raise BoostingError(f"{len(resume)} trees to resume from, but only {params.n_estimators} were asked for")
    _check_missing(binned)
    bits = fraction_bits(n_rows_total, params.scale_pos_weight)
    if base_score is None:
        base_score = binned.cuts.base_score(params)
    layout = SlotLayout.of(binned.cuts)
    rows = LocalRows(binned, marks, layout, scale_pos_weight=params.scale_pos_weight, bits=bits)
    rows.start(base_margin(base_score), resume)
    grower = _Grower(
        cuts=binned.cuts,
        params=params,
        layout=layout,
        rules=SplitRules.of(params, bits),
        secure_sum=secure_sum,
        bits=bits,
        n_rows_total=n_rows_total,
        rows=rows,
    )
    magnitudes = first_magnitudes(base_score, n_rows_total, binned.cuts.n_positive_total, params.scale_pos_weight, bits)
    trees = list(resume)
    for round_index in range(len(trees), params.n_estimators):
        if trees:
            magnitudes = (int(trees[-1].magnitudes[0]), int(trees[-1].magnitudes[1]))
        tree = grower.grow(round_index, magnitudes)
        trees.append(tree)
        logger.debug("boosting round %d: tree of %d nodes", round_index, tree.n_nodes)
        if on_round is not None:
            on_round(round_index, tree)
    return trees


def _check_missing(binned: BinnedRows) -> None:
    cuts = binned.cuts
    for f in np.flatnonzero(~cuts.has_missing):
        count = int(np.count_nonzero(binned.bins[:, f] == cuts.n_bins[f]))
        if count:
            name = cuts.feature_names[f] if cuts.feature_names else str(f)
            raise RowError(
                f"feature {name} has {count} missing values, but the bins were agreed on rows without any; train on "
                "the rows the bins were made of"
            )


@dataclass(slots=True)
class _Nodes:
    """The growing tree, one list a property; see `Tree`."""

    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    split_bin: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    default_left: list[int] = field(default_factory=list)
    loss_change: list[float] = field(default_factory=list)
    total: list[Integers] = field(default_factory=list)

    def add(self, parent: int, total: Integers) -> int:
        """Appends a leaf; returns its number."""
        for links in (self.left, self.right):
            links.append(-1)
        for numbers in (self.feature, self.split_bin, self.default_left):
            numbers.append(0)
        for values in (self.threshold, self.loss_change):
            values.append(0.0)
        self.parent.append(parent)
        self.total.append(total)
        return len(self.parent) - 1

    def finish(self, rules: SplitRules, eta: float) -> Tree:
        """The tree, with weights and leaf values computed from the nodes' sums, without `Tree.magnitudes`."""
        n = len(self.parent)
        weight = np.array([node_weight(self.total[i], rules, is_root=i == 0) for i in range(n)], dtype=np.float32)
        left = np.array(self.left, dtype=np.int32)
        is_leaf = left < 0
        value = np.where(is_leaf, weight * np.float32(eta), np.float32(0.0)).astype(np.float32)
        # XGBoost stores a leaf's shrunken value as its weight, except for a tree that is a leaf only.
        shown = np.where(is_leaf, value, weight) if n > 1 else weight
        return Tree(
            left=left,
            right=np.array(self.right, dtype=np.int32),
            parent=np.array(self.parent, dtype=np.int32),
            feature=np.array(self.feature, dtype=np.int32),
            split_bin=np.array(self.split_bin, dtype=np.int32),
            threshold=np.array(self.threshold, dtype=np.float32),
            default_left=np.array(self.default_left, dtype=np.uint8),
            weight=shown.astype(np.float32),
            loss_change=np.array(self.loss_change, dtype=np.float32),
            sum_hessian=np.array([float(total[1]) * rules.unit for total in self.total], dtype=np.float32),
            value=value,
        )


@dataclass(slots=True, kw_only=True)
class _Grower:
    """What stays the same from tree to tree at one bank."""

    cuts: Cuts
    params: BoostingParameters
    layout: SlotLayout
    rules: SplitRules
    secure_sum: SecureSum
    bits: int
    n_rows_total: int
    rows: RowStore

    def grow(self, round_index: int, magnitudes: tuple[int, int]) -> Tree:
        """Grows one tree and adds its leaf values to the margins of this bank's rows.

        Args:
            round_index: From 0.
            magnitudes: Bounds of all banks' Σ|g| and Σh; used by the packed layout only.
        """
        packing = None
        if self.params.histogram_layout == "packed":
            packing = Packing.of(*magnitudes, self.n_rows_total, self.bits)
        nodes = _Nodes()
        own_total = self.rows.begin_tree(packing)
        histograms, total = self._root(f"train/{round_index}/0", own_total, packing)
        nodes.add(-1, total)
        level = np.zeros(1, dtype=np.int64)
        for depth in range(1, self.params.max_depth + 1):
            totals = np.stack([nodes.total[i] for i in level])
            splits = find_splits(histograms, totals, self.layout.starts, self.rules)
            kept = np.flatnonzero(splits.feature >= 0)
            if kept.size == 0:
                break
            self._split(nodes, level[kept], splits, kept)
            if depth == self.params.max_depth:
                break
            step = f"train/{round_index}/{depth}"
            level, histograms = self._next_level(step, nodes, level[kept], histograms[kept], packing)
            if level.size == 0:
                break
        leaves = np.flatnonzero(np.array(nodes.left) < 0).tolist()
        packed = self.params.histogram_layout == "packed"
        sums = self._refit(f"train/{round_index}/leaves", nodes, leaves) if packed else None
        tree = nodes.finish(self.rules, self.params.eta)
        if sums is not None:
            weight = self.params.scale_pos_weight
            bounds = next_magnitudes(tree.value[leaves], sums, self.n_rows_total, weight, self.bits)
            tree = replace(tree, magnitudes=np.array(bounds, dtype=np.int64))
        self.rows.finish_tree(leaves, tree.value[leaves])
        return tree

    def _refit(self, step: str, nodes: _Nodes, leaves: list[int]) -> Integers:
        """Replaces all nodes' rounded totals by exact ones: one sum over the leaves, and upwards from there.

        Returns:
            int64 (leaves, 2), each leaf's Σ|g| and Σh over all banks.
        """
        own = self.rows.leaf_sums(leaves)
        summed = self._sum(step, own.reshape(-1)).reshape(-1, 3)
        if summed[:, 1].min() < 0 or (np.abs(summed[:, 0]) > summed[:, 2]).any():
            raise SumError(f"step {step}: the sum is none of leaves (a hessian or magnitude out of range)")
        for leaf, total in zip(leaves, summed[:, :2], strict=True):
            nodes.total[leaf] = total
        # Children come after their parents.
        for i in reversed(range(len(nodes.left))):
            if nodes.left[i] >= 0:
                nodes.total[i] = nodes.total[nodes.left[i]] + nodes.total[nodes.right[i]]
        return summed[:, [2, 1]]

    def _root(self, step: str, own_total: Integers, packing: Packing | None) -> tuple[Integers, Integers]:
        """Sums the root's histogram and, in one or two more values, its total."""
        vector = np.concatenate((self.rows.histograms([0]), own_total))
        pairs = _pairs(self._sum(step, vector), packing)
        total = pairs[-1].copy()
        histograms = self.layout.unpack(pairs[:-1], total[None, :])
        self._check(step, histograms)
        return histograms, total

    def _split(self, nodes: _Nodes, parents: Integers, splits: Splits, kept: Integers) -> None:
        """Gives each parent its split and two children, and moves this bank's rows to them."""
        columns = splits.feature[kept]
        for k, parent in enumerate(parents.tolist()):
            at = int(kept[k])
            feature = int(self.layout.features[columns[k]])
            cuts, split_bin = self.cuts.values[feature], int(splits.bin[at])
            nodes.feature[parent] = feature
            nodes.split_bin[parent] = split_bin
            if split_bin < 0:
                nodes.threshold[parent] = -_ABOVE_ALL
            else:
                nodes.threshold[parent] = float(cuts[split_bin]) if split_bin < cuts.size else _ABOVE_ALL
            nodes.default_left[parent] = int(splits.default_left[at])
            nodes.loss_change[parent] = float(splits.loss_change[at])
            left_total = splits.left[at].copy()
            right_total = nodes.total[parent] - left_total
            nodes.left[parent] = nodes.add(parent, left_total)
            nodes.right[parent] = nodes.add(parent, right_total)
        self.rows.split(
            NodeSplits(
                nodes=parents,
                left=np.array([nodes.left[i] for i in parents], dtype=np.int64),
                right=np.array([nodes.right[i] for i in parents], dtype=np.int64),
                features=columns,
                bins=splits.bin[kept],
                default_left=splits.default_left[kept],
            )
        )

    def _next_level(
        self, step: str, nodes: _Nodes, parents: Integers, parent_histograms: Integers, packing: Packing | None
    ) -> tuple[Integers, Integers]:
        """Histograms of the children: the lighter one summed over the banks, the heavier by subtraction.

        "Lighter" is by the global hessian, which all banks know from the split, and the left one of equals.
        Pairs of which neither child can be split again are left out.
        """
        # A split needs min_child_weight on both sides. The factor keeps rounding on the safe side.
        least = 2.0 * self.rules.min_child_weight * (1.0 - 1e-9) / self.rules.unit
        pairs = [
            (k, nodes.left[parent], nodes.right[parent])
            for k, parent in enumerate(parents.tolist())
            if max(nodes.total[nodes.left[parent]][1], nodes.total[nodes.right[parent]][1]) >= least
        ]
        if not pairs or not self.layout.features.size:
            return np.empty(0, dtype=np.int64), parent_histograms[:0]
        light = [left if nodes.total[left][1] <= nodes.total[right][1] else right for _, left, right in pairs]
        pairs_of_slots = _pairs(self._sum(step, self.rows.histograms(light)), packing)
        built = self.layout.unpack(pairs_of_slots, np.stack([nodes.total[i] for i in light]))
        siblings = parent_histograms[[k for k, _, _ in pairs]] - built
        self._check(step, built)
        self._check(step, siblings)
        level = np.array([child for _, left, right in pairs for child in (left, right)], dtype=np.int64)
        histograms = np.empty((level.size, *built.shape[1:]), dtype=np.int64)
        for k, (_, left, _right) in enumerate(pairs):
            first, second = (built[k], siblings[k]) if light[k] == left else (siblings[k], built[k])
            histograms[2 * k], histograms[2 * k + 1] = first, second
        return level, histograms

    def _sum(self, step: str, vector: Integers) -> Integers:
        summed = self.secure_sum(step, vector)
        if summed.shape != vector.shape or summed.dtype != np.int64:
            raise SumError(
                f"step {step}: the sum has shape {summed.shape} {summed.dtype}, expected {vector.shape} int64"
            )
        return summed

    def _check(self, step: str, histograms: Integers) -> None:
        if histograms.size and (int(histograms[..., 1].min()) < 0 or int(np.abs(histograms).max()) >= 2**BITS_OF_SUM):
            raise SumError(f"step {step}: the sum is no histogram of the agreed rows (a hessian out of range)")


def _pairs(summed: Integers, packing: Packing | None) -> Integers:
    """Gradient and hessian of each summed slot, int64 (m, 2)."""
    return summed.reshape(-1, 2) if packing is None else packing.unpack(summed)
