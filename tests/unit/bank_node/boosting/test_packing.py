"""The packed layout: it unpacks what it packs, can't overflow, gives the same bytes for any split, ranks like wide."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from bank_node.boosting import (
    BoostingParameters,
    bin_rows,
    export_booster,
    global_bins,
    grower,
    predict_margin,
    train_trees,
)
from bank_node.boosting.nodes import GrowingTree
from bank_node.boosting.packing import (
    GRADIENT_BITS,
    HESSIAN_BITS,
    LEAST_BITS,
    Packing,
    Sizes,
    build_packed,
    build_packed_naive,
    pack_rows,
    pack_rows_naive,
)
from protocol.field import HALF
from simulator.harness.tables import auto_grid
from tests.unit.bank_node.boosting.lockstep import run_banks


def _gradients(rng: np.random.Generator, rows: int, bits: int) -> np.ndarray:
    p = rng.beta(0.3, 3.0, rows)
    y = rng.random(rows) < p
    g = np.where(y, p - 1, p)
    return np.stack([np.round(g * 2.0**bits), np.round(p * (1 - p) * 2.0**bits)], axis=1).astype(np.int64)


def _sizes(gradients: np.ndarray) -> Sizes:
    g = gradients[:, 0]
    return Sizes(int(g[g > 0].sum()), int(-g[g < 0].sum()), int(gradients[:, 1].sum()))


def _pack(gradients: np.ndarray, packing: Packing) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(gradients), dtype=np.uint32)
    out = np.zeros(len(gradients), dtype=np.int64)
    sums = pack_rows(gradients, rows, np.array([0]), np.array([rows.size]), [packing], out)
    return out, sums[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3000), st.sampled_from([16, 24, 30]), st.integers(1, 5))
def test_packed_sums_unpack_to_the_sums_of_rounded_rows_and_stay_in_the_field(
    seed: int, rows: int, bits: int, banks: int
) -> None:
    rng = np.random.default_rng(seed)
    gradients = _gradients(rng, rows, bits)
    packing = Packing.of(_sizes(gradients), rows, bits)
    assert packing is not None
    packed, sums = _pack(gradients, packing)
    assert np.array_equal(packed, pack_rows_naive(gradients, packing))
    assert sums.tolist() == [int(packed.sum()), *_sizes(gradients)]
    bank_of_row = rng.integers(0, banks, rows)
    parts = [int(packed[bank_of_row == b].sum()) for b in range(banks)]
    assert all(abs(part) <= HALF for part in [*parts, sum(parts)])
    pair = packing.unpack(np.array([sum(parts)], dtype=np.int64))[0]
    rounded = [((gradients[:, i] + (1 << s >> 1)) >> s) << s for i, s in enumerate(_shifts(packing))]
    assert pair.tolist() == [int(column.sum()) for column in rounded]
    for column, shift in zip(gradients.T, _shifts(packing), strict=True):
        step = 1 << shift
        assert np.abs(((column + (step >> 1)) >> shift << shift) - column).max() <= step // 2


def _shifts(packing: Packing) -> tuple[int, int]:
    return packing.gradient_shift, packing.hessian_shift


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**56), st.integers(0, 2**56), st.integers(0, 2**56), st.integers(1, 2**26), st.integers(12, 30))
def test_no_total_can_leave_its_bits_and_too_few_bits_mean_the_exact_layout(
    positive: int, negative: int, h: int, rows: int, bits: int
) -> None:
    packing = Packing.of(Sizes(positive, negative, h), rows, bits)
    g = max(positive, negative)
    if packing is None:
        assert max(g >> 1, h) >> (bits - LEAST_BITS) >= 2 ** (HESSIAN_BITS - 1) - rows
        return
    for total, shift, width in ((g, packing.gradient_shift, GRADIENT_BITS), (h, packing.hessian_shift, HESSIAN_BITS)):
        # Each row rounds up by half a step at most.
        assert (total + rows * (1 << shift) / 2) / (1 << shift) < 2**width
        assert bits - shift >= LEAST_BITS
    largest = ((2**GRADIENT_BITS - 1) << HESSIAN_BITS) + 2**HESSIAN_BITS - 1
    assert largest <= HALF + 2**20 and 2 ** (GRADIENT_BITS + HESSIAN_BITS) - 2**HESSIAN_BITS <= HALF


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 2000), st.floats(0.01, 1.0))
def test_a_finer_rounding_is_covered_exactly_where_it_cannot_wrap(seed: int, rows: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    gradients = _gradients(rng, rows, 30) * 2000
    whole = Packing.of(_sizes(gradients), rows, 30)
    inside = gradients[rng.random(rows) < share]
    guessed = Sizes(*(int(size * rng.uniform(0.2, 2.0)) for size in _sizes(inside)))
    finer = whole.finer(guessed, rows, 30)
    assert all(a <= b for a, b in zip(_shifts(finer), _shifts(whole), strict=True))
    if whole.covers(finer, _sizes(inside), rows):
        packed, _ = _pack(inside, finer)
        rounded = [(((inside[:, i] + (1 << s >> 1)) >> s) << s).sum() for i, s in enumerate(_shifts(finer))]
        assert finer.unpack(np.array([packed.sum()]))[0].tolist() == [int(total) for total in rounded]
    best = whole.finer(_sizes(inside), rows, 30)
    assert whole.covers(best, _sizes(inside), rows)


def test_counted_labels_are_exact() -> None:
    of_labels = ((31_000_001, 30_000_003), (-999_000_007, 77_000_011))
    labels = np.random.default_rng(2).random(1000) < 0.1
    gradients = np.array(of_labels, dtype=np.int64)[labels.astype(int)]
    packing = Packing.counting(of_labels, 1000)
    packed, sums = _pack(gradients, packing)
    assert np.array_equal(packed, pack_rows_naive(gradients, packing))
    assert packing.unpack(packed.sum(keepdims=True))[0].tolist() == gradients.sum(axis=0).tolist()
    assert sums[1:].tolist() == list(_sizes(gradients))
    assert packing.finer(_sizes(gradients), 1000, 30) is packing and packing.covers(packing, _sizes(gradients), 1000)
    assert Packing.counting(of_labels, 2**HESSIAN_BITS) is None


def test_packed_histograms_equal_their_naive_twin() -> None:
    rng = np.random.default_rng(1)
    bins = rng.integers(0, 5, (101, 3)).astype(np.uint8)
    starts = np.array([0, 5, 10, 15], dtype=np.int64)
    rows = rng.permutation(101).astype(np.uint32)
    begins, ends = np.array([0, 40], dtype=np.int64), np.array([40, 101], dtype=np.int64)
    packed = rng.integers(-(2**40), 2**40, 101)
    fast = build_packed(bins, packed, rows, begins, ends, starts)
    assert np.array_equal(fast, build_packed_naive(bins, packed, rows, begins, ends, starts))


def _data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(rows, 6)).astype(np.float32)
    signal = columns[:, 0] * columns[:, 1] + np.sin(2 * columns[:, 2]) + 0.5 * rng.normal(size=rows)
    columns[rng.random(columns.shape) < 0.03] = np.nan
    return columns, (signal > 2.2).astype(np.uint8)


def _train(columns: np.ndarray, labels: np.ndarray, split: np.ndarray, banks: int, layout: str) -> tuple[bytes, list]:
    params = BoostingParameters(n_estimators=12, max_depth=5, eta=0.3, max_bin=32, histogram_layout=layout)
    grids = [auto_grid(columns[:, i]) for i in range(columns.shape[1])]

    def one(bank: int):
        mine = split == bank

        def work(secure_sum):
            cuts = global_bins(columns[mine], labels[mine], grids, params.max_bin, secure_sum)
            base = cuts.base_score(params)
            trees = train_trees(
                bin_rows(columns[mine], cuts), labels[mine], params, secure_sum,
                n_rows_total=cuts.n_rows_total, base_score=base,
            )  # fmt: skip
            names = [f"f{i}" for i in range(columns.shape[1])]
            return export_booster(trees, cuts, params, names, base), trees, base

        return work

    results = run_banks([one(bank) for bank in range(banks)])
    assert len({result[0] for result in results}) == 1
    return results[0][0], [results[0][1], results[0][2]]


@pytest.mark.parametrize("too_small", [False, True])
@pytest.mark.parametrize("banks", [3, 5, 13])
def test_the_packed_model_does_not_depend_on_how_rows_lie_over_banks(
    banks: int, too_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All steps packed, also the small ones; and every guess of a node's size too small, so that it is asked for again.
    monkeypatch.setattr(grower, "SMALL_STEP", 0)
    asked: list[str] = []
    if too_small:
        monkeypatch.setattr(grower, "expected_sizes", lambda total, parent, root: Sizes(0, 0, 0))
    original = grower._Grower._packed_sums

    def counted(self, step, nodes, packings, reachable):
        asked.append(step)
        return original(self, step, nodes, packings, reachable)

    monkeypatch.setattr(grower._Grower, "_packed_sums", counted)
    columns, labels = _data(4000, 2)
    one, _ = _train(columns, labels, np.zeros(4000, dtype=int), 1, "packed")
    assert (len(asked) > 12 * 6) == too_small
    split = np.random.default_rng(banks).choice(banks, 4000, p=np.random.default_rng(1).dirichlet([0.5] * banks))
    assert _train(columns, labels, split, banks, "packed")[0] == one


def test_steps_of_one_node_are_exact_where_two_ciphertexts_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    original = grower._Grower._packed_sums

    def counted(self, step, nodes, packings, reachable):
        packed.append(len(nodes))
        return original(self, step, nodes, packings, reachable)

    monkeypatch.setattr(grower._Grower, "_packed_sums", counted)
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(3000, 40)).astype(np.float32)
    labels = (columns[:, :5].sum(axis=1) + rng.normal(size=3000) > 2).astype(np.uint8)
    params = BoostingParameters(n_estimators=2, max_depth=4, max_bin=64, histogram_layout="packed")
    cuts = global_bins(columns, labels, [auto_grid(columns[:, i]) for i in range(40)], 64, lambda step, vector: vector)
    assert 2047 < cuts.total_bins < 4094
    train_trees(bin_rows(columns, cuts), labels, params, lambda step, vector: vector, n_rows_total=3000)
    assert packed and min(packed) == 2


def test_resuming_a_packed_training_gives_the_same_trees() -> None:
    columns, labels = _data(3000, 4)
    params = BoostingParameters(n_estimators=6, max_depth=4, max_bin=16, histogram_layout="packed")
    grids = [auto_grid(columns[:, i]) for i in range(columns.shape[1])]

    def alone(step: str, vector: np.ndarray) -> np.ndarray:
        return vector

    cuts = global_bins(columns, labels, grids, params.max_bin, alone)
    binned = bin_rows(columns, cuts)
    whole = train_trees(binned, labels, params, alone, n_rows_total=3000)
    again = train_trees(binned, labels, params, alone, n_rows_total=3000, resume=whole[:3])
    for a, b in zip(whole, again, strict=True):
        assert np.array_equal(a.value, b.value) and np.array_equal(a.threshold, b.threshold)


@pytest.mark.parametrize("seed", range(5))
def test_packed_and_wide_rank_alike(seed: int) -> None:
    columns, labels = _data(40_000, seed)
    scores = {}
    for layout in ("wide", "packed"):
        _, (trees, base) = _train(columns, labels, np.zeros(len(labels), dtype=int), 1, layout)
        scores[layout] = average_precision_score(labels, predict_margin(trees, columns, base))
    assert abs(scores["wide"] - scores["packed"]) < 5e-4
    print(f"seed {seed}: wide {scores['wide']:.6f}, packed {scores['packed']:.6f}")


@pytest.mark.parametrize("leaf_sums", [False, True])
def test_rounding_shows_in_the_last_leaves_only_and_with_many_rows_nowhere(
    leaf_sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grower, "SMALL_STEP", 0)
    if leaf_sums:
        monkeypatch.setattr(grower, "ROWS_WITHOUT_LEAF_SUM", 59_999)
    # Few values a column: rows with the same gradient, whose rounding errors add up.
    columns, labels = _data(60_000, 6)
    columns = np.where(np.isnan(columns), np.nan, np.round(columns)).astype(np.float32)
    _, (wide, _) = _train(columns, labels, np.zeros(60_000, dtype=int), 1, "wide")
    _, (packed, _) = _train(columns, labels, np.zeros(60_000, dtype=int), 1, "packed")
    same = [np.array_equal(ours.split_bin, theirs.split_bin) for ours, theirs in zip(packed, wide, strict=True)]
    assert all(same[:4])
    for number, (ours, theirs) in enumerate(zip(packed[:4], wide[:4], strict=True)):
        if leaf_sums or number == 0:
            # The first tree counts labels.
            assert np.array_equal(ours.value, theirs.value)
            assert np.array_equal(ours.sum_hessian, theirs.sum_hessian)
        else:
            assert 0 < np.abs(ours.value - theirs.value).max() < 2e-4
            inner = theirs.left >= 0
            assert np.allclose(ours.sum_hessian[inner], theirs.sum_hessian[inner], rtol=1e-4)


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.integers(-(10**9), 10**9),
    st.integers(1, 2**28),
    st.integers(1, 20),
)
def test_what_rounding_took_from_rows_that_are_alike_comes_back(
    left: int, right: int, gradient: int, hessian: int, shift: int
) -> None:
    def rounded(value: int) -> int:
        return ((value + (1 << shift >> 1)) >> shift) << shift

    assume(rounded(hessian) > 0)
    exact, packed = np.array([gradient, hessian]), np.array([rounded(gradient), rounded(hessian)])
    tree = GrowingTree.planted((left + right) * exact)
    tree.summed[0] = (left + right) * packed
    found = left * packed + tree._rounded_off(0, int(left * packed[1]))
    assert np.abs(found - left * exact).max() <= 1


def test_a_heavy_child_may_miss_what_a_coarser_root_was_rounded_by() -> None:
    exact = Sizes(2**40, 2**40, 2**40)
    best = Packing.of(exact, 1000, 30)
    assert best is not None
    coarser = Packing(gradient_shift=best.gradient_shift + 2, hessian_shift=best.hessian_shift + 2)
    bounds = grower._Bounds(packing=coarser, most={})
    assert bounds.note_root(exact, 1000, 30) and bounds.packing == best
    # Half a step a row of the root, and half a finer one of the light child.
    assert bounds.slack(1000) >= 1000 * (2 ** (coarser.hessian_shift - 1) + 2 ** (best.hessian_shift - 1))
    for shift in (-1, 3):
        other = Packing(gradient_shift=best.gradient_shift + shift, hessian_shift=best.hessian_shift)
        assert not grower._Bounds(packing=other, most={}).note_root(exact, 1000, 30)
