"""Gradients of the logistic loss as fixed-point integers, and the base score; it sums nothing over rows.

A row's gradient and hessian are the float32 numbers XGBoost computes from a float32 margin, rounded to
multiples of 2**-fraction_bits. They depend on the row alone: the exponential is written out in plain IEEE
operations, so neither the maths library of the machine nor the row's place in the array matters. Integers
add up to the same sum in any order, which is what makes a model independent of how rows lie over banks.
"""

import math

import numpy as np

from bank_node.boosting.errors import RowError
from bank_node.dtypes import Doubles, Floats, Integers, Marks
from bank_node.kernels import float_of_bits, kernel
from protocol.parameters import BoostingParameters

__all__ = [
    "BITS_OF_SUM",
    "MAX_FRACTION_BITS",
    "MIN_FRACTION_BITS",
    "WEIGHT_BITS",
    "base_margin",
    "estimate_base_score",
    "fraction_bits",
    "log_odds",
    "logistic_gradients",
    "logistic_gradients_naive",
    "logistic_losses",
    "probabilities",
    "sigmoid",
]

BITS_OF_SUM = 56
"""Sums stay below 2**56 in absolute value: the field of the secure sum has 58 bits, with sign."""
MAX_FRACTION_BITS = 30
"""Enough to hold a float32 gradient of the first trees exactly."""
MIN_FRACTION_BITS = 12
"""Fewer bits would move split gains visibly, so training refuses."""

WEIGHT_BITS = 24
"""Fraction bits of the summed weights of rows: 2**-24 of a weight is lost, and 2**32 can be summed."""

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts; the high part times a small integer is exact
_LN2_LOW = 1.90821492927058770002e-10
_LN2 = 0.6931471805599453
_BLOCK = 512
"""Rows whose exponentials are computed at once: alone in a loop, LLVM computes eight of them in one."""


def fraction_bits(total_weight: int, scale_pos_weight: float) -> int:
    """Fraction bits with which no sum over all banks' rows can reach 2**56.

    Args:
        total_weight: The summed weights of all banks' rows, rounded up: their number where each weighs 1.
        scale_pos_weight: Weight of positive rows; a gradient is at most this or 1 in absolute value.

    Raises:
        RowError: When fewer than 12 bits would be left; use fewer rows or a smaller scale_pos_weight.
    """
    largest = max(1, total_weight) * max(1.0, scale_pos_weight)
    mantissa, exponent = math.frexp(largest)
    bits = min(MAX_FRACTION_BITS, BITS_OF_SUM - (exponent - 1 if mantissa == 0.5 else exponent))
    if bits < MIN_FRACTION_BITS:
        raise RowError(
            f"rows of weight {total_weight} in all with scale_pos_weight {scale_pos_weight:g} leave {bits} fraction "
            f"bits for gradients, at least {MIN_FRACTION_BITS} are needed: use fewer rows or smaller weights"
        )
    return bits


@kernel
def _exp(x: float) -> float:
    # Cody-Waite range reduction, then the Taylor polynomial of degree 13: relative error below 4e-16 for
    # |x| <= 90. Additions, multiplications and an exact power of two only.
    k = math.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    power: float = float_of_bits((np.int64(k) + 1023) << 52)
    return p * power


@kernel
def _sigmoid(margin: np.float32) -> np.float32:
    # XGBoost's common::Sigmoid(float), operation by operation in float32.
    one = np.float32(1.0)
    return np.float32(one / np.float32(_exp_of_minus(margin) + one))


@kernel
def _exp_of_minus(margin: np.float32) -> np.float32:
    x = min(max(-margin, np.float32(-88.7)), np.float32(88.7))
    return np.float32(_exp(np.float64(x)))


@kernel
def _gradients_into(
    margins: Floats,
    labels: Marks,
    weights: Floats,
    positive_weight: np.float32,
    scale: float,
    out: Integers,
) -> None:
    # `_sigmoid` in two loops: its exponentials first.
    one = np.float32(1.0)
    smallest = np.float32(1e-16)
    weighted = weights.shape[0] > 0
    exponentials = np.empty(_BLOCK, dtype=np.float32)
    for start in range(0, margins.shape[0], _BLOCK):
        count = min(_BLOCK, margins.shape[0] - start)
        for j in range(count):
            exponentials[j] = _exp_of_minus(margins[start + j])
        for j in range(count):
            i = start + j
            p = np.float32(one / np.float32(exponentials[j] + one))
            h = max(np.float32(p * np.float32(one - p)), smallest)
            weight = positive_weight if labels[i] == 1 else one
            if weighted:
                weight = np.float32(weights[i] * weight)
            g = np.float32(np.float32(p - one) * weight) if labels[i] == 1 else np.float32(p * weight)
            h = np.float32(h * weight)
            out[i, 0] = np.int64(math.floor(np.float64(g) * scale + 0.5))
            out[i, 1] = np.int64(math.floor(np.float64(h) * scale + 0.5))


def logistic_gradients(
    margins: Floats,
    labels: Marks,
    scale_pos_weight: float,
    bits: int,
    out: Integers | None = None,
    weights: Floats | None = None,
) -> Integers:
    """Gradient and hessian of the logistic loss of each row, in units of 2**-bits.

    Args:
        margins: float32 (n,), log odds.
        labels: uint8 (n,), 0 or 1.
        scale_pos_weight: Weight of rows with label 1.
        bits: Fraction bits, from `fraction_bits`.
        out: int64 (n, 2) to write into, or None for a new array.
        weights: float32 (n,), or None where each row weighs 1.

    Returns:
        int64 (n, 2), row-major, (gradient, hessian) of a row side by side. Cost: one exponential a row.
    """
    if out is None:
        out = np.empty((margins.shape[0], 2), dtype=np.int64)
    given = np.empty(0, dtype=np.float32) if weights is None else weights
    _gradients_into(margins, labels, given, np.float32(scale_pos_weight), float(2**bits), out)
    return out


def logistic_gradients_naive(
    margins: Floats,
    labels: Marks,
    scale_pos_weight: float,
    bits: int,
    weights: Floats | None = None,
) -> Integers:
    """Twin of `logistic_gradients` with the library's exponential and numpy scalars."""
    one = np.float32(1.0)
    given = np.ones(margins.size, dtype=np.float32) if weights is None else weights
    rows = []
    for margin, label, own in zip(margins, labels, given, strict=True):
        e = np.float32(math.exp(float(min(max(-margin, np.float32(-88.7)), np.float32(88.7)))))
        p = one / (e + one)
        w = own * (np.float32(scale_pos_weight) if label else one)
        g = (p - np.float32(label)) * w
        h = max(p * (one - p), np.float32(1e-16)) * w
        rows.append([math.floor(float(g) * 2**bits + 0.5), math.floor(float(h) * 2**bits + 0.5)])
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


@kernel
def _sigmoid_into(margins: Floats, out: Floats) -> None:
    for i in range(margins.shape[0]):
        out[i] = _sigmoid(margins[i])


def sigmoid(margins: Floats) -> Floats:
    """Probabilities, float32 (n,), of margins, float32 (n,) log odds; the same bits for a row anywhere."""
    out = np.empty(margins.shape[0], dtype=np.float32)
    _sigmoid_into(np.ascontiguousarray(margins, dtype=np.float32), out)
    return out


@kernel
def _log(x: float) -> float:
    # ln x by x = 2**k * m with m in [sqrt(1/2), sqrt 2) and ln m = 2 artanh((m-1)/(m+1)); plain operations.
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square, total = s * s, 0.0
    for odd in range(41, 0, -2):
        total = total * square + 1.0 / odd
    return exponent * _LN2 + 2.0 * s * total


@kernel
def _probabilities_into(margins: Doubles, out: Doubles) -> None:
    for i in range(margins.shape[0]):
        out[i] = 1.0 / (1.0 + _exp(min(max(-margins[i], -88.7), 88.7)))


def probabilities(margins: Doubles) -> Doubles:
    """Probabilities, float64 (n,), of log-odds, float64 (n,); the same bits anywhere. XGBoost's own are `sigmoid`."""
    out = np.empty(margins.shape[0], dtype=np.float64)
    _probabilities_into(np.ascontiguousarray(margins, dtype=np.float64), out)
    return out


@kernel
def _log_odds_into(probability: Doubles, out: Doubles) -> None:
    for i in range(probability.shape[0]):
        out[i] = _log(probability[i]) - _log(1.0 - probability[i])


def log_odds(probability: Doubles) -> Doubles:
    """Log-odds, float64 (n,), of probabilities above 0 and below 1, float64 (n,); the same bits anywhere."""
    out = np.empty(probability.shape[0], dtype=np.float64)
    _log_odds_into(np.ascontiguousarray(probability, dtype=np.float64), out)
    return out


def base_margin(base_score: float) -> np.float32:
    """The log odds, float32, of a base score in (0, 1), as XGBoost computes them."""
    one = np.float32(1.0)
    return np.float32(-_log(float(one / np.float32(base_score) - one)))


def estimate_base_score(parameters: BoostingParameters, n_rows: float, n_positive: float) -> float:
    """The probability training starts from: the parameter, or XGBoost's estimate from the global counts.

    Without scale_pos_weight it is the share of positives. With it, XGBoost takes one Newton step from 0.5
    on the weighted rows, which is repeated here.

    Args:
        parameters: base_score and scale_pos_weight are used.
        n_rows: Rows of all banks together, or their weight.
        n_positive: Rows with label 1 of all banks together, or their weight.

    Returns:
        A float32 value in (0, 1) as a Python float.

    Raises:
        RowError: When no base score is given and all labels of all banks are equal.
    """
    if parameters.base_score is not None:
        return float(np.float32(parameters.base_score))
    if not 0 < n_positive < n_rows:
        raise RowError(
            f"the banks together have rows of weight {n_rows:g}, of which {n_positive:g} are labelled 1: there is "
            "nothing to learn; label at least one row of each kind, or give base_score"
        )
    weight = float(np.float32(parameters.scale_pos_weight))
    if abs(weight - 1.0) <= 1e-6:
        return float(np.float32(n_positive / n_rows))
    negative = float(n_rows - n_positive)
    step = 2.0 * (weight * n_positive - negative) / (weight * n_positive + negative)
    return float(sigmoid(np.array([step], dtype=np.float32))[0])


@kernel
def _sum_losses(margins: Floats, labels: Marks, scale: float) -> int:
    total = np.int64(0)
    for i in range(margins.shape[0]):
        wrong = -np.float64(margins[i]) if labels[i] == 1 else np.float64(margins[i])
        least = min(max(-abs(wrong), -88.7), 0.0)
        total += np.int64(math.floor((max(wrong, 0.0) + _log(1.0 + _exp(least))) * scale + 0.5))
    return int(total)


def logistic_losses(margins: Floats, labels: Marks, bits: int) -> int:
    """The summed logistic loss of rows in units of 2**-bits, each row rounded, so that any order sums alike."""
    return int(_sum_losses(np.ascontiguousarray(margins, dtype=np.float32), labels, float(2**bits)))
