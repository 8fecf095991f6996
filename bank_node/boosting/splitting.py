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
from typing import NamedTuple

import numpy as np

from bank_node.boosting.split_rules import Limits, SplitRules
from bank_node.dtypes import Floats, Integers, Marks, Signs
from bank_node.kernels import inner_kernel, kernel

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


class _Arithmetic(NamedTuple):
    """`SplitRules` as kernels take them."""

    unit: float
    reg_lambda: float
    reg_alpha: float
    min_child_weight: float
    max_delta_step: float
    literal: bool
    bounded: bool
    max_cat_to_onehot: int
    max_cat_threshold: int

    @classmethod
    def of(cls, rules: SplitRules) -> "_Arithmetic":
        return cls(
            unit=rules.unit,
            reg_lambda=rules.reg_lambda,
            reg_alpha=rules.reg_alpha,
            min_child_weight=rules.min_child_weight,
            max_delta_step=rules.max_delta_step,
            literal=rules.literal_gain,
            bounded=rules.bounded,
            max_cat_to_onehot=rules.max_cat_to_onehot,
            max_cat_threshold=rules.max_cat_threshold,
        )


class _Parent(NamedTuple):
    """The node that is to be split: its place, its sums, its own gain, and the bounds of its children's weights."""

    k: int
    gradient: int
    hessian: int
    gain: np.float32
    lower: np.float32
    upper: np.float32


class _Column(NamedTuple):
    """A feature's slots in a node's histogram: `begin` to before `missing`, which is the last; and its constraint."""

    feature: int
    begin: int
    missing: int
    way: int


class _Found(NamedTuple):
    """The arrays of `Splits` that kernels write."""

    feature: Integers
    bin: Integers
    is_set: Marks
    right_set: Marks
    default_left: Marks
    loss_change: Floats
    left: Integers


@kernel
def _weight(g: float, h: float, rules: _Arithmetic, least_hessian: float) -> np.float32:
    if h <= 0.0 or h < least_hessian:
        return np.float32(0.0)
    w = 0.0
    if g > rules.reg_alpha:
        w = -(g - rules.reg_alpha) / (h + rules.reg_lambda)
    elif g < -rules.reg_alpha:
        w = -(g + rules.reg_alpha) / (h + rules.reg_lambda)
    if rules.max_delta_step != 0.0 and abs(w) > rules.max_delta_step:
        w = math.copysign(rules.max_delta_step, w)
    return np.float32(w)


@inner_kernel
def _clipped(w: np.float32, lower: np.float32, upper: np.float32) -> np.float32:
    return lower if w < lower else upper if w > upper else w


@inner_kernel
def _gain(g: float, h: float, rules: _Arithmetic, lower: np.float32, upper: np.float32) -> np.float32:
    if h <= 0.0:
        return np.float32(0.0)
    if rules.literal:
        w = np.float64(_clipped(_weight(g, h, rules, 0.0), lower, upper))
        return np.float32(-(2.0 * g * w + (h + rules.reg_lambda) * (w * w) + 2.0 * rules.reg_alpha * abs(w)))
    if rules.max_delta_step == 0.0 and not rules.bounded:
        t = 0.0
        if g > rules.reg_alpha:
            t = g - rules.reg_alpha
        elif g < -rules.reg_alpha:
            t = g + rules.reg_alpha
        return np.float32(t * t / (h + rules.reg_lambda))
    w32 = _clipped(_weight(g, h, rules, rules.min_child_weight), lower, upper)
    g32, h32, lambda32 = np.float32(g), np.float32(h), np.float32(rules.reg_lambda)
    first = np.float32(np.float32(np.float32(2.0) * g32) * w32)
    second = np.float32(np.float32(h32 + lambda32) * np.float32(w32 * w32))
    return np.float32(-np.float32(first + second))


@inner_kernel
def _change(left_g: int, left_h: int, parent: _Parent, rules: _Arithmetic, way: int) -> np.float32:
    # What a split gains; nothing at all when it isn't allowed.
    lh, rh = left_h * rules.unit, (parent.hessian - left_h) * rules.unit
    if lh < rules.min_child_weight or lh <= 0.0 or rh < rules.min_child_weight or rh <= 0.0:
        return np.float32(0.0)
    lg, rg = left_g * rules.unit, (parent.gradient - left_g) * rules.unit
    lower, upper = parent.lower, parent.upper
    if way != 0:
        left_weight = _clipped(_weight(lg, lh, rules, rules.min_child_weight), lower, upper)
        right_weight = _clipped(_weight(rg, rh, rules, rules.min_child_weight), lower, upper)
        if (way > 0 and left_weight > right_weight) or (way < 0 and left_weight < right_weight):
            return np.float32(0.0)
    left, right = _gain(lg, lh, rules, lower, upper), _gain(rg, rh, rules, lower, upper)
    change = np.float32(np.float32(left + right) - parent.gain)
    return change if change < np.float32(np.inf) else np.float32(0.0)


@kernel
def _note(
    found: _Found, k: int, column: _Column, change: np.float32, default_left: int, left_g: int, left_h: int
) -> np.float32:
    # The best split so far; which bins go where is for the caller to write.
    found.feature[k] = column.feature
    found.loss_change[k] = change
    found.default_left[k] = default_left
    found.left[k, 0], found.left[k, 1] = left_g, left_h
    return change


@kernel
def _find_threshold(
    slots: Integers, column: _Column, parent: _Parent, rules: _Arithmetic, best: np.float32, found: _Found
) -> np.float32:
    # Pass 0 goes up, present values left and missing right; pass 1 goes down, missing left.
    count = column.missing - column.begin
    passes = 2 if slots[column.missing, 0] != 0 or slots[column.missing, 1] != 0 else 1
    for direction in range(passes):
        g, h = np.int64(0), np.int64(0)
        for step in range(count):
            b = step if direction == 0 else count - 1 - step
            g += slots[column.begin + b, 0]
            h += slots[column.begin + b, 1]
            left_g, left_h = (g, h) if direction == 0 else (parent.gradient - g, parent.hessian - h)
            change = _change(left_g, left_h, parent, rules, column.way)
            if change > best:
                best = _note(found, parent.k, column, change, direction, left_g, left_h)
                found.is_set[parent.k] = 0
                found.bin[parent.k] = b - direction
    return best


@kernel
def _find_category(
    slots: Integers, column: _Column, parent: _Parent, rules: _Arithmetic, best: np.float32, found: _Found
) -> np.float32:
    # One category right and the rest left; missing values left, then right.
    for c in range(column.missing - column.begin):
        for direction in range(2):
            g, h = slots[column.begin + c, 0], slots[column.begin + c, 1]
            if direction == 1:
                g, h = g + slots[column.missing, 0], h + slots[column.missing, 1]
            left_g, left_h = parent.gradient - g, parent.hessian - h
            change = _change(left_g, left_h, parent, rules, 0)
            if change > best:
                best = _note(found, parent.k, column, change, 1 - direction, left_g, left_h)
                found.is_set[parent.k] = 1
                found.right_set[parent.k, :] = 0
                found.right_set[parent.k, c] = 1
    return best


@kernel
def _order(slots: Integers, column: _Column, rules: _Arithmetic, order: Integers, weights: Floats) -> None:
    # Categories by increasing weight, equal ones by number.
    least_hessian = 0.0 if rules.literal else rules.min_child_weight
    for c in range(column.missing - column.begin):
        slot = column.begin + c
        w = _weight(slots[slot, 0] * rules.unit, slots[slot, 1] * rules.unit, rules, least_hessian)
        place = c
        while place > 0 and weights[place - 1] > w:
            weights[place] = weights[place - 1]
            order[place] = order[place - 1]
            place -= 1
        weights[place] = w
        order[place] = c


@kernel
def _find_set(
    slots: Integers, column: _Column, parent: _Parent, rules: _Arithmetic, best: np.float32, found: _Found
) -> np.float32:
    # Pass 0 moves categories from the low end to the right, missing values left; pass 1 moves them from the high end
    # to the left, missing values right.
    order, weights = np.empty(_BYTES, dtype=np.int64), np.empty(_BYTES, dtype=np.float32)
    _order(slots, column, rules, order, weights)
    count = column.missing - column.begin
    for direction in range(2):
        g, h = np.int64(0), np.int64(0)
        for step in range(min(rules.max_cat_threshold, count) - 1):
            place = step if direction == 0 else count - 1 - step
            g += slots[column.begin + order[place], 0]
            h += slots[column.begin + order[place], 1]
            left_g, left_h = (parent.gradient - g, parent.hessian - h) if direction == 0 else (g, h)
            change = _change(left_g, left_h, parent, rules, 0)
            if change > best:
                best = _note(found, parent.k, column, change, 1 - direction, left_g, left_h)
                found.is_set[parent.k] = 1
                found.right_set[parent.k, :] = 0
                for other in range(place + 1 if direction == 0 else place):
                    found.right_set[parent.k, order[other]] = 1
    return best


@kernel
def _find_into(
    histograms: Integers,
    totals: Integers,
    starts: Integers,
    ways: Signs,
    categorical: Marks,
    limits: tuple[Marks, Floats, Floats],
    rules: _Arithmetic,
    found: _Found,
) -> None:
    # Each node's features in order, each by the search of its kind; of equal gains the first found stays.
    allowed, outer, inner = limits
    for k in range(totals.shape[0]):
        g, h = totals[k, 0], totals[k, 1]
        gain = _gain(g * rules.unit, h * rules.unit, rules, outer[k, 0], outer[k, 1])
        parent = _Parent(k, g, h, gain, inner[k, 0], inner[k, 1])
        best = np.float32(0.0)
        found.feature[k], found.loss_change[k] = -1, best
        for f in range(starts.shape[0] - 1):
            if allowed[k, f] == 0:
                continue
            column = _Column(f, starts[f], starts[f + 1] - 1, ways[f])
            if categorical[f] == 0:
                best = _find_threshold(histograms[k], column, parent, rules, best, found)
            elif column.missing - column.begin < rules.max_cat_to_onehot:
                best = _find_category(histograms[k], column, parent, rules, best, found)
            else:
                best = _find_set(histograms[k], column, parent, rules, best, found)


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
    found = _Found(
        feature=splits.feature,
        bin=splits.bin,
        is_set=splits.is_set,
        right_set=splits.right_set,
        default_left=splits.default_left,
        loss_change=splits.loss_change,
        left=splits.left,
    )
    bounds = (limits.allowed, limits.outer, limits.inner)
    _find_into(histograms, totals, starts, monotone, categorical, bounds, _Arithmetic.of(rules), found)
    change = splits.loss_change
    splits.feature[(change <= np.float32(SMALLEST_LOSS_CHANGE)) | (change < np.float32(rules.gamma))] = -1
    return splits


def node_weight(total: Integers, rules: SplitRules, *, is_root: bool = False) -> np.float32:
    """The weight, before eta and bounds, of a node with this summed gradient and hessian, int64 (2,).

    Only a root can weigh less than min_child_weight; it then has weight 0 in XGBoost 3.2's arithmetic.
    """
    least = rules.min_child_weight if is_root and not rules.literal_gain else 0.0
    arithmetic = _Arithmetic.of(rules)
    return _weight(float(total[0]) * rules.unit, float(total[1]) * rules.unit, arithmetic, least)


def bounded_weight(total: Integers, rules: SplitRules, bounds: Floats) -> np.float32:
    """`node_weight` of a node below the root, within float32 (2,) bounds."""
    return _clipped(node_weight(total, rules), bounds[0], bounds[1])


def _weight_naive(g: float, h: float, rules: SplitRules, bounds: Sequence[float]) -> float:
    shrunk = math.copysign(max(abs(g) - rules.reg_alpha, 0.0), g)
    w = -shrunk / (h + rules.reg_lambda) if h > 0.0 else 0.0
    if rules.max_delta_step:
        w = max(-rules.max_delta_step, min(rules.max_delta_step, w))
    return min(max(float(np.float32(w)), bounds[0]), bounds[1])


def _right_sides_naive(
    slots: list[list[int]], rules: SplitRules, categorical: bool
) -> list[tuple[int, int, frozenset[int], list[int]]]:
    """All splits of a feature: bin, default_left, right set, and the slots whose rows go right."""
    n = len(slots) - 1
    if not categorical:
        up = [(b, 0, frozenset[int](), [*range(b + 1, n), n]) for b in range(n)]
        down = [(b, 1, frozenset[int](), list(range(b + 1, n))) for b in range(n - 2, -2, -1)]
        return up + (down if slots[n] != [0, 0] else [])
    if n < rules.max_cat_to_onehot:
        return [(0, left, frozenset([c]), [c] if left else [c, n]) for c in range(n) for left in (1, 0)]
    least = 0.0 if rules.literal_gain else rules.min_child_weight
    free = (-math.inf, math.inf)
    sums = [(g * rules.unit, h * rules.unit) for g, h in slots]
    weights = [_weight_naive(g, h, rules, free) if h >= least else 0.0 for g, h in sums]
    order = sorted(range(n), key=weights.__getitem__)
    most = min(rules.max_cat_threshold, n) - 1
    low = [(0, 1, frozenset(order[: i + 1]), order[: i + 1]) for i in range(most)]
    high = [(0, 0, frozenset(order[: n - 1 - i]), [*order[: n - 1 - i], n]) for i in range(most)]
    return low + high


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

    def gain(g: float, h: float, least: float, bounds: Sequence[float]) -> np.float32:
        if h == 0.0:
            return np.float32(0.0)
        if rules.literal_gain:
            w = _weight_naive(g, h, rules, bounds)
            return np.float32(-(2.0 * g * w + (h + rules.reg_lambda) * (w * w) + 2.0 * rules.reg_alpha * abs(w)))
        if rules.max_delta_step == 0.0 and not rules.bounded:
            shrunk = max(abs(g) - rules.reg_alpha, 0.0)
            return np.float32(shrunk * shrunk / (h + rules.reg_lambda))
        w32 = np.float32(_weight_naive(g, h, rules, bounds) if h >= least else min(max(0.0, bounds[0]), bounds[1]))
        g32, h32, l32 = np.float32(g), np.float32(h), np.float32(rules.reg_lambda)
        return np.float32(-(np.float32(2) * g32 * w32 + (h32 + l32) * (w32 * w32)))

    result = []
    for node, (histogram, total) in enumerate(zip(histograms.tolist(), totals.tolist(), strict=True)):
        candidates: list[tuple[np.float32, int, int, int, frozenset[int]]] = []
        outer, inner = limits.outer[node].tolist(), limits.inner[node].tolist()
        root = gain(total[0] * rules.unit, total[1] * rules.unit, rules.min_child_weight, outer)
        for f in np.flatnonzero(limits.allowed[node]).tolist():
            slots = histogram[starts[f] : starts[f + 1]]
            for split_bin, default_left, right_set, places in _right_sides_naive(slots, rules, categorical[f] == 1):
                right = [sum(slots[place][i] for place in places) for i in (0, 1)]
                sides = [[total[i] - right[i] for i in (0, 1)], right]
                if any(side[1] * rules.unit < rules.min_child_weight or side[1] <= 0 for side in sides):
                    continue
                values = [(side[0] * rules.unit, side[1] * rules.unit) for side in sides]
                low, high = (_weight_naive(g, h, rules, inner) for g, h in values)
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
