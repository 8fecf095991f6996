"""How large all banks' gradients can be before a tree, known without asking; it sums no rows of its own.

The packed layout needs Σ|g| and Σh of the coming tree. The first tree's follow from the counts of labels. For each
later tree they are bounded by the leaves of the tree before: |g| and h of the logistic loss change by a factor of at
most e**|v| when a margin moves by v, since the slopes of log σ(m) and log σ(m)(1 - σ(m)) lie between -1 and 1. So no
secure sum of their own is needed, only one more number a leaf in the sum that refits the leaves.
"""

import numpy as np
import numpy.typing as npt

from bank_node.boosting.gradients import WEIGHT_BITS, base_margin, exponential, logistic_gradients

__all__ = ["first_magnitudes", "next_magnitudes"]

_LARGEST_STEP = 64.0
"""Leaf values above this are met with the largest gradients there are instead of an exponential."""
_FLOAT_SLACK = 1.0 + 2.0**-10
"""Far more than a float32 margin's rounding, at most 2**-24 of 88.7, can change a factor by."""
_ROW_SLACK = 2.0**-22
"""Absolute rounding of a float32 gradient or hessian of weight 1, likewise with room."""


def first_magnitudes(
    base_score: float, rows: tuple[int, int], weights: tuple[int, int], scale_pos_weight: float, bits: int
) -> tuple[int, int]:
    """Upper bounds of Σ|g| and Σh over all banks' rows before the first tree, in units of 2**-bits.

    Args:
        base_score: The probability training starts from.
        rows: All banks' rows with label 0, and with label 1.
        weights: Their summed weights, in units of 2**-`WEIGHT_BITS`. Where each row weighs 1 the bounds are exact.
        scale_pos_weight: Weight of rows with label 1.
        bits: Fraction bits of the unit.
    """
    margins = np.full(2, base_margin(base_score), dtype=np.float32)
    of_label = logistic_gradients(margins, np.array([0, 1], dtype=np.uint8), scale_pos_weight, bits)
    bounds = []
    for column in of_label.T.tolist():
        total = 0
        for value, count, weight in zip(column, rows, weights, strict=True):
            if weight == count << WEIGHT_BITS:
                total += count * abs(value)
            else:
                # `value` is rounded to the unit, a row's product to float32 (2**-20 is far more) and to the unit.
                total += ((abs(value) + 1) * weight * (2**20 + 1) >> (20 + WEIGHT_BITS)) + 2 * count
        bounds.append(total)
    return bounds[0], bounds[1]


def next_magnitudes(
    values: npt.NDArray[np.float32],
    leaf_sums: npt.NDArray[np.int64],
    n_rows: int,
    total_weight: int,
    scale_pos_weight: float,
    bits: int,
) -> tuple[int, int]:
    """Upper bounds of Σ|g| and Σh over all banks' rows after a tree, in units of 2**-bits.

    Args:
        values: float32 (leaves,), what each leaf adds to its rows' margins.
        leaf_sums: int64 (leaves, 2), each leaf's Σ|g| and Σh before the tree.
        n_rows: rows of all banks.
        total_weight: their summed weights, rounded up; `n_rows` where each row weighs 1.
        scale_pos_weight: weight of rows with label 1.
        bits: fraction bits of the unit.

    Returns:
        Two integers, the same at every bank; at most max e**|v| times the sums before, and a little for rounding.
    """
    heaviest = total_weight * max(1.0, scale_pos_weight)
    most = int(heaviest * 2.0**bits) + n_rows
    steps = np.abs(values.astype(np.float64))
    if steps.size and float(steps.max()) > _LARGEST_STEP:
        return most, most
    # As integers with 20 fraction bits, rounded up: exact from here on.
    factors = [int(exponential(float(step)) * _FLOAT_SLACK * 2.0**20) + 1 for step in steps]
    slack = n_rows + int(heaviest * _ROW_SLACK * 2.0**bits)
    widest = max(factors, default=2**20)
    bounds = []
    for column in leaf_sums.T:
        total = sum(factor * int(sum_) for factor, sum_ in zip(factors, column, strict=True))
        total += (widest + 2**20) * slack
        bounds.append(min(most, (total >> 20) + 1))
    return bounds[0], bounds[1]
