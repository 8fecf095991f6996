"""Packs a slot's gradient and hessian into one number of a secure sum; it decides no split and sums nothing.

A secure sum carries 57 bits and a sign in each number. In the exact layout a slot takes two numbers, here one: gradient
* 2**28 + hessian, both rounded to multiples of powers of two. These are chosen for each node, from bounds of all banks'
sums, so that no total can leave its bits; the fewer rows a node has, the finer they are. In the first tree labels are
counted instead, and steps that fit one ciphertext anyway, or of one node two, are sent in exact pairs. Histograms stay
sums of integers that depend on the row alone, so the model still does not depend on how rows lie over banks. Few bits
suffice for choosing splits (Shi et al., Quantized Training of Gradient Boosting Decision Trees, NeurIPS 2022); the
exact totals of all summed nodes come along, and with many rows those of the leaves follow in a sum of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bank_node.dtypes import Integers, Marks, RowNumbers, Words
from bank_node.kernels import kernel
from protocol.layout import PAYLOAD_SLOTS

__all__ = [
    "GRADIENT_BITS", "HESSIAN_BITS", "LARGEST", "LEAST_BITS", "ROWS_WITHOUT_LEAF_SUM", "SMALL_STEP", "Packing", "Sizes",
    "build_packed", "build_packed_naive", "expected_sizes", "pack_rows", "pack_rows_naive",
]  # fmt: skip


HESSIAN_BITS = 28
"""Bits of a hessian's total, which is never negative."""
GRADIENT_BITS = 29
"""Bits of a gradient's total besides its sign: with the hessian's they fill the secure sum's 57 and a sign."""
LARGEST = (2**GRADIENT_BITS - 1) << HESSIAN_BITS
"""No number of a node that its rounding fits is larger in magnitude; all fit the secure sum."""
SMALL_STEP = PAYLOAD_SLOTS
"""Numbers that one ciphertext holds: a step of no more is sent in exact pairs, since packing can't shrink it.

A step of one node may take twice as many: from the first nodes' histograms all others are subtracted, so that their
rounding would be in every node (with the root packed AUC-PR moved by up to 0.02, on generated payments).
"""
COARSER = 2
"""Bits that a root's rounding may be coarser than needed before the root is asked for once more."""
ROWS_WITHOUT_LEAF_SUM = 2**20
"""With more rows the leaves get an exact sum of their own: a row's share of a packed number is then below 8 bits."""
LEAST_BITS = 8
"""Fraction bits a row's gradient must keep; below them the exact layout is used for that tree."""


class Sizes(NamedTuple):
    """How large the gradients of some rows are, over all banks, in the fixed-point unit: exact, or upper bounds.

    The sum of any of these rows' gradients lies between -negative and positive.

    Attributes:
        positive: Σg of the rows whose gradient is positive: those of label 0.
        negative: Σ|g| of the others.
        hessian: Σh.
    """

    positive: int
    negative: int
    hessian: int

    @property
    def total(self) -> Integers:
        """The rows' summed gradient and hessian, int64 (2,), where the sizes are exact."""
        return np.array([self.positive - self.negative, self.hessian], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How rows of a node are rounded: they keep multiples of 2**shift of the fixed-point unit.

    Attributes:
        gradient_shift: For gradients; a row's rounding error is at most 2**(shift - 1) units.
        hessian_shift: For hessians.
        of_labels: Where all rows of a label have the same gradient and hessian: those of label 0 and of label 1. Then
            labels are counted instead, nothing is rounded, and the shifts are -1.
    """

    gradient_shift: int
    hessian_shift: int
    of_labels: tuple[tuple[int, int], tuple[int, int]] | None = None

    @classmethod
    def of(cls, sizes: Sizes, n_rows: int, bits: int) -> "Packing | None":
        """The finest rounding with which no total can leave its bits, the same at all banks.

        Args:
            sizes: Bounds for the rows that are to be summed.
            n_rows: Rows of all banks; each can round up by half a step.
            bits: Fraction bits of the unit.

        Returns:
            None when fewer than `LEAST_BITS` would be left: these rows must be sent in the exact layout.
        """
        shifts = []
        for total, width in ((max(sizes.positive, sizes.negative), GRADIENT_BITS), (sizes.hessian, HESSIAN_BITS)):
            # With a smaller one the total alone leaves its bits.
            shift = max(0, min(total.bit_length() - width, bits - LEAST_BITS))
            while not _fits(total, shift, width, n_rows):
                shift += 1
                if bits - shift < LEAST_BITS:
                    return None
            shifts.append(shift)
        return cls(gradient_shift=shifts[0], hessian_shift=shifts[1])

    @classmethod
    def counting(cls, of_labels: tuple[tuple[int, int], tuple[int, int]], n_rows: int) -> "Packing | None":
        """Counts labels; None where there are too many rows to count in the bits there are."""
        return None if n_rows >= 2**HESSIAN_BITS else cls(gradient_shift=-1, hessian_shift=-1, of_labels=of_labels)

    def unpack(self, totals: Integers) -> Integers:
        """Gradient and hessian of summed numbers, int64 (..., 2), in the fixed-point unit."""
        upper, lower = totals >> HESSIAN_BITS, totals & (2**HESSIAN_BITS - 1)
        if self.of_labels is not None:
            counts = np.stack([upper - lower, lower], axis=-1)
            return np.asarray(counts @ np.array(self.of_labels, dtype=np.int64))
        return np.stack([upper << self.gradient_shift, lower << self.hessian_shift], axis=-1)

    def finer(self, sizes: Sizes, n_rows: int, bits: int) -> "Packing":
        """A rounding for some of the rows that this one fits: finer where their sizes allow."""
        other = Packing.of(sizes, n_rows, bits)
        if other is None or self.of_labels is not None:
            return self
        return Packing(
            gradient_shift=min(self.gradient_shift, other.gradient_shift),
            hessian_shift=min(self.hessian_shift, other.hessian_shift),
        )

    def close_to(self, best: "Packing") -> bool:
        """Whether this rounding fits what `best` is the finest for, and is at most `COARSER` bits coarser."""
        return (
            0 <= self.gradient_shift - best.gradient_shift <= COARSER
            and 0 <= self.hessian_shift - best.hessian_shift <= COARSER
        )

    def covers(self, finer: "Packing", sizes: Sizes, n_rows: int) -> bool:
        """Whether totals of some of the rows that this rounding fits fit a finer one, made by `finer`, too.

        Args:
            finer: the finer one.
            sizes: these rows' exact sizes.
            n_rows: rows of all banks.
        """
        gradient = max(sizes.positive, sizes.negative)
        return (
            finer.gradient_shift == self.gradient_shift or _fits(gradient, finer.gradient_shift, GRADIENT_BITS, n_rows)
        ) and (
            finer.hessian_shift == self.hessian_shift or _fits(sizes.hessian, finer.hessian_shift, HESSIAN_BITS, n_rows)
        )


def _fits(total: int, shift: int, width: int, n_rows: int) -> bool:
    return (total >> shift) + 1 + n_rows // 2 + 1 < 1 << width


def expected_sizes(total: Integers, parent: Sizes, root: Sizes) -> Sizes:
    """A guess, seldom too small, of a node's sizes from what its parent's split tells.

    Rows of label 0 have g = p and h = p(1 - p), so their Σg is about Σh as long as few of them have a high p; the other
    label's Σ|g| follows from the total. Allowed is a quarter more than what the whole tree shows.

    Args:
        total: int64 (2,), the node's rounded gradient and hessian.
        parent: bounds for the parent.
        root: bounds for the tree.
    """
    gradient, hessian = int(total[0]), max(int(total[1]), 0)
    if not root.hessian:
        return parent
    expected = 5 * hessian * root.positive // (4 * root.hessian)
    return Sizes(
        min(parent.positive, expected + max(gradient, 0)),
        min(parent.negative, expected + max(-gradient, 0)),
        min(parent.hessian, hessian + hessian // 16 + 1),
    )


@kernel
def _pack_into(
    gradients: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    shifts: Integers,
    out: Integers,
    sums: Integers,
) -> None:
    for node in range(begins.shape[0]):
        gradient_shift, hessian_shift = shifts[node, 0], shifts[node, 1]
        counting = gradient_shift < 0
        gradient_half = 0 if counting else (1 << gradient_shift) >> 1
        hessian_half = 0 if counting else (1 << hessian_shift) >> 1
        total, positive, negative, hessian = 0, 0, 0, 0
        for position in range(begins[node], ends[node]):
            g, h = gradients[rows[position], 0], gradients[rows[position], 1]
            if counting:
                value = (1 << HESSIAN_BITS) + (g < 0)
            else:
                value = ((g + gradient_half) >> gradient_shift) << HESSIAN_BITS
                value += (h + hessian_half) >> hessian_shift
            out[position] = value
            total += value
            positive += max(g, 0)
            negative += max(-g, 0)
            hessian += h
        sums[node, 0], sums[node, 1], sums[node, 2], sums[node, 3] = total, positive, negative, hessian


def pack_rows(
    gradients: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    packings: Sequence[Packing],
    out: Integers,
) -> Integers:
    """Packs the rows of some nodes, each node with its own rounding: to nearest, halves up.

    Args:
        gradients: int64 (n, 2).
        rows: uint32 (m,), row numbers grouped by node.
        begins: int64 (k,), where each node's rows begin in `rows`.
        ends: int64 (k,), and where they end (not included).
        packings: each node's.
        out: int64 (m,), gets the packed number of the row at each position; positions of other nodes are left alone.

    Returns:
        int64 (k, 4): each node's sum of packed numbers, and exactly its `Sizes` over our rows.
    """
    sums = np.empty((begins.size, 4), dtype=np.int64)
    shifts = np.array([(p.gradient_shift, p.hessian_shift) for p in packings], dtype=np.int64).reshape(-1, 2)
    _pack_into(gradients, rows, begins, ends, shifts, out, sums)
    return sums


def pack_rows_naive(gradients: Integers, packing: Packing) -> Integers:
    """Twin of `pack_rows` for one node of all rows, in Python's integers: int64 (n,)."""
    if packing.of_labels is not None:
        return np.array([2**HESSIAN_BITS + int(g < 0) for g in gradients[:, 0]], dtype=np.int64)
    steps = (2**packing.gradient_shift, 2**packing.hessian_shift)
    rounded = [[(2 * int(v) + step) // (2 * step) for v, step in zip(row, steps, strict=True)] for row in gradients]
    return np.array([g * 2**HESSIAN_BITS + h for g, h in rounded], dtype=np.int64)


@kernel
def _build_packed_into(
    bins: Marks,
    packed: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    starts: Words,
    out: Integers,
) -> None:
    # As in histogram.py, four rows at a time and unsigned indices, but one addition a slot.
    n_features = bins.shape[1]
    for node in range(begins.shape[0]):
        histogram = out[node]
        position, end = begins[node], ends[node]
        while position + 3 < end:
            a, b, c, d = rows[position], rows[position + 1], rows[position + 2], rows[position + 3]
            of_a, of_b, of_c, of_d = packed[position], packed[position + 1], packed[position + 2], packed[position + 3]
            for f in range(n_features):
                start = starts[f]
                histogram[start + bins[a, f]] += of_a
                histogram[start + bins[b, f]] += of_b
                histogram[start + bins[c, f]] += of_c
                histogram[start + bins[d, f]] += of_d
            position += 4
        while position < end:
            a = rows[position]
            for f in range(n_features):
                histogram[starts[f] + bins[a, f]] += packed[position]
            position += 1


def build_packed(
    bins: Marks,
    packed: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    starts: Integers,
) -> Integers:
    """As `histogram.build_histograms`, of packed numbers by position in `rows`: int64 (k, n_slots).

    Cost: one addition a row and feature.
    """
    out = np.zeros((begins.size, int(starts[-1])), dtype=np.int64)
    _build_packed_into(bins, packed, rows, begins, ends, starts.astype(np.uint64), out)
    return out


def build_packed_naive(
    bins: Marks,
    packed: Integers,
    rows: RowNumbers,
    begins: Integers,
    ends: Integers,
    starts: Integers,
) -> Integers:
    """Twin of `build_packed`: one mask a node, feature and bin."""
    out = np.zeros((begins.size, int(starts[-1])), dtype=np.int64)
    for node, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        inside = rows[begin:end]
        for f in range(starts.size - 1):
            for offset in range(int(starts[f + 1] - starts[f])):
                out[node, starts[f] + offset] = packed[begin:end][bins[inside, f] == offset].sum()
    return out
