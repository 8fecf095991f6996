"""Planted merchants, the consortium's features in the clear, the comparison itself, and the benchmark's exactness."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import load_contract
from simulator.benchmarks.risk import bench_risk
from simulator.experiments.shared_benefit import (
    FEATURES,
    compare,
    consortium_features,
    generated,
    plant_merchants,
    read_events,
)
from simulator.generator import GeneratorSettings, generate

CONTRACT = load_contract()


def cards(bank: str, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    time = pd.Timestamp("2026-01-05") + pd.to_timedelta(np.sort(rng.integers(0, 60 * 86_400, 3000)), unit="s")
    return pd.DataFrame(
        {
            "payment_id": [f"{bank}{i}" for i in range(3000)],
            "event_time": time.astype("datetime64[us]"),
            "counterparty_id": [f"m{i}" for i in rng.integers(0, 40, 3000)],
            "is_fraud": 0,
            "label_time": (time + pd.Timedelta(days=14)).astype("datetime64[us]"),
        }
    )


def test_planted_frauds_are_at_few_merchants_for_a_time_and_known_later() -> None:
    events = {bank: cards(bank, seed) for seed, bank in enumerate("ab")}
    made, ids = plant_merchants(events, merchants=3, days=10, share=0.5, seed=1)
    everything = pd.concat(made.values())
    bad = everything[everything["is_fraud"] == 1]
    assert set(bad["payment_id"]) == ids and len(ids) > 20
    assert bad["counterparty_id"].nunique() == 3
    spans = bad.groupby("counterparty_id")["event_time"].agg(lambda times: times.max() - times.min())
    assert (spans <= pd.Timedelta(days=10)).all()
    delay = bad["label_time"] - bad["event_time"]
    assert (delay > pd.Timedelta(0)).all() and (delay <= pd.Timedelta(days=14)).all()
    assert all(len(set(frame["payment_id"]) & ids) for frame in made.values()), "every bank has some"


def test_every_row_gets_the_consortiums_features(tmp_path: Path) -> None:
    made = generate(GeneratorSettings(banks=2, customers=150, merchants=50, days=45, seed=2), tmp_path)
    events = {bank: read_events(path, CONTRACT) for bank, path in made.events.items()}
    assert CONTRACT.shared_risk is not None
    found = consortium_features(events, CONTRACT.shared_risk)
    for bank, frame in events.items():
        assert set(found[bank]["row_id"]) == set(frame[frame["direction"] == "out"]["payment_id"])
        assert (found[bank]["shared_counterparty_frauds_30d"] > 0).any()
        assert list(found[bank].columns) == ["row_id", *FEATURES]


def test_the_comparison_is_fair_to_a_bank_alone() -> None:
    names = CONTRACT.local_names
    assert {"counterparty_fraud_count_7d", "counterparty_fraud_count_30d"} <= set(names)


@pytest.mark.slow
def test_shared_risk_helps_where_mules_are_seen_only_across_banks(tmp_path: Path) -> None:
    paths, ids = generated(41, tmp_path)
    assert CONTRACT.shared_risk is not None
    found = compare(paths, CONTRACT.shared_risk, ids)
    assert found["with"].auc_pr > found["without"].auc_pr
    assert (found["with"].targeted or 0) > (found["without"].targeted or 0)


def test_the_benchmark_compares_equal_work() -> None:
    found = bench_risk(rows=5_000, entities=60, repeats=1)
    assert found["below_truth"] == 0 and max(found["share_off"].values()) < 0.1
