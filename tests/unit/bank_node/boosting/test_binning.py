"""Bins: cuts from counts, the same at all banks, rows to bins, checkpoint, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank_node.boosting import (
    BoostingError,
    RowError,
    SumError,
    bin_rows,
    cuts_from_bytes,
    cuts_to_bytes,
    global_bins,
    grid_counts,
)
from bank_node.boosting.binning import BINNING_TOTALS, bin_counts, bin_rows_naive, quantile_cuts
from tests.unit.bank_node.boosting.lockstep import run_banks
from tests.unit.bank_node.boosting.samples import alone, grids, make_rows


def test_hand_case() -> None:
    x = np.array([[0.5], [1.5], [1.6], [2.5], [np.nan], [9.0]], dtype=np.float32)
    cuts = global_bins(x, [0, 0, 1, 0, 1, 1], [np.array([1.0, 2.0, 3.0, 4.0])], 64, alone)
    assert cuts.values[0].tolist() == [1.0, 2.0, 4.0]  # no row lies in 3 <= x < 4
    assert cuts.has_missing.tolist() == [True]
    assert (cuts.n_rows_total, cuts.n_positive_total, cuts.total_bins) == (6, 3, 4)
    assert bin_rows(x, cuts).bins[:, 0].tolist() == [0, 1, 1, 2, 4, 3]
    on_cuts = np.array([[1.0], [2.0], [4.0], [-1e30]], dtype=np.float32)
    assert bin_rows(on_cuts, cuts).bins[:, 0].tolist() == [1, 2, 3, 0]


def test_binning_twin() -> None:
    x, y = make_rows(300, missing=0.2)
    cuts = global_bins(x, y, grids(6), 32, alone)
    assert np.array_equal(bin_rows(x, cuts).bins, bin_rows_naive(x, cuts))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=120), st.integers(2, 40))
def test_quantile_cuts_fill_every_bin(counts: list[int], max_bin: int) -> None:
    edges = np.arange(1, len(counts), dtype=np.float32)
    cuts = quantile_cuts(np.array(counts), edges, max_bin)
    used = sum(1 for count in counts if count)
    assert len(cuts) + 1 == max(1, min(used, max_bin))
    cells = np.searchsorted(cuts, np.concatenate(([0], edges)), side="right")
    rows = np.bincount(cells, weights=counts, minlength=len(cuts) + 1)
    assert sum(counts) == 0 or (rows > 0).all()


def test_quantile_cuts_are_even_around_a_crowded_cell() -> None:
    counts = np.ones(1000, dtype=np.int64)
    counts[0] = 100_000
    cuts = quantile_cuts(counts, np.arange(1, 1000, dtype=np.float32), 10)
    rows = np.diff([0.0, *cuts.tolist(), 1000.0])[1:]
    assert len(cuts) == 9 and cuts[0] == 1 and rows.min() >= 100 and rows.max() <= 125


def test_banks_agree_and_the_split_of_rows_does_not_matter() -> None:
    x, y = make_rows(400, missing=0.1)
    whole = cuts_to_bytes(global_bins(x, y, grids(6), 16, alone))
    bank = np.random.default_rng(0).integers(0, 3, 400)
    parts = run_banks(
        [
            (lambda secure_sum, k=k: cuts_to_bytes(global_bins(x[bank == k], y[bank == k], grids(6), 16, secure_sum)))
            for k in range(4)  # bank 3 has no rows
        ]
    )
    assert set(parts) == {whole}


def test_checkpoint() -> None:
    x, y = make_rows(50)
    for names in (None, tuple(f"é{i}" for i in range(6))):
        cuts = global_bins(x, y, grids(6), 16, alone, feature_names=names)
        again = cuts_from_bytes(cuts_to_bytes(cuts))
        assert cuts_to_bytes(again) == cuts_to_bytes(cuts)
        assert again.feature_names == names and again.n_rows_total == 50
    with pytest.raises(BoostingError, match="bins cannot be read"):
        cuts_from_bytes(b"no archive")


def test_constant_feature_gets_no_cut() -> None:
    x = np.array([[1.0, 7.0]] * 4, dtype=np.float32)
    cuts = global_bins(x, [0, 1, 0, 1], [np.array([2.0]), np.array([])], 8, alone)
    assert [c.size for c in cuts.values] == [0, 0]


def test_bad_rows_are_refused_with_counts() -> None:
    x, y = make_rows(20)
    wrong = x.copy()
    wrong[3:5, 2] = np.inf
    with pytest.raises(RowError, match="column 2 has 2 values that are infinite"):
        global_bins(wrong, y, grids(6), 8, alone)
    with pytest.raises(RowError, match="shape"):
        global_bins(x[:, :3], y, grids(6), 8, alone)
    labels = y.astype(float)
    labels[[7, 9]] = np.nan
    with pytest.raises(RowError, match="2 of 20 labels are not 0 or 1, the first in row 7"):
        global_bins(x, labels, grids(6), 8, alone)
    with pytest.raises(RowError, match="labels have shape"):
        global_bins(x, y[:5], grids(6), 8, alone)
    with pytest.raises(BoostingError, match="increasing"):
        global_bins(x, y, [np.array([2.0, 1.0])] * 6, 8, alone)


def test_an_impossible_sum_is_refused() -> None:
    x, y = make_rows(20)

    def tampered(step: str, vector: np.ndarray) -> np.ndarray:
        vector[5] += 1
        return vector

    with pytest.raises(SumError, match="step bins/0/0"):
        global_bins(x, y, grids(6), 8, tampered)


def test_grid_counts_are_those_of_the_binning_step() -> None:
    x, y = make_rows(300, missing=0.1)
    seen = []

    def watched(step: str, vector: np.ndarray) -> np.ndarray:
        seen.append(vector)
        return vector

    global_bins(x, y, grids(6), 16, watched)
    assert np.array_equal(np.concatenate(grid_counts(x, grids(6))), seen[0][BINNING_TOTALS:])


def test_a_bad_value_is_told_by_its_feature_s_name() -> None:
    columns = np.zeros((3, 2), dtype=np.float32)
    columns[1, 1] = np.inf
    grids = [np.array([0.0, 1.0])] * 2
    with pytest.raises(RowError, match="feature amount has 1 values that are infinite"):
        bin_counts(columns, [0, 1, 0], grids, feature_names=["hour", "amount"])
    with pytest.raises(RowError, match="feature amount has 1 values"):
        grid_counts(columns, grids, ["hour", "amount"])
    with pytest.raises(RowError, match="feature column 1 has 1 values"):
        grid_counts(columns, grids)
