"""Histogram, split and partition kernels: hand cases, twins, permutation invariance, identities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting import BoostingParameters, Cuts
from bank_node.boosting.histogram import SlotLayout, build_histograms, build_histograms_naive
from bank_node.boosting.partition import partition_rows, partition_rows_naive
from bank_node.boosting.splitting import SplitRules, find_splits, find_splits_naive, node_weight


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
    fast = find_splits(histograms, totals, layout.starts, rules)
    for node, (feature, split_bin, default_left, change) in enumerate(
        find_splits_naive(histograms, totals, layout.starts, rules)
    ):
        assert fast.feature[node] == feature
        if feature >= 0:
            assert (fast.bin[node], fast.default_left[node]) == (split_bin, default_left)
            assert float(fast.loss_change[node]) == change


@pytest.mark.parametrize("seed", range(4))
def test_partition_twin_keeps_order(seed: int) -> None:
    cuts, layout, bins, _ = _case(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(200).astype(np.uint32)
    begins, ends = _nodes(rng, 200, 6)
    features = rng.integers(0, layout.features.size, 6)
    missing = cuts.n_bins[layout.features][features]
    split_bins, default_left = rng.integers(-1, 5, 6), rng.integers(0, 2, 6).astype(np.uint8)
    columns = np.ascontiguousarray(bins.T)
    want, want_middles = partition_rows_naive(columns, rows, begins, ends, features, split_bins, missing, default_left)
    spare = np.empty_like(rows)
    middles = partition_rows(columns, rows, begins, ends, features, split_bins, missing, default_left, spare)
    assert np.array_equal(rows, want) and np.array_equal(middles, want_middles)
