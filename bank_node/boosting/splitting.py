"""The best split of each node from its summed histogram, by XGBoost's arithmetic; it moves no rows.

Sums are float64, weights and gains are rounded to float32 where XGBoost's `hist` rounds them, and of equal gains the
first found wins, in the order feature, missing right, missing left. Monotone constraints bound weights as XGBoost does:
a node's own gain and its value as a leaf by its parent's bounds, its children by its own. Categorical features with few
categories split one against the rest, others by sets taken from either end of the categories ordered by weight, which
for a convex loss contain the best set (Fisher, On Grouping for Maximum Homogeneity, JASA 1958).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bank_node.boosting.split_rules import Limits, SplitRules
from bank_node.dtypes import Floats, Integers, Marks, Signs
from bank_node.kernels import kernel

__all__ = [
    "SMALLEST_LOSS_CHANGE",
    "Splits",
    "bounded_weight",
    "find_splits",
    "find_splits_naive",
    "node_weight",
]

SMALLEST_LOSS_CHANGE = 1e-6
"""XGBoost's kRtEps: a split must gain more than this."""

_BYTES = 256
"""Values of a bin number: room for one mark a bin."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """Best splits of k nodes.

    Attributes:
        feature: int64 (k,), position among the usable features, or -1 where no split is good enough.
        bin: int64 (k,), rows with bin <= this go left; -1 sends every present value right. Of no meaning for sets.
        is_set: uint8 (k,), whether the node splits by a set of categories instead.
        right_set: uint8 (k, 256), marks the categories that go right, where `is_set`.
        default_left: uint8 (k,), whether missing values go left.
        loss_change: float32 (k,).
        left: int64 (k, 2), summed gradient and hessian of the left child, missing values included.
    """

    feature: Integers
    bin: Integers
    is_set: Marks
    right_set: Marks
    default_left: Marks
    loss_change: Floats
    left: Integers

    def goes_left(self, chosen: Integers, missing_bins: Integers) -> Marks:
        """For the nodes `chosen`, int64 (j,), which bins go left: uint8 (j, 256).

        Args:
            chosen: Positions of nodes that are split.
            missing_bins: int64 (u,), the bin of each usable feature that stands for missing.
        """
        numeric = np.arange(_BYTES)[None, :] <= self.bin[chosen, None]
        table = np.where(self.is_set[chosen, None] == 1, self.right_set[chosen] == 0, numeric).astype(np.uint8)
        table[np.arange(chosen.size), missing_bins[self.feature[chosen]]] = self.default_left[chosen]
        return table


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
def _clipped(w: np.float32, lower: np.float32, upper: np.float32) -> np.float32:
    return lower if w < lower else upper if w > upper else w


@kernel
def _gain(
    g: float,
    h: float,
    reg_lambda: float,
    reg_alpha: float,
    least_hessian: float,
    max_delta_step: float,
    literal: bool,
    bounded: bool,
    lower: np.float32,
    upper: np.float32,
) -> np.float32:
    if h <= 0.0:
        return np.float32(0.0)
    if literal:
        w = np.float64(_clipped(_weight(g, h, reg_lambda, reg_alpha, 0.0, max_delta_step), lower, upper))
        return np.float32(-(2.0 * g * w + (h + reg_lambda) * (w * w) + 2.0 * reg_alpha * abs(w)))
    if max_delta_step == 0.0 and not bounded:
        t = 0.0
        if g > reg_alpha:
            t = g - reg_alpha
        elif g < -reg_alpha:
            t = g + reg_alpha
        return np.float32(t * t / (h + reg_lambda))
    w32 = _clipped(_weight(g, h, reg_lambda, reg_alpha, least_hessian, max_delta_step), lower, upper)
    g32, h32, lambda32 = np.float32(g), np.float32(h), np.float32(reg_lambda)
    first = np.float32(np.float32(np.float32(2.0) * g32) * w32)
    second = np.float32(np.float32(h32 + lambda32) * np.float32(w32 * w32))
    return np.float32(-np.float32(first + second))


@kernel
def _change(
    left_g: int,
    left_h: int,
    right_g: int,
    right_h: int,
    before: np.float32,
    unit: float,
    reg_lambda: float,
    reg_alpha: float,
    min_child_weight: float,
    max_delta_step: float,
    literal: bool,
    bounded: bool,
    way: int,
    lower: np.float32,
    upper: np.float32,
) -> np.float32:
    # What a split gains; nothing at all when it isn't allowed.
    lh, rh = left_h * unit, right_h * unit
    if lh < min_child_weight or lh <= 0.0 or rh < min_child_weight or rh <= 0.0:
        return np.float32(0.0)
    lg, rg = left_g * unit, right_g * unit
    if way != 0:
        left_weight = _clipped(_weight(lg, lh, reg_lambda, reg_alpha, min_child_weight, max_delta_step), lower, upper)
        right_weight = _clipped(_weight(rg, rh, reg_lambda, reg_alpha, min_child_weight, max_delta_step), lower, upper)
        if (way > 0 and left_weight > right_weight) or (way < 0 and left_weight < right_weight):
            return np.float32(0.0)
    left = _gain(lg, lh, reg_lambda, reg_alpha, min_child_weight, max_delta_step, literal, bounded, lower, upper)
    right = _gain(rg, rh, reg_lambda, reg_alpha, min_child_weight, max_delta_step, literal, bounded, lower, upper)
    change = np.float32(np.float32(left + right) - before)
    return change if change < np.float32(np.inf) else np.float32(0.0)


@kernel
def _order(
    histogram: Integers,
    begin: int,
    count: int,
    unit: float,
    reg_lambda: float,
    reg_alpha: float,
    least_hessian: float,
    max_delta_step: float,
    order: Integers,
    weights: Floats,
) -> None:
    # Categories by increasing weight, equal ones by number.
    for c in range(count):
        w = _weight(
            histogram[begin + c, 0] * unit,
            histogram[begin + c, 1] * unit,
            reg_lambda,
            reg_alpha,
            least_hessian,
            max_delta_step,
        )
        place = c
        while place > 0 and weights[place - 1] > w:
            weights[place] = weights[place - 1]
            order[place] = order[place - 1]
            place -= 1
        weights[place] = w
        order[place] = c


@kernel
def _find_into(
    histograms: Integers,
    totals: Integers,
    starts: Integers,
    unit: float,
    reg_lambda: float,
    reg_alpha: float,
    min_child_weight: float,
    max_delta_step: float,
    literal: bool,
    bounded: bool,
    monotone: Signs,
    categorical: Marks,
    max_cat_to_onehot: int,
    max_cat_threshold: int,
    allowed: Marks,
    outer: Floats,
    inner: Floats,
    feature: Integers,
    split_bin: Integers,
    is_set: Marks,
    right_set: Marks,
    default_left: Marks,
    loss_change: Floats,
    left: Integers,
) -> None:
    order = np.empty(256, dtype=np.int64)
    weights = np.empty(256, dtype=np.float32)
    least_hessian = 0.0 if literal else min_child_weight
    for node in range(totals.shape[0]):
        total_g, total_h = totals[node, 0], totals[node, 1]
        lower, upper = inner[node, 0], inner[node, 1]
        before = _gain(
            total_g * unit,
            total_h * unit,
            reg_lambda,
            reg_alpha,
            min_child_weight,
            max_delta_step,
            literal,
            bounded,
            outer[node, 0],
            outer[node, 1],
        )
        best = np.float32(0.0)
        best_feature = -1
        for f in range(starts.shape[0] - 1):
            if allowed[node, f] == 0:
                continue
            begin, missing = starts[f], starts[f + 1] - 1
            count = missing - begin
            missing_g, missing_h = histograms[node, missing, 0], histograms[node, missing, 1]
            if categorical[f] == 1 and count < max_cat_to_onehot:
                # One category right and the rest left; missing values left, then right.
                for c in range(count):
                    for direction in range(2):
                        g, h = histograms[node, begin + c, 0], histograms[node, begin + c, 1]
                        if direction == 1:
                            g, h = g + missing_g, h + missing_h
                        change = _change(
                            total_g - g, total_h - h, g, h, before, unit, reg_lambda, reg_alpha, min_child_weight,
                            max_delta_step, literal, bounded, 0, lower, upper,
                        )  # fmt: skip
                        if change > best:
                            best, best_feature = change, f
                            is_set[node] = 1
                            right_set[node, :] = 0
                            right_set[node, c] = 1
                            default_left[node] = 1 - direction
                            left[node, 0], left[node, 1] = total_g - g, total_h - h
                continue
            if categorical[f] == 1:
                _order(
                    histograms[node], begin, count, unit, reg_lambda, reg_alpha, least_hessian, max_delta_step, order,
                    weights,
                )  # fmt: skip
                steps = min(max_cat_threshold, count) - 1
                for direction in range(2):
                    # Pass 0 moves categories from the low end to the right, missing values left; pass 1 moves
                    # them from the high end to the left, missing values right.
                    g = np.int64(0)
                    h = np.int64(0)
                    for step in range(steps):
                        place = step if direction == 0 else count - 1 - step
                        g += histograms[node, begin + order[place], 0]
                        h += histograms[node, begin + order[place], 1]
                        if direction == 0:
                            left_g, left_h = total_g - g, total_h - h
                        else:
                            left_g, left_h = g, h
                        change = _change(
                            left_g, left_h, total_g - left_g, total_h - left_h, before, unit, reg_lambda, reg_alpha,
                            min_child_weight, max_delta_step, literal, bounded, 0, lower, upper,
                        )  # fmt: skip
                        if change > best:
                            best, best_feature = change, f
                            is_set[node] = 1
                            right_set[node, :] = 0
                            for other in range(place + 1 if direction == 0 else place):
                                right_set[node, order[other]] = 1
                            default_left[node] = 1 - direction
                            left[node, 0], left[node, 1] = left_g, left_h
                continue
            passes = 2 if missing_g != 0 or missing_h != 0 else 1
            for direction in range(passes):
                # Pass 0 goes up, present values left and missing right; pass 1 goes down, missing left.
                g = np.int64(0)
                h = np.int64(0)
                for step in range(count):
                    b = step if direction == 0 else count - 1 - step
                    g += histograms[node, begin + b, 0]
                    h += histograms[node, begin + b, 1]
                    if direction == 0:
                        left_g, left_h = g, h
                    else:
                        left_g, left_h = total_g - g, total_h - h
                    change = _change(
                        left_g, left_h, total_g - left_g, total_h - left_h, before, unit, reg_lambda, reg_alpha,
                        min_child_weight, max_delta_step, literal, bounded, monotone[f], lower, upper,
                    )  # fmt: skip
                    if change > best:
                        best, best_feature = change, f
                        is_set[node] = 0
                        split_bin[node] = b - direction
                        default_left[node] = direction
                        left[node, 0], left[node, 1] = left_g, left_h
        feature[node] = best_feature
        loss_change[node] = best


def find_splits(
    histograms: Integers,
    totals: Integers,
    starts: Integers,
    rules: SplitRules,
    limits: Limits | None = None,
) -> Splits:
    """Finds the best split of each node, or that it has none.

    Args:
        histograms: int64 (k, n_slots, 2), summed over the banks.
        totals: int64 (k, 2), summed gradient and hessian of each node.
        starts: int64 (u + 1,), where each usable feature's slots begin.
        rules: The run's.
        limits: The nodes' own, or None for none.

    Returns:
        The splits. Cost: one look at each slot, two where values are missing.
    """
    n_nodes, n_features = totals.shape[0], starts.size - 1
    if limits is None:
        limits = Limits.none(n_nodes, n_features)
    monotone, categorical = rules.of_features(n_features)
    splits = Splits(
        feature=np.empty(n_nodes, dtype=np.int64),
        bin=np.zeros(n_nodes, dtype=np.int64),
        is_set=np.zeros(n_nodes, dtype=np.uint8),
        right_set=np.zeros((n_nodes, _BYTES), dtype=np.uint8),
        default_left=np.zeros(n_nodes, dtype=np.uint8),
        loss_change=np.empty(n_nodes, dtype=np.float32),
        left=np.zeros((n_nodes, 2), dtype=np.int64),
    )
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
        rules.bounded,
        monotone,
        categorical,
        rules.max_cat_to_onehot,
        rules.max_cat_threshold,
        limits.allowed,
        limits.outer,
        limits.inner,
        splits.feature,
        splits.bin,
        splits.is_set,
        splits.right_set,
        splits.default_left,
        splits.loss_change,
        splits.left,
    )
    change = splits.loss_change
    splits.feature[(change <= np.float32(SMALLEST_LOSS_CHANGE)) | (change < np.float32(rules.gamma))] = -1
    return splits


def node_weight(total: Integers, rules: SplitRules, *, is_root: bool = False) -> np.float32:
    """The weight, before eta and bounds, of a node with this summed gradient and hessian, int64 (2,).

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


def bounded_weight(total: Integers, rules: SplitRules, bounds: Floats) -> np.float32:
    """`node_weight` of a node below the root, within float32 (2,) bounds."""
    return _clipped(node_weight(total, rules), bounds[0], bounds[1])


def find_splits_naive(
    histograms: Integers,
    totals: Integers,
    starts: Integers,
    rules: SplitRules,
    limits: Limits | None = None,
) -> list[tuple[int, int, int, float, frozenset[int]]]:
    """Twin of `find_splits` in plain Python: (feature, bin, default_left, loss change, right set), feature -1 for none.

    Lists every candidate with its children's sums and takes the best, the first of equals. The bin of a set is 0.
    """
    limits = limits or Limits.none(totals.shape[0], starts.size - 1)
    monotone, categorical = rules.of_features(starts.size - 1)

    def weight(g: float, h: float, bounds: Sequence[float]) -> float:
        shrunk = math.copysign(max(abs(g) - rules.reg_alpha, 0.0), g)
        w = -shrunk / (h + rules.reg_lambda) if h > 0.0 else 0.0
        if rules.max_delta_step:
            w = max(-rules.max_delta_step, min(rules.max_delta_step, w))
        return min(max(float(np.float32(w)), bounds[0]), bounds[1])

    def gain(g: float, h: float, least: float, bounds: Sequence[float]) -> np.float32:
        if h == 0.0:
            return np.float32(0.0)
        if rules.literal_gain:
            w = weight(g, h, bounds)
            return np.float32(-(2.0 * g * w + (h + rules.reg_lambda) * (w * w) + 2.0 * rules.reg_alpha * abs(w)))
        if rules.max_delta_step == 0.0 and not rules.bounded:
            shrunk = max(abs(g) - rules.reg_alpha, 0.0)
            return np.float32(shrunk * shrunk / (h + rules.reg_lambda))
        w32 = np.float32(weight(g, h, bounds) if h >= least else min(max(0.0, bounds[0]), bounds[1]))
        g32, h32, l32 = np.float32(g), np.float32(h), np.float32(rules.reg_lambda)
        return np.float32(-(np.float32(2) * g32 * w32 + (h32 + l32) * (w32 * w32)))

    def right_sides(f: int, slots: list[list[int]]) -> list[tuple[int, int, frozenset[int], list[int]]]:
        """All splits of a feature: bin, default_left, right set, and the slots whose rows go right."""
        n = len(slots) - 1
        if not categorical[f]:
            ways = (0, 1) if slots[n] != [0, 0] else (0,)
            up = [(b, 0, frozenset[int](), [*range(b + 1, n), n]) for b in range(n)]
            down = [(b, 1, frozenset[int](), list(range(b + 1, n))) for b in range(n - 2, -2, -1)]
            return up + (down if 1 in ways else [])
        if n < rules.max_cat_to_onehot:
            return [(0, left, frozenset([c]), [c] if left else [c, n]) for c in range(n) for left in (1, 0)]
        least = 0.0 if rules.literal_gain else rules.min_child_weight
        free = (-math.inf, math.inf)
        weights = [weight(g * rules.unit, h * rules.unit, free) if h * rules.unit >= least else 0.0 for g, h in slots]
        order = sorted(range(n), key=weights.__getitem__)
        most = min(rules.max_cat_threshold, n) - 1
        low = [(0, 1, frozenset(order[: i + 1]), order[: i + 1]) for i in range(most)]
        high = [(0, 0, frozenset(order[: n - 1 - i]), [*order[: n - 1 - i], n]) for i in range(most)]
        return low + high

    result = []
    for node, (histogram, total) in enumerate(zip(histograms.tolist(), totals.tolist(), strict=True)):
        candidates: list[tuple[np.float32, int, int, int, frozenset[int]]] = []
        outer, inner = limits.outer[node].tolist(), limits.inner[node].tolist()
        root = gain(total[0] * rules.unit, total[1] * rules.unit, rules.min_child_weight, outer)
        for f in np.flatnonzero(limits.allowed[node]).tolist():
            slots = histogram[starts[f] : starts[f + 1]]
            for split_bin, default_left, right_set, places in right_sides(f, slots):
                right = [sum(slots[place][i] for place in places) for i in (0, 1)]
                sides = [[total[i] - right[i] for i in (0, 1)], right]
                if any(side[1] * rules.unit < rules.min_child_weight or side[1] <= 0 for side in sides):
                    continue
                values = [(side[0] * rules.unit, side[1] * rules.unit) for side in sides]
                low, high = (weight(g, h, inner) for g, h in values)
                if (monotone[f] > 0 and low > high) or (monotone[f] < 0 and low < high):
                    continue
                one, other = (gain(g, h, 0.0, inner) for g, h in values)
                candidates.append((np.float32(one + other) - root, f, split_bin, default_left, right_set))
        best = max(
            candidates, key=lambda candidate: candidate[0], default=(np.float32(0.0), -1, 0, 0, frozenset[int]())
        )
        good = best[0] > np.float32(SMALLEST_LOSS_CHANGE) and best[0] >= np.float32(rules.gamma)
        result.append(
            (best[1], best[2], best[3], float(best[0]), best[4])
            if good
            else (-1, 0, 0, float(best[0]), frozenset[int]())
        )
    return result
