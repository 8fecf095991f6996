"""Gradient histograms of tree nodes: local sums, what is sent, and what follows from the total; no splits.

A node's histogram has, per feature, one slot a bin and one slot for missing values, each an int64 pair
(gradient, hessian). A bank sums its own rows into it. One slot a feature is never sent, for it follows from
the node's known total: the missing slot where any bank has missing values, the last bin elsewhere.
"""

from dataclasses import dataclass, replace

import numpy as np

from bank_node.boosting.binning import Cuts
from bank_node.dtypes import Integers, Marks, RowNumbers, Words
from bank_node.kernels import add_pair, kernel

__all__ = ["SlotLayout", "build_histograms", "build_histograms_naive"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotLayout:
    """Where each feature's bins lie in a histogram.

    Features that cannot split any node (one bin, nothing missing) are left out, so they cost nothing.

    Attributes:
        features: int64 (u,), the usable features in increasing order.
        starts: int64 (u + 1,), first slot of each usable feature; its missing slot is the last before the next.
        sent: int64 (s,), slots that are sent, feature by feature.
        sent_starts: int64 (u,), first position in `sent` of each feature.
        derived: int64 (u,), the slot of each feature that follows from the node's total.
    """

    features: Integers
    starts: Integers
    sent: Integers
    sent_starts: Integers
    derived: Integers

    @classmethod
    def of(cls, cuts: Cuts) -> "SlotLayout":
        """The layout all banks with these cuts use."""
        n_bins = cuts.n_bins
        features = np.flatnonzero((n_bins > 1) | cuts.has_missing).astype(np.int64)
        widths = n_bins[features] + 1
        starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(widths))).astype(np.int64)
        # Where nothing is missing the missing slot stays zero and the last bin is the one left out.
        n_sent = np.where(cuts.has_missing[features], widths - 1, widths - 2)
        sent = [starts[i] + np.arange(n_sent[i]) for i in range(features.size)]
        return cls(
            features=features,
            starts=starts,
            sent=np.concatenate([np.empty(0, dtype=np.int64), *sent]).astype(np.int64),
            sent_starts=np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(n_sent)))[:-1].astype(np.int64),
            derived=(starts[:-1] + n_sent).astype(np.int64),
        )

    def only(self, positions: Integers) -> "SlotLayout":
        """The same slots, of which those of some usable features are sent; the others' histograms stay zero.

        Args:
            positions: int64, increasing positions among the usable features.
        """
        if positions.size == self.features.size:
            return self
        ends = np.append(self.sent_starts, self.sent.size)
        pieces = [self.sent[ends[position] : ends[position + 1]] for position in positions]
        sizes = np.array([piece.size for piece in pieces], dtype=np.int64)
        return replace(
            self,
            sent=np.concatenate([np.empty(0, dtype=np.int64), *pieces]),
            sent_starts=(np.cumsum(sizes) - sizes).astype(np.int64),
            derived=self.derived[positions],
        )

    @property
    def n_slots(self) -> int:
        """Slots of a whole histogram."""
        return int(self.starts[-1])

    def pack(self, histograms: Integers) -> Integers:
        """The sent slots of int64 (k, n_slots, 2) histograms, as int64 (k * s * 2,): node, slot, pair."""
        return np.ascontiguousarray(histograms[:, self.sent, :]).reshape(-1)

    def unpack(self, vector: Integers, totals: Integers) -> Integers:
        """Whole histograms from summed sent slots and the nodes' totals, int64 (k, 2).

        Returns:
            int64 (k, n_slots, 2), in which each feature's slots add up to the node's total.
        """
        n_nodes = totals.shape[0]
        full = np.zeros((n_nodes, self.n_slots, 2), dtype=np.int64)
        if self.sent.size:
            received = vector.reshape(n_nodes, self.sent.size, 2)
            full[:, self.sent, :] = received
            full[:, self.derived, :] = totals[:, None, :] - np.add.reduceat(received, self.sent_starts, axis=1)
        return full


@kernel
def _build_into(
    bins: Marks,
    gradients: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    starts: Words,
    out: Integers,
) -> None:
    # Gradient and hessian of a slot lie side by side, so a pair costs one cache line and one addition of a vector. Four
    # rows are taken at a time: their additions are independent unless they share a bin, and later rows' values are
    # fetched while the first's are added. Indices are unsigned, which spares numba's test for negative ones.
    n_features = bins.shape[1]
    two = np.uint64(2)
    for node in range(begins.shape[0]):
        histogram = out[node]
        position, end = begins[node], ends[node]
        while position + 3 < end:
            a, b, c, d = rows[position], rows[position + 1], rows[position + 2], rows[position + 3]
            a_g, a_h, b_g, b_h = gradients[a, 0], gradients[a, 1], gradients[b, 0], gradients[b, 1]
            c_g, c_h, d_g, d_h = gradients[c, 0], gradients[c, 1], gradients[d, 0], gradients[d, 1]
            for f in range(n_features):
                start = starts[f]
                add_pair(histogram, two * (start + bins[a, f]), a_g, a_h)
                add_pair(histogram, two * (start + bins[b, f]), b_g, b_h)
                add_pair(histogram, two * (start + bins[c, f]), c_g, c_h)
                add_pair(histogram, two * (start + bins[d, f]), d_g, d_h)
            position += 4
        while position < end:
            a = rows[position]
            for f in range(n_features):
                add_pair(histogram, two * (starts[f] + bins[a, f]), gradients[a, 0], gradients[a, 1])
            position += 1


def build_histograms(
    bins: Marks,
    gradients: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    layout: SlotLayout,
) -> Integers:
    """Sums this bank's gradients by node, feature and bin.

    Args:
        bins: uint8 (n, u), row-major, columns of the usable features only; missing is one past the last bin.
        gradients: int64 (n, 2).
        rows: uint32 (n,), row numbers grouped by node.
        begins: int64 (k,), where each node's rows begin in `rows`.
        ends: int64 (k,), and where they end (not included).
        layout: The slots.

    Returns:
        int64 (k, n_slots, 2). Cost: one pair of additions a row and feature.
    """
    out = np.zeros((begins.size, 2 * layout.n_slots), dtype=np.int64)
    _build_into(bins, gradients, rows, begins, ends, layout.starts.astype(np.uint64), out)
    return out.reshape(begins.size, layout.n_slots, 2)


def build_histograms_naive(
    bins: Marks,
    gradients: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    layout: SlotLayout,
) -> Integers:
    """Twin of `build_histograms`: one mask a node, feature and bin."""
    out = np.zeros((begins.size, layout.n_slots, 2), dtype=np.int64)
    for node, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        inside = rows[begin:end]
        for f in range(layout.features.size):
            for offset in range(int(layout.starts[f + 1] - layout.starts[f])):
                here = inside[bins[inside, f] == offset]
                out[node, layout.starts[f] + offset] = gradients[here].sum(axis=0)
    return out
