"""The tree that is being grown, and what its nodes may do; it knows no rows and finds no split.

Monotone constraints work as in XGBoost: a split by a constrained feature puts a bound half-way between its children's
weights, which all nodes below keep. Interaction constraints: a node may split by the features already used on its
path, and by any set of the constraints that has all of those.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import Cuts
from bank_node.boosting.histogram import SlotLayout
from bank_node.boosting.sampling import FeatureSampler
from bank_node.boosting.split_rules import UNBOUNDED, Limits, SplitRules
from bank_node.boosting.splitting import Splits, bounded_weight, node_weight
from bank_node.boosting.trees import Tree
from bank_node.dtypes import Floats, Integers, Marks
from protocol.parameters import BoostingParameters

__all__ = ["GrowingTree", "Permissions"]


_ABOVE_ALL = float(np.finfo(np.float32).max)
"""Threshold of a split of present values from missing ones: rows have no value this large, see `bin_rows`."""


@dataclass(slots=True)
class GrowingTree:
    """One list a property; see `Tree`. Children come after their parents.

    Attributes:
        total: int64 (2,) of each node: exact in the packed layout too, but for children that were not summed.
        summed: int64 (2,), what the slots of each feature add up to in its histogram; `total` where nothing is rounded.
        depth: 0 for the root.
        column: Position of a split's feature among the usable ones.
        used: Positions of the features used above a node.
        bounds: float32 (2,), within which the weights of a node's children must lie.
        outer: Its parent's bounds.
        reachable: bool (n_slots,), the slots of a histogram that a row can be in after the splits above.
        right_set: uint8 (256,) for a split by categories, else None.
    """

    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    feature: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    split_bin: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    default_left: list[int] = field(default_factory=list)
    right_set: list[Marks | None] = field(default_factory=list)
    loss_change: list[float] = field(default_factory=list)
    total: list[Integers] = field(default_factory=list)
    summed: list[Integers] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    used: list[frozenset[int]] = field(default_factory=list)
    bounds: list[Floats] = field(default_factory=list)
    outer: list[Floats] = field(default_factory=list)
    reachable: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    @classmethod
    def planted(cls, total: Integers, n_slots: int = 0) -> "GrowingTree":
        """A root. Slots are counted where its histograms are to be summed."""
        tree = cls(reachable=[np.ones(n_slots, dtype=np.bool_)])
        free = np.array([-UNBOUNDED, UNBOUNDED], dtype=np.float32)
        tree._add(-1, total, 0, frozenset(), free, free)
        return tree

    @property
    def leaves(self) -> Integers:
        """The nodes without children, increasing."""
        return np.flatnonzero(np.array(self.left) < 0)

    def _add(
        self, parent: int, total: Integers, depth: int, used: frozenset[int], bounds: Floats, outer: Floats
    ) -> int:
        for links in (self.left, self.right):
            links.append(-1)
        for numbers in (self.feature, self.column, self.split_bin, self.default_left):
            numbers.append(0)
        for values in (self.threshold, self.loss_change):
            values.append(0.0)
        self.right_set.append(None)
        self.parent.append(parent)
        self.total.append(total)
        self.summed.append(total)
        self.depth.append(depth)
        self.used.append(used)
        self.bounds.append(bounds)
        self.outer.append(outer)
        if parent >= 0:
            self.reachable.append(self.reachable[parent])
        return len(self.parent) - 1

    def split(self, node: int, splits: Splits, at: int, layout: SlotLayout, cuts: Cuts, rules: SplitRules) -> None:
        """Gives a node the split `at` and two children."""
        column = int(splits.feature[at])
        if splits.is_set[at]:
            self.feature[node], self.column[node] = int(layout.features[column]), column
            self.right_set[node] = splits.right_set[at].copy()
        else:
            self._split_by_bin(node, column, int(splits.bin[at]), layout, cuts)
        self.default_left[node] = int(splits.default_left[at])
        self.loss_change[node] = float(splits.loss_change[at])
        left = splits.left[at] + self._rounded_off(node, int(splits.left[at][1]))
        right = self.total[node] - left
        used = self.used[node] | {column}
        below = _bounds_below(self.bounds[node], left, right, _way(rules, column), rules)
        for links, total, bounds in ((self.left, left, below[0]), (self.right, right, below[1])):
            links[node] = self._add(node, total, self.depth[node] + 1, used, bounds, self.bounds[node])

    def narrow(self, node: int, goes_left: Marks, layout: SlotLayout) -> None:
        """Notes which slots the children of a node can reach: uint8 (256,) marks the bins that go left."""
        first, last = layout.starts[self.column[node] : self.column[node] + 2].tolist()
        marks = goes_left[: last - first] != 0
        for child, inside in ((self.left[node], marks), (self.right[node], ~marks)):
            self.reachable[child] = self.reachable[node].copy()
            self.reachable[child][first:last] &= inside

    def _rounded_off(self, node: int, hessian: int) -> Integers:
        """What rounding took from the rows of a child, by its share of the node's hessian.

        Most rows of a node have nearly the same gradient, which is rounded alike: their errors add up, and the child's
        follow from the node's, which is known.
        """
        missing, whole = self.total[node] - self.summed[node], int(self.summed[node][1])
        if whole <= 0:
            return np.zeros(2, dtype=np.int64)
        return np.array([part * hessian // whole for part in missing.tolist()], dtype=np.int64)

    def split_unsummed(
        self, node: int, column: int, split_bin: int, default_left: bool, layout: SlotLayout, cuts: Cuts
    ) -> tuple[int, int]:
        """Gives a node a split by bin and two children; totals and bounds come with `refit`, gains with `measure`."""
        self._split_by_bin(node, column, split_bin, layout, cuts)
        self.default_left[node] = int(default_left)
        used, none = self.used[node] | {column}, np.zeros(2, dtype=np.int64)
        for links in (self.left, self.right):
            links[node] = self._add(node, none, self.depth[node] + 1, used, self.bounds[node], self.bounds[node])
        return self.left[node], self.right[node]

    def _split_by_bin(self, node: int, column: int, split_bin: int, layout: SlotLayout, cuts: Cuts) -> None:
        feature = int(layout.features[column])
        values = cuts.values[feature]
        self.feature[node], self.column[node], self.split_bin[node] = feature, column, split_bin
        below_all = split_bin < 0
        above_all = split_bin >= values.size
        self.threshold[node] = -_ABOVE_ALL if below_all else _ABOVE_ALL if above_all else float(values[split_bin])

    def measure(self, rules: SplitRules) -> None:
        """Sets what each split gains, from the nodes' totals: less of the regularised loss, as XGBoost counts it."""
        scores = [_score(total, rules, bounds) for total, bounds in zip(self.total, self.bounds, strict=True)]
        for node in np.flatnonzero(np.array(self.left) >= 0).tolist():
            self.loss_change[node] = scores[self.left[node]] + scores[self.right[node]] - scores[node]

    def refit(self, leaves: Sequence[int], totals: Integers, rules: SplitRules) -> None:
        """Replaces the leaves' totals, and with them those of the nodes above and all bounds."""
        for leaf, total in zip(leaves, totals, strict=True):
            self.total[leaf] = total
        inner = [i for i in range(len(self.left)) if self.left[i] >= 0]
        for i in reversed(inner):
            self.total[i] = self.total[self.left[i]] + self.total[self.right[i]]
        for i in inner:
            left, right = self.left[i], self.right[i]
            self.bounds[left], self.bounds[right] = _bounds_below(
                self.bounds[i], self.total[left], self.total[right], _way(rules, self.column[i]), rules
            )

    def finish(self, rules: SplitRules, eta: float) -> Tree:
        """The tree, with weights and leaf values computed from the nodes' sums, without `Tree.magnitudes`."""
        n = len(self.parent)
        # A leaf keeps its own bounds, not its parent's only: XGBoost's weights already lie within them, and sums that
        # were refitted after the splits were chosen could leave them.
        weight = np.array(
            [
                node_weight(self.total[0], rules, is_root=True)
                if i == 0
                else bounded_weight(self.total[i], rules, self.bounds[i])
                for i in range(n)
            ],
            dtype=np.float32,
        )
        left = np.array(self.left, dtype=np.int32)
        is_leaf = left < 0
        value = np.where(is_leaf, weight * np.float32(eta), np.float32(0.0)).astype(np.float32)
        # XGBoost stores a leaf's shrunken value as its weight, except for a tree that is a leaf only.
        shown = np.where(is_leaf, value, weight) if n > 1 else weight
        sets = [marks for marks in self.right_set if marks is not None]
        has_set = np.array([marks is not None for marks in self.right_set])
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
            set_of_node=np.where(has_set, np.cumsum(has_set) - 1, -1).astype(np.int32),
            right_sets=np.array(sets, dtype=np.uint8).reshape(-1, 256),
        )


def _score(total: Integers, rules: SplitRules, bounds: Floats) -> float:
    weight = float(bounded_weight(total, rules, bounds))
    gradient, hessian = float(total[0]) * rules.unit, float(total[1]) * rules.unit
    penalty = 2.0 * rules.reg_alpha * abs(weight)
    return -(2.0 * gradient * weight + (hessian + rules.reg_lambda) * weight * weight + penalty)


def _way(rules: SplitRules, column: int) -> int:
    return int(rules.monotone[column]) if rules.monotone.size else 0


def _bounds_below(
    bounds: Floats, left: Integers, right: Integers, way: int, rules: SplitRules
) -> tuple[Floats, Floats]:
    if way == 0:
        return bounds, bounds
    weights = [bounded_weight(total, rules, bounds) for total in (left, right)]
    middle = np.float32(np.float32(weights[0] + weights[1]) / np.float32(2.0))
    low, high = np.array([bounds[0], middle], dtype=np.float32), np.array([middle, bounds[1]], dtype=np.float32)
    return (low, high) if way > 0 else (high, low)


class Permissions:
    """Which usable features each node of one tree may split by."""

    def __init__(
        self, params: BoostingParameters, layout: SlotLayout, feature_names: Sequence[str], sampler: FeatureSampler
    ) -> None:
        """For the usable features of `layout`, whose names `feature_names` gives when constraints name any."""
        self._place = {int(feature): position for position, feature in enumerate(layout.features)}
        self._size = layout.features.size
        self._sampler = sampler
        named = {feature_names[feature]: position for feature, position in self._place.items() if feature_names}
        self._groups = [
            frozenset(named[name] for name in group if name in named) for group in params.interaction_constraints
        ]
        self._constrained = bool(params.interaction_constraints)

    @property
    def of_tree(self) -> Integers:
        """Positions of the usable features that any node may split by: only their histograms are needed."""
        return np.array([self._place[f] for f in self._sampler.tree if f in self._place], dtype=np.int64)

    def limits(self, tree: GrowingTree, nodes: Sequence[int]) -> Limits:
        """The limits of some nodes."""
        allowed = np.zeros((len(nodes), self._size), dtype=np.uint8)
        for row, node in enumerate(nodes):
            sampled = self._sampler.node(tree.depth[node], node)
            allowed[row, [self._place[f] for f in sampled if f in self._place]] = 1
            if self._constrained and tree.used[node]:
                used = tree.used[node]
                together = used.union(*(group for group in self._groups if used <= group))
                allowed[row, [position for position in range(self._size) if position not in together]] = 0
        return Limits(
            allowed=allowed,
            outer=np.array([tree.outer[node] for node in nodes], dtype=np.float32).reshape(-1, 2),
            inner=np.array([tree.bounds[node] for node in nodes], dtype=np.float32).reshape(-1, 2),
        )
