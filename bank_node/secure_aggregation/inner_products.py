"""Inner products mod t, for the MACs of a secure sum. It knows no keys and no runs."""

import numpy as np

from bank_node.kernels import kernel
from protocol.field import MODULUS, FieldVector

__all__ = ["LONGEST_ROW", "inner_products", "inner_products_naive"]

#: Far below the 2**32 numbers of 32 bits that an accumulator takes without wrapping.
LONGEST_ROW = 1 << 20
#: Factors are cut into halves of 29 bits: a sum of two products has 59 bits, of 16 such sums 63.
_HALF_BITS = 29


@kernel
def _products(a: FieldVector, b: FieldVector, out: FieldVector) -> None:
    # out[row] = (low, middle, high) products of the halves, each as the sums of its lower and upper 32 bits.
    mask, bits = np.uint64((1 << 29) - 1), np.uint64(29)
    word, word_bits = np.uint64((1 << 32) - 1), np.uint64(32)
    for row in range(a.shape[0]):
        for start in range(0, a.shape[1], 16):
            low, middle, high = np.uint64(0), np.uint64(0), np.uint64(0)
            for i in range(start, min(start + 16, a.shape[1])):
                a_low, a_high = a[row, i] & mask, a[row, i] >> bits
                b_low, b_high = b[row, i] & mask, b[row, i] >> bits
                low += a_low * b_low
                middle += a_low * b_high + a_high * b_low
                high += a_high * b_high
            out[row, 0] += low & word
            out[row, 1] += low >> word_bits
            out[row, 2] += middle & word
            out[row, 3] += middle >> word_bits
            out[row, 4] += high & word
            out[row, 5] += high >> word_bits


def inner_products(a: FieldVector, b: FieldVector) -> list[int]:
    """The inner products mod t of matching rows.

    Args:
        a, b: uint64, shape (rows, n), each element below t, n at most `LONGEST_ROW`.

    Returns:
        One int in [0, t) per row. Cost: four multiplications an element.
    """
    if a.shape != b.shape or a.shape[1] > LONGEST_ROW:
        raise ValueError(f"rows of equal length up to {LONGEST_ROW} are needed, not {a.shape} and {b.shape}")
    parts = np.zeros((a.shape[0], 6), dtype=np.uint64)
    _products(a, b, parts)
    shifts = [_HALF_BITS * place + 32 * half for place in range(3) for half in range(2)]
    return [sum(part << shift for part, shift in zip(row, shifts, strict=True)) % MODULUS for row in parts.tolist()]


def inner_products_naive(a: FieldVector, b: FieldVector) -> list[int]:
    """Twin of `inner_products`, in Python's integers."""
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    return [sum(x * y for x, y in zip(*rows, strict=True)) % MODULUS for rows in pairs]
