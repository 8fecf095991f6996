"""Histogram, split and partition kernels: hand cases, twins, permutation invariance, identities."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters, Cuts
from bank_node.boosting.histogram import SlotLayout, build_histograms, build_histograms_naive
from bank_node.boosting.partition import partition_rows, partition_rows_naive
from bank_node.boosting.split_rules import Limits, SplitRules
from bank_node.boosting.splitting import Splits, bounded_weight, find_splits, find_splits_naive, node_weight


def _cuts(sizes: list[int], missing: list[bool]) -> Cuts:
    values = tuple(np.arange(1, size + 1, dtype=np.float32) for size in sizes)
    return Cuts(values=values, has_missing=np.array(missing), n_rows_total=100, n_positive_total=10)


def _case(seed: int, n: int = 200) -> tuple[Cuts, SlotLayout, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cuts = _cuts([4, 0, 9, 0, 1], [True, False, False, True, False])
    layout = SlotLayout.of(cuts)
    bins = np.empty((n, layout.features.size), dtype=np.uint8)
    for i, f in enumerate(layout.features):
        bins[:, i] = rng.integers(0, cuts.n_bins[f] + int(cuts.has_missing[f]), n)
    h = rng.integers(0, 2**28, n)
    return cuts, layout, bins, np.stack([rng.integers(-(2**30), 2**30, n), h], axis=1)


def _nodes(rng: np.random.Generator, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(rng.integers(0, n + 1, k + 1))
    return edges[:-1].astype(np.int64), edges[1:].astype(np.int64)


def test_layout_sends_only_what_does_not_follow() -> None:
    _, layout, _, _ = _case(0)
    assert layout.features.tolist() == [0, 2, 3, 4]  # feature 1 is constant and never missing
    assert layout.n_slots == 6 + 11 + 2 + 3
    assert layout.sent.size == 5 + 9 + 1 + 1


@pytest.mark.parametrize("seed", range(4))
def test_histogram_twin_and_unpack(seed: int) -> None:
    _, layout, bins, gradients = _case(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(200).astype(np.uint32)
    begins, ends = _nodes(rng, 200, 5)
    got = build_histograms(bins, gradients, rows, begins, ends, layout)
    assert np.array_equal(got, build_histograms_naive(bins, gradients, rows, begins, ends, layout))
    totals = np.array([gradients[rows[b:e]].sum(axis=0) for b, e in zip(begins, ends, strict=True)])
    assert np.array_equal(layout.unpack(layout.pack(got), totals), got)


def test_histogram_does_not_depend_on_the_order_of_rows() -> None:
    _, layout, bins, gradients = _case(1)
    whole = (np.array([0]), np.array([200]))
    plain = build_histograms(bins, gradients, np.arange(200, dtype=np.uint32), *whole, layout)
    mixed = np.random.default_rng(9).permutation(200).astype(np.uint32)
    assert np.array_equal(build_histograms(bins, gradients, mixed, *whole, layout), plain)


def test_sibling_is_parent_minus_child() -> None:
    _, layout, bins, gradients = _case(2)
    rows = np.arange(200, dtype=np.uint32)
    parts = build_histograms(bins, gradients, rows, np.array([0, 0, 77]), np.array([200, 77, 200]), layout)
    assert np.array_equal(parts[0] - parts[1], parts[2])


def _rules(**values: float | str) -> SplitRules:
    return SplitRules.of(BoostingParameters(**values), 4)  # type: ignore[arg-type]


def test_split_hand_case() -> None:
    # One feature, two bins, one missing slot; sums in sixteenths: g = (-4, 3, -1), h = (2, 2, 1).
    histogram = np.array([[[-64, 32], [48, 32], [-16, 16]]])
    splits = find_splits(histogram, np.array([[-32, 80]]), np.array([0, 3]), _rules(reg_lambda=1.0))
    # Missing left: G = -5 and 3, H = 3 and 2: 25/4 + 9/3 - 4/6.
    assert (splits.feature[0], splits.bin[0], splits.default_left[0]) == (0, 0, 1)
    assert splits.loss_change[0] == np.float32(25 / 4 + 3 - 4 / 6)
    assert splits.left[0].tolist() == [-80, 48]
    assert node_weight(splits.left[0], _rules(reg_lambda=1.0)) == np.float32(5 / 4)
    assert node_weight(splits.left[0], _rules(reg_alpha=1.0)) == np.float32(1.0)
    assert node_weight(splits.left[0], _rules(max_delta_step=0.5)) == np.float32(0.5)


def test_equal_gains_take_the_first_feature_and_bin() -> None:
    feature = [[-64, 64], [0, 0], [64, 64], [0, 0]]
    splits = find_splits(np.array([feature * 2]), np.array([[0, 128]]), np.array([0, 4, 8]), _rules())
    assert (splits.feature[0], splits.bin[0], splits.default_left[0]) == (0, 0, 0)


def test_gamma_and_min_child_weight_forbid() -> None:
    histogram, total, starts = np.array([[[-64, 64], [64, 64], [0, 0]]]), np.array([[0, 128]]), np.array([0, 3])
    gain = 16 / 5 + 16 / 5
    assert find_splits(histogram, total, starts, _rules(gamma=gain - 0.01)).feature[0] == 0
    assert find_splits(histogram, total, starts, _rules(gamma=gain + 0.01)).feature[0] == -1
    assert find_splits(histogram, total, starts, _rules(min_child_weight=4.0)).feature[0] == 0
    assert find_splits(histogram, total, starts, _rules(min_child_weight=4.1)).feature[0] == -1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0.0, 0.7]),
    st.sampled_from([0.0, 1.0, 40.0]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from(["3.2", "3.4"]),
)
def test_split_twin(seed: int, reg_lambda: float, alpha: float, weight: float, step: float, arithmetic: str) -> None:
    _, layout, bins, gradients = _case(seed, 60)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(60).astype(np.uint32)
    begins, ends = _nodes(rng, 60, 4)
    gradients = gradients >> 20  # small numbers, so that equal gains occur
    histograms = build_histograms(bins, gradients, rows, begins, ends, layout)
    totals = np.array([gradients[rows[b:e]].sum(axis=0) for b, e in zip(begins, ends, strict=True)])
    rules = SplitRules.of(
        BoostingParameters(
            reg_lambda=reg_lambda,
            reg_alpha=alpha,
            min_child_weight=weight,
            max_delta_step=step,
            gamma=0.1,
            xgboost_arithmetic=arithmetic,
        ),
        7,
    )
    _same_as_twin(histograms, totals, layout.starts, rules, None)


def _same_as_twin(
    histograms: np.ndarray, totals: np.ndarray, starts: np.ndarray, rules: SplitRules, limits: Limits | None
) -> Splits:
    fast = find_splits(histograms, totals, starts, rules, limits)
    for node, (feature, split_bin, default_left, change, right_set) in enumerate(
        find_splits_naive(histograms, totals, starts, rules, limits)
    ):
        assert fast.feature[node] == feature
        if feature >= 0:
            assert bool(fast.is_set[node]) == bool(right_set)
            if right_set:
                assert set(np.flatnonzero(fast.right_set[node])) == right_set
            else:
                assert fast.bin[node] == split_bin
            assert fast.default_left[node] == default_left
            assert float(fast.loss_change[node]) == change
    return fast


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 6.0]), st.sampled_from(["3.2", "3.4"]), st.booleans())
def test_split_twin_with_constraints_and_categories(seed: int, weight: float, arithmetic: str, bounded: bool) -> None:
    rng = np.random.default_rng(seed)
    widths = rng.integers(2, 9, 5)  # bins of each feature, the missing one included
    starts = np.concatenate(([0], np.cumsum(widths))).astype(np.int64)
    histograms = np.zeros((3, starts[-1], 2), dtype=np.int64)
    rows = np.stack([rng.integers(-9, 10, (3, 30)), rng.integers(0, 4, (3, 30))], axis=2)
    for node in range(3):
        for f in range(5):
            np.add.at(histograms[node], starts[f] + rng.integers(0, widths[f], 30), rows[node])
    totals = rows.sum(axis=1)
    categorical = rng.random(5) < 0.5
    params = BoostingParameters(
        min_child_weight=weight,
        xgboost_arithmetic=arithmetic,
        reg_alpha=float(rng.choice([0.0, 0.5])),
        max_cat_to_onehot=int(rng.integers(1, 6)),
        max_cat_threshold=int(rng.integers(1, 8)),
        monotone_constraints={f"f{i}": int(rng.choice([-1, 1])) for i in np.flatnonzero(~categorical)}
        if bounded
        else {},
    )
    rules = SplitRules.of(params, 3, [f"f{i}" for i in range(5)], categorical)
    limits = Limits.none(3, 5)
    limits.allowed[rng.random((3, 5)) < 0.3] = 0
    if bounded:
        limits = replace(
            limits,
            outer=np.sort(rng.normal(size=(3, 2)), axis=1).astype(np.float32),
            inner=np.sort(rng.normal(size=(3, 2)), axis=1).astype(np.float32),
        )
    fast = _same_as_twin(histograms, totals, starts, rules, limits)
    for node in np.flatnonzero(fast.feature >= 0):
        assert limits.allowed[node, fast.feature[node]]
        way = rules.monotone[fast.feature[node]] if rules.monotone.size else 0
        left = bounded_weight(fast.left[node], rules, limits.inner[node])
        right = bounded_weight(totals[node] - fast.left[node], rules, limits.inner[node])
        assert way * (right - left) >= 0


def test_categorical_hand_cases() -> None:
    # Three categories and a missing slot; sums in sixteenths. Ordered by weight: 1, then 0, then 2.
    histogram, total = np.array([[[0, 64], [64, 64], [-64, 64], [-16, 16]]]), np.array([[-16, 208]])
    rules = SplitRules.of(BoostingParameters(max_cat_to_onehot=2), 4, ["c"], np.array([True]))
    splits = find_splits(histogram, total, np.array([0, 4]), rules)
    # {0, 1} right, {2} left with the missing: G = 4 and -5, H = 8 and 5; -1 and 13 before.
    assert splits.is_set[0] and np.flatnonzero(splits.right_set[0]).tolist() == [0, 1] and splits.default_left[0] == 1
    assert splits.loss_change[0] == np.float32(np.float32(25 / 6) + np.float32(16 / 9)) - np.float32(1 / 14)
    assert splits.left[0].tolist() == [-80, 80]
    onehot = replace(rules, max_cat_to_onehot=4)
    splits = find_splits(histogram, total, np.array([0, 4]), onehot)
    # {2} right with the missing is the same cut; the category alone gains less.
    assert np.flatnonzero(splits.right_set[0]).tolist() == [2] and splits.default_left[0] == 0
    assert splits.left[0].tolist() == [64, 128]


@pytest.mark.parametrize("seed", range(4))
def test_partition_twin_keeps_order(seed: int) -> None:
    _, layout, bins, _ = _case(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(200).astype(np.uint32)
    begins, ends = _nodes(rng, 200, 6)
    features = rng.integers(0, layout.features.size, 6)
    goes_left = rng.integers(0, 2, (6, 256)).astype(np.uint8)
    columns = np.ascontiguousarray(bins.T)
    want, want_middles = partition_rows_naive(columns, rows, begins, ends, features, goes_left)
    middles = partition_rows(columns, rows, begins, ends, features, goes_left, np.empty_like(rows))
    assert np.array_equal(rows, want) and np.array_equal(middles, want_middles)


def test_which_bins_go_left() -> None:
    splits = Splits(
        feature=np.array([1, 0, 1]),
        bin=np.array([2, -1, 0]),
        is_set=np.array([0, 0, 1], dtype=np.uint8),
        right_set=np.eye(3, 256, k=1, dtype=np.uint8),
        default_left=np.array([0, 1, 1], dtype=np.uint8),
        loss_change=np.ones(3, dtype=np.float32),
        left=np.zeros((3, 2), dtype=np.int64),
    )
    table = splits.goes_left(np.array([0, 1, 2]), np.array([3, 4]))
    assert table[0, :5].tolist() == [1, 1, 1, 0, 0]  # bins 0 to 2; 4 is missing and goes right
    assert table[1, :4].tolist() == [0, 0, 0, 1]  # missing only
    assert table[2, :5].tolist() == [1, 1, 1, 0, 1]  # all but category 3
