"""One bank's rows while trees grow: bins, margins, gradients, and at which node each row stands. Decides no split.

The grower speaks to rows only through `RowStore`, by node numbers; all that comes back are sums over rows, which
depend on no order. So rows may lie in one process (`LocalRows`) or in shards over many, with the same bytes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bank_node.boosting.binning import BinnedRows
from bank_node.boosting.gradients import logistic_gradients
from bank_node.boosting.histogram import SlotLayout, build_histograms
from bank_node.boosting.kernels import kernel
from bank_node.boosting.packing import Packing, build_packed, pack_rows
from bank_node.boosting.partition import partition_rows
from bank_node.boosting.trees import Tree, add_tree

__all__ = ["LocalRows", "NodeSplits", "RowStore"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeSplits:
    """Splits of some nodes, one entry each.

    Attributes:
        nodes: int64 (k,), the nodes that are split.
        left: int64 (k,), the node that rows go to whose bin is at most `bins`.
        right: int64 (k,), where the others go.
        features: int64 (k,), position in `SlotLayout.features`.
        bins: int64 (k,).
        default_left: uint8 (k,), whether missing values go left.
    """

    nodes: Integers
    left: Integers
    right: Integers
    features: Integers
    bins: Integers
    default_left: npt.NDArray[np.uint8]


class RowStore(Protocol):
    """What growing a tree needs of a bank's rows."""

    def start(self, margin: np.float32, trees: Sequence[Tree]) -> None:
        """Sets all margins to a value, then adds trees made before."""
        ...

    def begin_tree(self, packing: Packing | None) -> Integers:
        """Computes gradients and puts all rows at node 0.

        Args:
            packing: this tree's rounding, or None for exact pairs.

        Returns:
            Our rows' total as it is sent: int64 (1,) packed, or (2,) gradient and hessian.
        """
        ...

    def histograms(self, nodes: Sequence[int]) -> Integers:
        """The sent slots of the nodes' histograms, one vector: node by node, as `SlotLayout.sent` orders them."""
        ...

    def split(self, splits: NodeSplits) -> None:
        """Moves the rows of split nodes to their children."""
        ...

    def leaf_sums(self, leaves: Sequence[int]) -> Integers:
        """Exact sums of each leaf's rows, int64 (leaves, 3): gradients, hessians, absolute gradients."""
        ...

    def finish_tree(self, leaves: Sequence[int], values: npt.NDArray[np.float32]) -> None:
        """Adds each leaf's value, float32 (leaves,), to the margins of its rows."""
        ...


@kernel
def _add_leaves(
    rows: npt.NDArray[np.uint32],
    begins: Integers,
    ends: Integers,
    values: npt.NDArray[np.float32],
    margins: npt.NDArray[np.float32],
) -> None:
    for leaf in range(begins.shape[0]):
        for position in range(begins[leaf], ends[leaf]):
            margins[rows[position]] += values[leaf]


@kernel
def _sum_leaves(
    rows: npt.NDArray[np.uint32], begins: Integers, ends: Integers, gradients: Integers, out: Integers
) -> None:
    for leaf in range(begins.shape[0]):
        for position in range(begins[leaf], ends[leaf]):
            g = gradients[rows[position], 0]
            out[leaf, 0] += g
            out[leaf, 1] += gradients[rows[position], 1]
            out[leaf, 2] += abs(g)


class LocalRows:
    """A `RowStore` in this process: rows sorted by node, so that a node's rows are one range."""

    __slots__ = (
        "_begin",
        "_binned",
        "_bins",
        "_bits",
        "_columns",
        "_end",
        "_gradients",
        "_labels",
        "_layout",
        "_margins",
        "_missing_bins",
        "_packed",
        "_positive_weight",
        "_rows",
        "_spare",
    )

    def __init__(
        self,
        binned: BinnedRows,
        labels: npt.NDArray[np.uint8],
        layout: SlotLayout,
        *,
        scale_pos_weight: float,
        bits: int,
    ) -> None:
        """Takes the rows; `start` must come next.

        Args:
            binned: uint8 (n, f), n may be 0.
            labels: uint8 (n,), 0 or 1.
            layout: the features that can split, and their slots.
            scale_pos_weight: weight of rows with label 1.
            bits: fraction bits of gradients.
        """
        whole = layout.features.size == binned.cuts.n_features
        self._binned = binned
        self._labels = labels
        self._layout = layout
        self._positive_weight = scale_pos_weight
        self._bits = bits
        self._bins = np.ascontiguousarray(binned.bins if whole else binned.bins[:, layout.features])
        self._columns = np.ascontiguousarray(self._bins.T)
        self._missing_bins = binned.cuts.n_bins[layout.features]
        self._margins = np.zeros(binned.n_rows, dtype=np.float32)
        self._gradients = np.empty((binned.n_rows, 2), dtype=np.int64)
        self._packed: Integers | None = None
        self._rows = np.empty(binned.n_rows, dtype=np.uint32)
        self._spare = np.empty(binned.n_rows, dtype=np.uint32)
        self._begin: dict[int, int] = {}
        self._end: dict[int, int] = {}

    def start(self, margin: np.float32, trees: Sequence[Tree]) -> None:
        """See `RowStore`."""
        self._margins[:] = margin
        for tree in trees:
            add_tree(self._margins, tree, self._binned)

    def begin_tree(self, packing: Packing | None) -> Integers:
        """See `RowStore`."""
        logistic_gradients(self._margins, self._labels, self._positive_weight, self._bits, out=self._gradients)
        self._rows[:] = np.arange(self._rows.size, dtype=np.uint32)
        self._begin, self._end = {0: 0}, {0: self._rows.size}
        if packing is None:
            self._packed = None
            return np.asarray(self._gradients.sum(axis=0, dtype=np.int64))
        self._packed = pack_rows(self._gradients, packing)
        return np.array([self._packed.sum()], dtype=np.int64)

    def histograms(self, nodes: Sequence[int]) -> Integers:
        """See `RowStore`."""
        begins, ends = self._ranges(nodes)
        if self._packed is None:
            built = build_histograms(self._bins, self._gradients, self._rows, begins, ends, self._layout)
            return self._layout.pack(built)
        slots = build_packed(self._bins, self._packed, self._rows, begins, ends, self._layout.starts)
        return np.ascontiguousarray(slots[:, self._layout.sent]).reshape(-1)

    def split(self, splits: NodeSplits) -> None:
        """See `RowStore`."""
        begins, ends = self._ranges(splits.nodes.tolist())
        middles = partition_rows(
            self._columns,
            self._rows,
            begins,
            ends,
            splits.features,
            splits.bins,
            self._missing_bins[splits.features],
            splits.default_left,
            self._spare,
        )
        for k, (left, right) in enumerate(zip(splits.left.tolist(), splits.right.tolist(), strict=True)):
            self._begin[left], self._end[left] = int(begins[k]), int(middles[k])
            self._begin[right], self._end[right] = int(middles[k]), int(ends[k])

    def leaf_sums(self, leaves: Sequence[int]) -> Integers:
        """See `RowStore`."""
        begins, ends = self._ranges(leaves)
        out = np.zeros((begins.size, 3), dtype=np.int64)
        _sum_leaves(self._rows, begins, ends, self._gradients, out)
        return out

    def finish_tree(self, leaves: Sequence[int], values: npt.NDArray[np.float32]) -> None:
        """See `RowStore`."""
        begins, ends = self._ranges(leaves)
        _add_leaves(self._rows, begins, ends, values, self._margins)

    def _ranges(self, nodes: Sequence[int]) -> tuple[Integers, Integers]:
        begins = np.array([self._begin[node] for node in nodes], dtype=np.int64)
        return begins, np.array([self._end[node] for node in nodes], dtype=np.int64)
