"""How large all banks' gradients are before the first tree, known without asking; it sums no rows of its own.

The packed layout needs it of Σg over the rows of either label (g is positive for label 0 and negative for label 1, so
the sum over any rows lies between the two), and of Σh. It follows from the counts of labels. Later trees' sizes are
guessed from the tree before, and come along exactly with their root.
"""

import numpy as np

from bank_node.boosting.gradients import WEIGHT_BITS, base_margin, logistic_gradients
from bank_node.boosting.packing import Sizes

__all__ = ["first_magnitudes", "label_gradients"]


def label_gradients(base_score: float, scale_pos_weight: float, bits: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Gradient and hessian of a row of weight 1 before the first tree, for label 0 and for label 1."""
    margins = np.full(2, base_margin(base_score), dtype=np.float32)
    found = logistic_gradients(margins, np.array([0, 1], dtype=np.uint8), scale_pos_weight, bits).tolist()
    return (found[0][0], found[0][1]), (found[1][0], found[1][1])


def first_magnitudes(
    base_score: float, rows: tuple[int, int], weights: tuple[int, int], scale_pos_weight: float, bits: int
) -> Sizes:
    """Upper bounds over all banks' rows before the first tree, in units of 2**-bits.

    Args:
        base_score: The probability training starts from.
        rows: All banks' rows with label 0, and with label 1.
        weights: Their summed weights, in units of 2**-`WEIGHT_BITS`. Where each row weighs 1 the bounds are exact.
        scale_pos_weight: Weight of rows with label 1.
        bits: Fraction bits of the unit.
    """
    of_label = np.array(label_gradients(base_score, scale_pos_weight, bits))
    bounds = []
    for column in of_label.T.tolist():
        parts = []
        for value, count, weight in zip(column, rows, weights, strict=True):
            if weight == count << WEIGHT_BITS:
                parts.append(count * abs(value))
            else:
                # `value` is rounded to the unit, a row's product to float32 (2**-20 is far more) and to the unit.
                parts.append(((abs(value) + 1) * weight * (2**20 + 1) >> (20 + WEIGHT_BITS)) + 2 * count)
        bounds.append(parts)
    return Sizes(bounds[0][0], bounds[0][1], sum(bounds[1]))
