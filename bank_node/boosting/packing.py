"""Packs a slot's gradient and hessian into one number of a secure sum; it decides no split and sums nothing.

A secure sum carries 57 bits and a sign in each number. In the exact layout a slot takes two numbers, here one:
gradient * 2**28 + hessian, both rounded to multiples of a power of two that is chosen anew for each tree, from the
securely summed magnitudes, so that no total can leave its bits. Histograms stay sums of integers that depend on the row
alone, so the model still does not depend on how rows lie over banks. Few bits suffice for choosing splits (Shi et al.,
Quantized Training of Gradient Boosting Decision Trees, NeurIPS 2022); leaf values come from one exact sum a tree.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bank_node.boosting.kernels import kernel

__all__ = ["FIELD_BITS", "LEAST_BITS", "Packing", "build_packed", "build_packed_naive", "pack_rows", "pack_rows_naive"]

Integers = npt.NDArray[np.int64]

FIELD_BITS = 28
"""Bits of each of the two totals: 2 * 28 and a sign lie inside the secure sum's 57."""
LEAST_BITS = 8
"""Fraction bits a row's gradient must keep; below them the exact layout is used for that tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """One tree's rounding: rows keep multiples of 2**shift of the fixed-point unit.

    Attributes:
        gradient_shift: For gradients; a row's rounding error is at most 2**(shift - 1) units.
        hessian_shift: For hessians.
    """

    gradient_shift: int
    hessian_shift: int

    @classmethod
    def of(cls, gradient_sum: int, hessian_sum: int, n_rows: int, bits: int) -> "Packing | None":
        """The finest rounding with which no total can leave its bits, the same at all banks.

        Args:
            gradient_sum: Sum of all rows' absolute gradients over all banks, in units of 2**-bits.
            hessian_sum: Sum of all rows' hessians, likewise.
            n_rows: Rows of all banks; each can round up by half a step.
            bits: Fraction bits of the unit.

        Returns:
            None when fewer than `LEAST_BITS` would be left: this tree must be sent in the exact layout.
        """
        shifts = []
        for total in (gradient_sum, hessian_sum):
            shift = 0
            while (total >> shift) + 1 + n_rows // 2 + 1 >= 2**FIELD_BITS:
                shift += 1
                if bits - shift < LEAST_BITS:
                    return None
            shifts.append(shift)
        return cls(gradient_shift=shifts[0], hessian_shift=shifts[1])

    def unpack(self, totals: Integers) -> Integers:
        """Gradient and hessian of summed numbers, int64 (..., 2), in the fixed-point unit."""
        pairs = np.empty((*totals.shape, 2), dtype=np.int64)
        pairs[..., 0] = (totals >> FIELD_BITS) << self.gradient_shift
        pairs[..., 1] = (totals & (2**FIELD_BITS - 1)) << self.hessian_shift
        return pairs


@kernel
def _pack_into(gradients: Integers, gradient_shift: int, hessian_shift: int, out: Integers) -> None:
    gradient_half = (1 << gradient_shift) >> 1
    hessian_half = (1 << hessian_shift) >> 1
    for i in range(gradients.shape[0]):
        g = (gradients[i, 0] + gradient_half) >> gradient_shift
        h = (gradients[i, 1] + hessian_half) >> hessian_shift
        out[i] = (g << FIELD_BITS) + h


def pack_rows(gradients: Integers, packing: Packing) -> Integers:
    """Each row's packed number, int64 (n,), of int64 (n, 2) gradients; rounds to nearest, halves up."""
    out = np.empty(gradients.shape[0], dtype=np.int64)
    _pack_into(gradients, packing.gradient_shift, packing.hessian_shift, out)
    return out


def pack_rows_naive(gradients: Integers, packing: Packing) -> Integers:
    """Twin of `pack_rows`, in Python's integers."""
    steps = (2**packing.gradient_shift, 2**packing.hessian_shift)
    rounded = [[(2 * int(v) + step) // (2 * step) for v, step in zip(row, steps, strict=True)] for row in gradients]
    return np.array([g * 2**FIELD_BITS + h for g, h in rounded], dtype=np.int64)


@kernel
def _build_packed_into(
    bins: npt.NDArray[np.uint8],
    packed: Integers,
    rows: npt.NDArray[np.uint32],
    begins: Integers,
    ends: Integers,
    starts: npt.NDArray[np.uint64],
    out: Integers,
) -> None:
    # As in histogram.py, two rows at a time and unsigned indices, but one addition a slot.
    n_features = bins.shape[1]
    for node in range(begins.shape[0]):
        histogram = out[node]
        position, end = begins[node], ends[node]
        while position + 1 < end:
            row, next_row = rows[position], rows[position + 1]
            value, next_value = packed[row], packed[next_row]
            for f in range(n_features):
                histogram[starts[f] + bins[row, f]] += value
                histogram[starts[f] + bins[next_row, f]] += next_value
            position += 2
        if position < end:
            row = rows[position]
            value = packed[row]
            for f in range(n_features):
                histogram[starts[f] + bins[row, f]] += value


def build_packed(
    bins: npt.NDArray[np.uint8],
    packed: Integers,
    rows: npt.NDArray[np.uint32],
    begins: Integers,
    ends: Integers,
    starts: Integers,
) -> Integers:
    """As `histogram.build_histograms`, of packed numbers: int64 (k, n_slots). Cost: one addition a row and feature."""
    out = np.zeros((begins.size, int(starts[-1])), dtype=np.int64)
    _build_packed_into(bins, packed, rows, begins, ends, starts.astype(np.uint64), out)
    return out


def build_packed_naive(
    bins: npt.NDArray[np.uint8],
    packed: Integers,
    rows: npt.NDArray[np.uint32],
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
                out[node, starts[f] + offset] = packed[inside[bins[inside, f] == offset]].sum()
    return out
