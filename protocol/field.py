"""Arithmetic of the secure sum: signed integers in the prime field Z_t. It knows nothing of encryption.

`t` is the largest 58-bit prime with t = 1 (mod 8192), so that BFV at polynomial degree 4096 has 4096 slots.
A signed integer v with |v| <= HALF is represented by v mod t; a sum of field elements represents the sum
of the integers as long as that sum's magnitude stays within HALF. See docs/architecture.md, "Secure sum".
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import FieldOverflow

__all__ = ["HALF", "MODULUS", "FieldVector", "add", "decode_signed", "encode_signed", "subtract"]

#: The field's prime: largest below 2**58 that is 1 mod 8192.
MODULUS: Final = 288230376151130113
#: Largest magnitude that has a unique signed representative.
HALF: Final = (MODULUS - 1) // 2

FieldVector = npt.NDArray[np.uint64]
IntVector = npt.NDArray[np.int64]


def encode_signed(values: IntVector, bound: int = HALF) -> FieldVector:
    """Represent signed integers in Z_t.

    Args:
        values: int64, shape (n,).
        bound: the largest magnitude the step has announced; at most `HALF`.

    Returns:
        uint64, shape (n,), each in [0, t).

    Raises:
        FieldOverflow: a value's magnitude is above the bound. Nothing wraps; send nothing.
    """
    if values.dtype != np.int64:
        raise FieldOverflow(f"a secure sum takes int64, not {values.dtype}")
    if not 0 <= bound <= HALF:
        raise FieldOverflow(f"the announced bound {bound} does not fit the field (at most {HALF})")
    if values.size and (int(values.max()) > bound or int(values.min()) < -bound):
        over = int(np.count_nonzero((values > bound) | (values < -bound)))
        raise FieldOverflow(f"{over} of {values.size} numbers are above the announced bound 2**{bound.bit_length()}")
    # Read as unsigned a negative number is huge, and the minimum takes the one that t was added to.
    return np.minimum(values.view(np.uint64), (values + np.int64(MODULUS)).view(np.uint64))


def decode_signed(elements: FieldVector, bound: int = HALF) -> IntVector:
    """Signed integers of field elements; the inverse of `encode_signed`.

    Args:
        elements: uint64, shape (n,), each in [0, t).
        bound: the largest magnitude the total may have.

    Returns:
        int64, shape (n,).

    Raises:
        FieldOverflow: an element is no member of the field or its integer is above the bound.
    """
    if elements.size and int(elements.max()) >= MODULUS:
        raise FieldOverflow("an element lies outside the field")
    signed = elements.astype(np.int64)
    signed = np.where(signed > HALF, signed - np.int64(MODULUS), signed)
    if bound < HALF and signed.size and (int(signed.max()) > bound or int(signed.min()) < -bound):
        raise FieldOverflow(f"a total is above the announced bound 2**{bound.bit_length()}")
    return signed


def add(a: FieldVector, b: FieldVector) -> FieldVector:
    """(a + b) mod t, elementwise on uint64; both below t, so the 59-bit sum can't wrap."""
    total = a + b
    # Below t, the subtraction wraps to a huge number, and the minimum keeps the sum itself.
    least: FieldVector = np.minimum(total, total - np.uint64(MODULUS))
    return least


def subtract(a: FieldVector, b: FieldVector) -> FieldVector:
    """(a - b) mod t, elementwise on uint64."""
    return add(a, np.uint64(MODULUS) - b)
