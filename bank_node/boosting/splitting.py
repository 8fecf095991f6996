"""The best split of each node from its summed histogram, by XGBoost's arithmetic; it moves no rows.

Follows XGBoost's `hist` updater (src/tree/hist/evaluate_splits.h, src/tree/split_evaluator.h and
src/tree/param.h of dmlc/xgboost): sums are float64, weights and gains are rounded to float32 where XGBoost
rounds them, and of equal gains the first found wins, in the order feature, missing right, missing left.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bank_node.boosting.kernels import kernel
from bank_node.boosting.parameters import BoostingParameters

__all__ = [
    "SMALLEST_LOSS_CHANGE",
    "SplitRules",
    "Splits",
    "find_splits",
    "find_splits_naive",
    "node_weight",
]

SMALLEST_LOSS_CHANGE = 1e-6
"""XGBoost's kRtEps: a split must gain more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRules:
    """The parameters that decide splits, rounded to float32 as XGBoost stores them, and the unit of the sums.

    Attributes:
        unit: Value of 1 in the integer sums, 2**-fraction_bits.
        literal_gain: Whether gains are computed from the rounded weight with the L1 term, as XGBoost 3.4 does
            always, or as the closed form without max_delta_step and without the L1 term with it (3.2).
    """

    unit: float
    reg_lambda: float
    reg_alpha: float
    gamma: float
    min_child_weight: float
    max_delta_step: float
    literal_gain: bool

    @classmethod
    def of(cls, parameters: BoostingParameters, bits: int) -> "SplitRules":
        """Rules of a run with these fraction bits."""

        def single(value: float) -> float:
            return float(np.float32(value))

        return cls(
            unit=2.0**-bits,
            reg_lambda=single(parameters.reg_lambda),
            reg_alpha=single(parameters.reg_alpha),
            gamma=single(parameters.gamma),
            min_child_weight=single(parameters.min_child_weight),
            max_delta_step=single(parameters.max_delta_step),
            literal_gain=parameters.xgboost_arithmetic == "3.4",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """Best splits of k nodes.

    Attributes:
        feature: int64 (k,), position among the usable features, or -1 where no split is good enough.
        bin: int64 (k,), rows with bin <= this go left; -1 sends every present value right.
        default_left: uint8 (k,), whether missing values go left.
        loss_change: float32 (k,).
        left: int64 (k, 2), summed gradient and hessian of the left child, missing values included.
    """

    feature: npt.NDArray[np.int64]
    bin: npt.NDArray[np.int64]
    default_left: npt.NDArray[np.uint8]
    loss_change: npt.NDArray[np.float32]
    left: npt.NDArray[np.int64]


@kernel
def _weight(
    g: float, h: float, reg_lambda: float, reg_alpha: float, least_hessian: float, max_delta_step: float
) -> np.float32:
    if h <= 0.0 or h < least_hessian:
        return np.float32(0.0)
    w = 0.0
    if g > reg_alpha:
        w = -(g - reg_alpha) / (h + reg_lambda)
    elif g < -reg_alpha:
        w = -(g + reg_alpha) / (h + reg_lambda)
    if max_delta_step != 0.0 and abs(w) > max_delta_step:
        w = math.copysign(max_delta_step, w)
    return np.float32(w)


@kernel
def _gain(
    g: float,
    h: float,
    reg_lambda: float,
    reg_alpha: float,
    least_hessian: float,
    max_delta_step: float,
    literal: bool,
) -> np.float32:
    if h <= 0.0:
        return np.float32(0.0)
    if literal:
        w = np.float64(_weight(g, h, reg_lambda, reg_alpha, 0.0, max_delta_step))
        return np.float32(-(2.0 * g * w + (h + reg_lambda) * (w * w) + 2.0 * reg_alpha * abs(w)))
    if max_delta_step == 0.0:
        t = 0.0
        if g > reg_alpha:
            t = g - reg_alpha
        elif g < -reg_alpha:
            t = g + reg_alpha
        return np.float32(t * t / (h + reg_lambda))
    w32 = _weight(g, h, reg_lambda, reg_alpha, least_hessian, max_delta_step)
    g32, h32, lambda32 = np.float32(g), np.float32(h), np.float32(reg_lambda)
    first = np.float32(np.float32(np.float32(2.0) * g32) * w32)
    second = np.float32(np.float32(h32 + lambda32) * np.float32(w32 * w32))
    return np.float32(-np.float32(first + second))


@kernel
def _find_into(
    histograms: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    unit: float,
    reg_lambda: float,
    reg_alpha: float,
    min_child_weight: float,
    max_delta_step: float,
    literal: bool,
    feature: npt.NDArray[np.int64],
    split_bin: npt.NDArray[np.int64],
    default_left: npt.NDArray[np.uint8],
    loss_change: npt.NDArray[np.float32],
    left: npt.NDArray[np.int64],
) -> None:
    for node in range(totals.shape[0]):
        total_g, total_h = totals[node, 0], totals[node, 1]
        before = _gain(total_g * unit, total_h * unit, reg_lambda, reg_alpha, min_child_weight, max_delta_step, literal)
        best = np.float32(0.0)
        best_feature = -1
        for f in range(starts.shape[0] - 1):
            begin, missing = starts[f], starts[f + 1] - 1
            missing_g, missing_h = histograms[node, missing, 0], histograms[node, missing, 1]
            passes = 2 if missing_g != 0 or missing_h != 0 else 1
            for direction in range(passes):
                # Pass 0 goes up, present values left and missing right; pass 1 goes down, missing left.
                g = np.int64(0)
                h = np.int64(0)
                for step in range(missing - begin):
                    b = step if direction == 0 else missing - begin - 1 - step
                    g += histograms[node, begin + b, 0]
                    h += histograms[node, begin + b, 1]
                    one_h, other_h = h * unit, (total_h - h) * unit
                    if one_h < min_child_weight or one_h <= 0.0:
                        continue
                    if other_h < min_child_weight or other_h <= 0.0:
                        continue
                    one = _gain(g * unit, one_h, reg_lambda, reg_alpha, min_child_weight, max_delta_step, literal)
                    other = _gain(
                        (total_g - g) * unit, other_h, reg_lambda, reg_alpha, min_child_weight, max_delta_step, literal
                    )
                    change = np.float32(np.float32(one + other) - before)
                    if change > best and change < np.float32(np.inf):
                        best = change
                        best_feature = f
                        if direction == 0:
                            split_bin[node] = b
                            default_left[node] = 0
                            left[node, 0], left[node, 1] = g, h
                        else:
                            split_bin[node] = b - 1
                            default_left[node] = 1
                            left[node, 0], left[node, 1] = total_g - g, total_h - h
        feature[node] = best_feature
        loss_change[node] = best


def find_splits(
    histograms: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    rules: SplitRules,
) -> Splits:
    """Finds the best split of each node, or that it has none.

    Args:
        histograms: int64 (k, n_slots, 2), summed over the banks.
        totals: int64 (k, 2), summed gradient and hessian of each node.
        starts: int64 (u + 1,), first slot of each feature; the last slot of a feature is for missing values.
        rules: Parameters and unit.

    Returns:
        The splits; nodes whose best loss change is not above 1e-6, or is below gamma, have feature -1. Cost:
        two gains a bin, and as many again for features with missing values in the node.
    """
    k = totals.shape[0]
    feature = np.full(k, -1, dtype=np.int64)
    split_bin = np.zeros(k, dtype=np.int64)
    default_left = np.zeros(k, dtype=np.uint8)
    loss_change = np.zeros(k, dtype=np.float32)
    left = np.zeros((k, 2), dtype=np.int64)
    _find_into(
        histograms,
        totals,
        starts,
        rules.unit,
        rules.reg_lambda,
        rules.reg_alpha,
        rules.min_child_weight,
        rules.max_delta_step,
        rules.literal_gain,
        feature,
        split_bin,
        default_left,
        loss_change,
        left,
    )
    feature[(loss_change <= np.float32(SMALLEST_LOSS_CHANGE)) | (loss_change < np.float32(rules.gamma))] = -1
    return Splits(feature=feature, bin=split_bin, default_left=default_left, loss_change=loss_change, left=left)


def node_weight(total: npt.NDArray[np.int64], rules: SplitRules, *, is_root: bool = False) -> np.float32:
    """The weight, before eta, of a node with this summed gradient and hessian, int64 (2,).

    Only a root can weigh less than min_child_weight; it then has weight 0 in XGBoost 3.2's arithmetic.
    """
    least = rules.min_child_weight if is_root and not rules.literal_gain else 0.0
    return _weight(
        float(total[0]) * rules.unit,
        float(total[1]) * rules.unit,
        rules.reg_lambda,
        rules.reg_alpha,
        least,
        rules.max_delta_step,
    )


def find_splits_naive(
    histograms: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    rules: SplitRules,
) -> list[tuple[int, int, int, float]]:
    """Twin of `find_splits` in plain Python: (feature, bin, default_left, loss change), feature -1 for none.

    Lists every candidate with its children's sums and takes the best, the first of equals.
    """

    def weight(g: float, h: float) -> float:
        shrunk = math.copysign(max(abs(g) - rules.reg_alpha, 0.0), g)
        w = -shrunk / (h + rules.reg_lambda)
        if rules.max_delta_step:
            w = max(-rules.max_delta_step, min(rules.max_delta_step, w))
        return float(np.float32(w))

    def gain(g: float, h: float, least: float) -> np.float32:
        if h == 0.0:
            return np.float32(0.0)
        if rules.literal_gain:
            w = weight(g, h)
            return np.float32(-(2.0 * g * w + (h + rules.reg_lambda) * (w * w) + 2.0 * rules.reg_alpha * abs(w)))
        if rules.max_delta_step == 0.0:
            shrunk = max(abs(g) - rules.reg_alpha, 0.0)
            return np.float32(shrunk * shrunk / (h + rules.reg_lambda))
        w32 = np.float32(weight(g, h) if h >= least else 0.0)
        g32, h32, l32 = np.float32(g), np.float32(h), np.float32(rules.reg_lambda)
        return np.float32(-(np.float32(2) * g32 * w32 + (h32 + l32) * (w32 * w32)))

    result = []
    for histogram, total in zip(histograms.tolist(), totals.tolist(), strict=True):
        candidates: list[tuple[np.float32, int, int, int]] = []
        root = gain(total[0] * rules.unit, total[1] * rules.unit, rules.min_child_weight)
        for f in range(len(starts) - 1):
            slots = histogram[starts[f] : starts[f + 1]]
            present, missing = slots[:-1], slots[-1]
            directions = (0, 1) if missing != [0, 0] else (0,)
            for direction in directions:
                order = range(len(present)) if direction == 0 else range(len(present) - 2, -2, -1)
                for b in order:
                    left = [sum(slot[i] for slot in present[: b + 1]) + direction * missing[i] for i in (0, 1)]
                    right = [total[i] - left[i] for i in (0, 1)]
                    heavy = all(
                        side[1] * rules.unit >= rules.min_child_weight and side[1] > 0 for side in (left, right)
                    )
                    if heavy:
                        sides = [gain(s[0] * rules.unit, s[1] * rules.unit, 0.0) for s in (left, right)]
                        candidates.append((np.float32(sides[0] + sides[1]) - root, f, b, direction))
        best = max(candidates, key=lambda candidate: candidate[0], default=(np.float32(0.0), -1, 0, 0))
        good = best[0] > np.float32(SMALLEST_LOSS_CHANGE) and best[0] >= np.float32(rules.gamma)
        result.append((best[1], best[2], best[3], float(best[0])) if good else (-1, 0, 0, float(best[0])))
    return result
