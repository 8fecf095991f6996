"""One bank's rows while trees grow: bins, margins, gradients, and at which node each row stands. Decides no split.

The grower speaks to rows only through `RowStore`, by node numbers; all that comes back are sums over rows, which
depend on no order. So rows may lie in one process (`LocalRows`) or in shards over many, with the same bytes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import BinnedRows, check_labels, check_weights
from bank_node.boosting.errors import RowError
from bank_node.boosting.gradients import fraction_bits, logistic_gradients
from bank_node.boosting.histogram import SlotLayout, build_histograms
from bank_node.boosting.packing import Packing, build_packed, pack_rows
from bank_node.boosting.partition import partition_rows
from bank_node.boosting.sampling import sample_rows
from bank_node.boosting.trees import Tree, add_tree
from bank_node.dtypes import Floats, Integers, Marks, RowNumbers, Words
from bank_node.kernels import kernel
from protocol.parameters import BoostingParameters

__all__ = ["LocalRows", "NodeSplits", "RowStore", "TreePlan"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeSplits:
    """Splits of some nodes, one entry each.

    Attributes:
        nodes: int64 (k,), the nodes that are split.
        left: int64 (k,), the node that rows go to whose bin is marked in `goes_left`.
        right: int64 (k,), where the others go.
        features: int64 (k,), position in `SlotLayout.features`.
        goes_left: uint8 (k, 256), 1 for the bins that go left, the missing one among them, else 0.
    """

    nodes: Integers
    left: Integers
    right: Integers
    features: Integers
    goes_left: Marks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TreePlan:
    """What is known of a tree before it grows.

    Attributes:
        round_index: Its number from 0; it decides the sample of rows.
        layout: The slots that are sent: `SlotLayout.only` of those that the store was made with.
    """

    round_index: int
    layout: SlotLayout


class RowStore(Protocol):
    """What growing a tree needs of a bank's rows."""

    def start(self, margin: np.float32, trees: Sequence[Tree]) -> None:
        """Sets all margins to a value, or those the store was made with, then adds trees made before."""
        ...

    def begin_tree(self, plan: TreePlan) -> Integers:
        """Computes gradients, draws the tree's sample of rows, and puts all rows at node 0.

        Returns:
            Our sampled rows' gradient, hessian and absolute gradient, int64 (3,).
        """
        ...

    def histograms(self, nodes: Sequence[int], packings: Sequence[Packing] | None = None) -> Integers:
        """The sent slots of the nodes' histograms of sampled rows, one vector: node by node, as `SlotLayout.sent`.

        Without `packings` each slot is an exact pair. With each node's packing it is one packed number, and after a
        node's slots come four more: its packed total, and its exact `Sizes`.
        """
        ...

    def split(self, splits: NodeSplits) -> None:
        """Moves the rows of split nodes to their children."""
        ...

    def leaf_sums(self, leaves: Sequence[int]) -> Integers:
        """Gradient and hessian of each leaf's sampled rows, int64 (leaves, 2)."""
        ...

    def finish_tree(self, leaves: Sequence[int], values: Floats) -> None:
        """Adds each leaf's value, float32 (leaves,), to the margins of its rows."""
        ...


@kernel
def _add_leaves(
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    values: Floats,
    margins: Floats,
) -> None:
    for leaf in range(begins.shape[0]):
        for position in range(begins[leaf], ends[leaf]):
            margins[rows[position]] += values[leaf]


@kernel
def _sum_leaves(rows: RowNumbers, begins: Integers, ends: Integers, gradients: Integers, out: Integers) -> None:
    for leaf in range(begins.shape[0]):
        for position in range(begins[leaf], ends[leaf]):
            out[leaf, 0] += gradients[rows[position], 0]
            out[leaf, 1] += gradients[rows[position], 1]


@kernel
def _totals(gradients: Integers, rows: RowNumbers) -> tuple[int, int, int]:
    gradient, hessian, magnitude = 0, 0, 0
    for position in range(rows.shape[0]):
        g, h = gradients[rows[position], 0], gradients[rows[position], 1]
        gradient += g
        hessian += h
        magnitude += abs(g)
    return gradient, hessian, magnitude


class _Order:
    """Some rows sorted by node, so that a node's rows are one range."""

    __slots__ = ("begin", "end", "rows", "spare")

    def __init__(self, rows: RowNumbers) -> None:
        """All of them at node 0."""
        self.rows = rows
        self.spare = np.empty_like(rows)
        self.begin: dict[int, int] = {0: 0}
        self.end: dict[int, int] = {0: rows.size}

    def ranges(self, nodes: Sequence[int]) -> tuple[Integers, Integers]:
        """Where the rows of each node begin and end, int64 (k,) each."""
        begins = np.array([self.begin[node] for node in nodes], dtype=np.int64)
        return begins, np.array([self.end[node] for node in nodes], dtype=np.int64)

    def split(self, splits: NodeSplits, columns: Marks) -> None:
        """Moves rows to the children."""
        begins, ends = self.ranges(splits.nodes.tolist())
        middles = partition_rows(columns, self.rows, begins, ends, splits.features, splits.goes_left, self.spare)
        for k, (left, right) in enumerate(zip(splits.left.tolist(), splits.right.tolist(), strict=True)):
            self.begin[left], self.end[left] = int(begins[k]), int(middles[k])
            self.begin[right], self.end[right] = int(middles[k]), int(ends[k])


class LocalRows:
    """A `RowStore` in this process."""

    __slots__ = (
        "_binned", "_bins", "_bits", "_columns", "_gradients", "_keys", "_labels", "_layout", "_margins", "_others",
        "_packed", "_params", "_plan", "_sampled", "_start", "_weights",
    )  # fmt: skip

    def __init__(
        self,
        binned: BinnedRows,
        labels: Marks,
        layout: SlotLayout,
        params: BoostingParameters,
        *,
        bits: int,
        weights: Floats | None = None,
        keys: Words | None = None,
        start: Floats | None = None,
    ) -> None:
        """Takes the rows; `start` must come next.

        Args:
            binned: uint8 (n, f), n may be 0.
            labels: uint8 (n,), 0 or 1.
            layout: the features that can split, and their slots.
            params: scale_pos_weight, subsample and seed are used.
            bits: fraction bits of gradients.
            weights: float32 (n,), or None where each row weighs 1.
            keys: uint64 (n,), from `row_keys`; needed when subsample is below 1.
            start: float32 (n,), margins of a model to go on from, or None.

        Raises:
            RowError: When keys are needed and not given.
        """
        if params.subsample < 1.0 and (keys is None or keys.shape != (binned.n_rows,)):
            raise RowError("subsample below 1 needs a key for each row: give the rows' ids")
        whole = layout.features.size == binned.cuts.n_features
        self._binned = binned
        self._labels = labels
        self._layout = layout
        self._params = params
        self._bits = bits
        self._weights = weights
        self._keys = keys
        self._start = start
        self._bins = np.ascontiguousarray(binned.bins if whole else binned.bins[:, layout.features])
        self._columns = np.ascontiguousarray(self._bins.T)
        self._margins = np.zeros(binned.n_rows, dtype=np.float32)
        self._gradients = np.empty((binned.n_rows, 2), dtype=np.int64)
        self._packed: Integers = np.empty(0, dtype=np.int64)
        self._plan: TreePlan | None = None
        self._sampled = self._others = _Order(np.empty(0, dtype=np.uint32))

    @classmethod
    def checked(
        cls,
        binned: BinnedRows,
        labels: npt.ArrayLike,
        params: BoostingParameters,
        *,
        weights: npt.ArrayLike | None = None,
        row_keys: Words | None = None,
        start: Floats | None = None,
    ) -> "LocalRows":
        """Rows as `grow_trees` takes them.

        Args:
            binned: uint8 (n, f) with the cuts all banks share.
            labels: 0 or 1, (n,).
            params: The run's.
            weights: (n,), or None where each row weighs 1.
            row_keys: See the constructor's `keys`.
            start: See the constructor.

        Raises:
            RowError: For labels that are not 0 or 1, weights out of range, or missing values that the cuts say nobody
                has.
        """
        _check_missing(binned)
        return cls(
            binned,
            check_labels(labels, binned.n_rows),
            SlotLayout.of(binned.cuts),
            params,
            bits=fraction_bits(binned.cuts.total_weight, params.scale_pos_weight),
            weights=check_weights(weights, binned.n_rows),
            keys=row_keys,
            start=start,
        )

    def start(self, margin: np.float32, trees: Sequence[Tree]) -> None:
        """See `RowStore`."""
        self._margins[:] = margin if self._start is None else self._start
        for tree in trees:
            add_tree(self._margins, tree, self._binned)

    def begin_tree(self, plan: TreePlan) -> Integers:
        """See `RowStore`."""
        self._differentiate()
        rows = np.arange(self._labels.size, dtype=np.uint32)
        none = np.empty(0, dtype=np.uint32)
        if self._keys is not None and self._params.subsample < 1.0:
            inside = sample_rows(self._keys, self._params.subsample, self._params.seed, plan.round_index) == 1
            self._sampled, self._others = _Order(rows[inside]), _Order(rows[~inside])
        else:
            self._sampled, self._others = _Order(rows), _Order(none)
        self._plan = plan
        return np.array(_totals(self._gradients, self._sampled.rows), dtype=np.int64)

    def histograms(self, nodes: Sequence[int], packings: Sequence[Packing] | None = None) -> Integers:
        """See `RowStore`."""
        layout = self._layout if self._plan is None else self._plan.layout
        order, (begins, ends) = self._sampled.rows, self._sampled.ranges(nodes)
        if packings is None:
            return layout.pack(build_histograms(self._bins, self._gradients, order, begins, ends, layout))
        if self._packed.size != order.size:
            self._packed = np.empty(order.size, dtype=np.int64)
        sums = pack_rows(self._gradients, order, begins, ends, packings, self._packed)
        slots = build_packed(self._bins, self._packed, order, begins, ends, layout.starts)
        return np.concatenate((slots[:, layout.sent], sums), axis=1).reshape(-1)

    def split(self, splits: NodeSplits) -> None:
        """See `RowStore`."""
        self._sampled.split(splits, self._columns)
        self._others.split(splits, self._columns)

    def leaf_sums(self, leaves: Sequence[int]) -> Integers:
        """See `RowStore`."""
        out = np.zeros((len(leaves), 2), dtype=np.int64)
        _sum_leaves(self._sampled.rows, *self._sampled.ranges(leaves), self._gradients, out)
        return out

    def finish_tree(self, leaves: Sequence[int], values: Floats) -> None:
        """See `RowStore`."""
        for order in (self._sampled, self._others):
            _add_leaves(order.rows, *order.ranges(leaves), values, self._margins)

    def _differentiate(self) -> None:
        logistic_gradients(
            self._margins,
            self._labels,
            self._params.scale_pos_weight,
            self._bits,
            out=self._gradients,
            weights=self._weights,
        )


def _check_missing(binned: BinnedRows) -> None:
    cuts = binned.cuts
    for f in np.flatnonzero(~cuts.has_missing):
        count = int(np.count_nonzero(binned.bins[:, f] == cuts.n_bins[f]))
        if count:
            raise RowError(
                f"feature {cuts.name(int(f))} has {count} missing values, but the bins were agreed on rows without "
                "any; train on the rows the bins were made of"
            )
