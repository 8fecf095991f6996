"""Moves the rows of split nodes to their children, in place and in order; it decides no split."""

import numpy as np

from bank_node.dtypes import Integers, Marks, RowNumbers
from bank_node.kernels import kernel

__all__ = ["partition_rows", "partition_rows_naive"]


@kernel
def _partition(
    columns: Marks,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    features: Integers,
    goes_left: Marks,
    spare: RowNumbers,
    middles: Integers,
) -> None:
    for node in range(begins.shape[0]):
        column, table = columns[features[node]], goes_left[node]
        write = begins[node]
        n_right = np.int64(0)
        for position in range(begins[node], ends[node]):
            # Both sides are written and one of them is kept: a branch here is taken at random and so slow.
            # `write` never runs ahead of `position`, so no unread row is lost.
            row = rows[position]
            left = np.int64(table[column[row]])
            rows[write] = row
            spare[n_right] = row
            write += left
            n_right += 1 - left
        middles[node] = write
        for position in range(n_right):
            rows[write + position] = spare[position]


def partition_rows(
    columns: Marks,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    features: Integers,
    goes_left: Marks,
    spare: RowNumbers,
) -> Integers:
    """Reorders `rows` so that each split node's left rows come first; the order within a side is kept.

    Args:
        columns: uint8 (u, n), the bins feature by feature: a split reads one feature of many rows.
        rows: uint32 (n,), row numbers grouped by node; changed in place.
        begins: int64 (k,), where each split node begins in `rows`.
        ends: int64 (k,), and ends (not included).
        features: int64 (k,), row of `columns` that splits the node.
        goes_left: uint8 (k, 256), 1 for the bins, the missing one among them, whose rows go left, else 0.
        spare: uint32 (n,), room to work in.

    Returns:
        int64 (k,), where each right child begins. Cost: one look at each row of the split nodes.
    """
    middles = np.empty(begins.size, dtype=np.int64)
    _partition(columns, rows, begins, ends, features, goes_left, spare, middles)
    return middles


def partition_rows_naive(
    columns: Marks,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    features: Integers,
    goes_left: Marks,
) -> tuple[RowNumbers, Integers]:
    """Twin of `partition_rows` by two lists a node; returns new rows and where the right children begin."""
    out = rows.copy()
    middles = []
    for k in range(begins.size):
        left: list[np.uint32] = []
        right: list[np.uint32] = []
        for row in rows[begins[k] : ends[k]]:
            (left if goes_left[k, columns[features[k], row]] else right).append(row)
        out[begins[k] : ends[k]] = left + right
        middles.append(begins[k] + len(left))
    return out, np.array(middles, dtype=np.int64)
