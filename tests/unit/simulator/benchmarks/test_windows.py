"""The data benchmark compares equal values, and tells when they are not."""

from pathlib import Path

import numpy as np
import pytest

from simulator.benchmarks import windows as bench


def test_the_three_ways_give_the_same_values(tmp_path: Path) -> None:
    report = bench.bench_features(3_000, repeats=1, features=3, out=tmp_path)
    assert set(report["windows"]["ratio"]) == set(report["bins"]["ratio"]) == {"Polars", "pandas"}
    assert (tmp_path / "bench_data.json").exists()


def test_other_values_end_the_benchmark() -> None:
    found = {"ours": lambda: np.ones(3), "theirs": lambda: np.zeros(3)}
    with pytest.raises(AssertionError, match="ours and theirs"):
        bench._compare(found, "ours", ["theirs"])


def test_payments_have_a_crowded_merchant_and_distinct_times() -> None:
    payments = bench.make_payments(5_000)
    assert payments["event_us"].is_unique
    assert payments["counterparty_id"].value_counts(normalize=True).iloc[0] > 0.1
