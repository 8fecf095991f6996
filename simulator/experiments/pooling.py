"""Measures what pooling brings on generated payments: each bank alone against all together. Not part of `generate`.

``python -m simulator.experiments.pooling 21 22`` prints the figures of docs/generator.md for these seeds. XGBoost
itself trains, on all rows in one process, as nobody in a real consortium could.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost
from sklearn.metrics import average_precision_score

from features import extract_features, load_contract, time_split
from simulator.generator import GeneratorSettings, generate
from simulator.generator.settings import GeneratedConsortium

__all__ = ["Comparison", "compare", "main"]

_TREES = 60
_PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 6,
    "eta": 0.15,
    "max_bin": 64,
    "min_child_weight": 2.0,
    "nthread": 1,
}
_TRAIN_SHARE = 0.7
_ALERTS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two tables.

    Attributes:
        banks: a row for each bank: rows, frauds (by label), test_frauds, AUC-PR ``alone`` and ``pooled``.
        types: a row for each fraud type: frauds in the test period, and the share of them among each bank's 1 % of
            rows with the highest scores, ``alone`` and ``pooled``.
    """

    banks: pd.DataFrame
    types: pd.DataFrame


def compare(made: GeneratedConsortium) -> Comparison:
    """Train on the first 70 % of the days, leave the label delay out, test on the rest; labels as the banks have them.

    Every label is taken as known at training time, late ones too: the split is by event time.
    """
    contract = load_contract(None)
    names = list(contract.feature_names)
    tables = {bank: extract_features(contract, path, threads=1) for bank, path in made.events.items()}
    first = min(table["event_time"].min() for table in tables.values())
    last = max(table["event_time"].max() for table in tables.values())
    until = (first + _TRAIN_SHARE * (last - first)).normalize()
    split = {bank: time_split(table, until, contract.label.delay_days) for bank, table in tables.items()}

    def fit(rows: pd.DataFrame) -> xgboost.Booster:
        return xgboost.train(_PARAMETERS, xgboost.DMatrix(rows[names], rows["is_fraud"]), _TREES)

    pooled = fit(pd.concat([early for early, _ in split.values()]))
    banks, scored = [], []
    for bank, (early, late) in split.items():
        matrix, label = xgboost.DMatrix(late[names]), late["is_fraud"].to_numpy()
        scores = {"alone": fit(early).predict(matrix), "pooled": pooled.predict(matrix)}
        row = {"bank": bank, "rows": len(tables[bank]), "frauds": int(tables[bank]["is_fraud"].sum())}
        figures = {who: float(average_precision_score(label, score)) for who, score in scores.items()}
        banks.append(row | {"test_frauds": int(label.sum())} | figures)
        budget = int(np.ceil(_ALERTS * len(late)))
        caught = {who: pd.Series(-score).rank(method="first").to_numpy() <= budget for who, score in scores.items()}
        scored.append(pd.DataFrame({"payment_id": late["row_id"].to_numpy(), "bank": bank} | caught))
    hits = pd.concat(scored).merge(pd.read_parquet(made.truth), on=["payment_id", "bank"])
    types = hits.groupby("fraud_type").agg(frauds=("alone", "size"), alone=("alone", "mean"), pooled=("pooled", "mean"))
    return Comparison(banks=pd.DataFrame(banks), types=types.reset_index())


def main() -> None:
    """Print the comparison for each seed, and the means over seeds."""
    parser = argparse.ArgumentParser(description="What pooling brings on generated payments.")
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--migration", type=float, default=GeneratorSettings().fraud_migration)
    options = parser.parse_args()
    banks, types = [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            settings = GeneratorSettings(seed=seed, fraud_migration=options.migration)
            result = compare(generate(settings, Path(folder)))
        banks.append(result.banks.assign(seed=seed))
        types.append(result.types)
    table = pd.concat(banks)
    print(table.round(3).to_string(index=False))
    print(table.groupby("bank", sort=False)[["alone", "pooled"]].mean().round(3).to_string())
    print(table.groupby("seed")[["alone", "pooled"]].mean().round(3).to_string())
    wins, cases = int((table["pooled"] > table["alone"]).sum()), len(table)
    print(f"mean alone {table['alone'].mean():.3f}, pooled {table['pooled'].mean():.3f}; better in {wins} of {cases}")
    every = pd.concat(types)
    every[["alone", "pooled"]] = every[["alone", "pooled"]].mul(every["frauds"], axis=0)
    total = every.groupby("fraud_type").sum()
    total[["alone", "pooled"]] = total[["alone", "pooled"]].div(total["frauds"], axis=0)
    print(total.round(3).to_string())


if __name__ == "__main__":
    main()
