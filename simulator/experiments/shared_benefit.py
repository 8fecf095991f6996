"""Measures what shared counterparty risk brings: models without it, with it, and with pooled features. Trains pooled.

``python -m simulator.experiments.shared_benefit --seeds 41 42`` prints the figures of docs/benchmarks.md for generated
payments, ``--data DIR`` for card_payments with planted compromised merchants. Training is on all banks' rows by
XGBoost itself, as the federated model equals it; only the features differ.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost

from bank_node.evaluation.metrics import rank_metrics
from features import extract_features, labelled_split, load_contract
from features.contract.label_time import known_series
from features.contract.schema import DataContract
from features.contract.sections import ACCOUNT_FEATURES, COUNTERPARTY_FEATURES, EntityKind, SharedRiskSpec
from features.shared_risk import Facts, day_number, day_tables, facts_of, shared_features, tokens_of
from protocol.errors import ConfigError
from simulator.generator import GeneratorSettings, generate
from simulator.harness.measuring import provenance

__all__ = [
    "FEATURES",
    "Figures",
    "bank_facts",
    "compare",
    "consortium_features",
    "generated",
    "main",
    "plant_merchants",
    "planted",
    "read_events",
]

FEATURES = (*COUNTERPARTY_FEATURES, *ACCOUNT_FEATURES)
"""What is compared; neither data set tells devices."""

_KEY = b"a key for measuring only, no one"
_PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 6,
    "eta": 0.15,
    "max_bin": 64,
    "min_child_weight": 2.0,
    "nthread": 2,
}
_TREES = 60
_TRAIN_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One way of making features: AUC-PR and recall at the alert budget, over all banks' test rows.

    Attributes:
        targeted: recall of the frauds that only many banks together can see; None where nobody knows which they are.
    """

    auc_pr: float
    recall: float
    targeted: float | None


def read_events(path: Path, contract: DataContract) -> pd.DataFrame:
    """A bank's payments with the time at which each label became known."""
    events = pd.read_parquet(path)
    events["settled_time"] = known_series(events, contract.label.delay_days)
    return events


def bank_facts(
    events: Mapping[str, pd.DataFrame], spec: SharedRiskSpec
) -> tuple[dict[str, dict[str, Facts]], dict[str, tuple[list[str], npt.NDArray[np.uint64]]]]:
    """Each bank's facts by kind, and the tokens of every identifier."""
    ids = sorted(set().union(*(set(e["counterparty_id"]) | set(e["account_id"]) for e in events.values())))
    tokens = {kind.name: (ids, tokens_of(_KEY, kind.name, ids)) for kind in spec.kinds}
    return {bank: facts_of(frame, spec, tokens) for bank, frame in events.items()}, tokens


def consortium_features(events: Mapping[str, pd.DataFrame], spec: SharedRiskSpec) -> dict[str, pd.DataFrame]:
    """Every bank's shared features, by ``row_id``, as an exchange of all days gives them: plain sums."""
    facts, tokens = bank_facts(events, spec)
    days = np.concatenate([day_number(frame["event_time"]) for frame in events.values()])
    first, last = int(days.min()), int(days.max())

    def read(kind: EntityKind, start: int, count: int) -> npt.NDArray[np.int64]:
        low, high = max(start, first), min(start + count - 1, last)
        tables = np.zeros((count, 4, kind.depth, kind.width), dtype=np.int64)
        for parts in facts.values():
            made = day_tables(parts[kind.name], kind, low, high - low + 1, payments_below=spec.payments_below)
            tables[low - start : high - start + 1] += made
        return tables

    found = {}
    for bank, frame in events.items():
        out = frame[frame["direction"] == "out"]
        columns = shared_features(out, spec, FEATURES, read, (first, last), tokens)
        found[bank] = pd.DataFrame({"row_id": out["payment_id"].to_numpy()} | columns)
    return found


def plant_merchants(
    events: Mapping[str, pd.DataFrame], *, merchants: int, days: int, share: float, seed: int
) -> tuple[dict[str, pd.DataFrame], set[str]]:
    """Compromised merchants in honest card payments, each seen by every bank a little.

    A merchant is compromised for some days; a share of the payments there turn out to be frauds, reported a log-normal
    time (median 2.5 days, at most 14) after. Amounts, times and customers stay: only the merchant gives it away.

    Returns:
        The banks' tables with the new labels, and the ids of the planted frauds.
    """
    rng = np.random.default_rng(seed)
    everything = pd.concat(events.values())
    begin, end = everything["event_time"].min().normalize(), everything["event_time"].max().normalize()
    busy = everything["counterparty_id"].value_counts()
    chosen = rng.choice(busy.index[: len(busy) // 2].to_numpy(), merchants, replace=False)
    since = begin + pd.to_timedelta(rng.integers(0, (end - begin).days - days, merchants), unit="D")
    when = dict(zip(chosen.tolist(), since, strict=True))
    planted: set[str] = set()
    made = {}
    for bank, frame in events.items():
        start = frame["counterparty_id"].map(when)
        inside = (frame["event_time"] >= start) & (frame["event_time"] < start + pd.Timedelta(days=days))
        hit = (inside & (frame["is_fraud"] == 0)).to_numpy() & (rng.random(len(frame)) < share)
        delay = np.minimum(rng.lognormal(0.9, 0.8, len(frame)), 14.0)
        known = (frame["event_time"] + pd.to_timedelta(delay, unit="D")).astype("datetime64[us]")
        frame = frame.assign(
            is_fraud=frame["is_fraud"].mask(hit, 1),
            label_time=frame["label_time"].mask(pd.Series(hit, frame.index), known),
        )
        planted |= set(frame.loc[hit, "payment_id"])
        made[bank] = frame
    return made, planted


def compare(
    paths: Mapping[str, Path], spec: SharedRiskSpec, targeted: set[str], *, train_share: float = _TRAIN_SHARE
) -> dict[str, Figures]:
    """Figures ``without`` shared risk, ``with`` it, and with ``pooled`` features; each one model for all banks.

    Args:
        paths: each bank's payments.
        spec: the contract's section.
        targeted: ids of the payments whose recall is told apart.
        train_share: of the days, from the first on.
    """
    contract = load_contract(None)
    names = list(contract.local_names)
    events = {bank: read_events(path, contract) for bank, path in paths.items()}
    shared = consortium_features(events, spec)
    local = {bank: extract_features(contract, path) for bank, path in paths.items()}
    with tempfile.TemporaryDirectory() as folder:
        pooled_path = Path(folder) / "events.parquet"
        pd.concat(pd.read_parquet(path) for path in paths.values()).to_parquet(pooled_path, index=False)
        everything = extract_features(contract, pooled_path)
    tables = {
        "without": (pd.concat(local.values()), names),
        "with": (
            pd.concat(local[bank][["row_id", "event_time", "is_fraud", *names]].merge(shared[bank]) for bank in local),
            [*names, *FEATURES],
        ),
        "pooled": (everything, names),
    }
    first, last = everything["event_time"].min(), everything["event_time"].max()
    until = (first + train_share * (last - first)).normalize()
    return {name: _judged(table, columns, until, contract, targeted) for name, (table, columns) in tables.items()}


def _judged(
    table: pd.DataFrame, names: list[str], until: pd.Timestamp, contract: DataContract, targeted: set[str]
) -> Figures:
    table = table.sort_values(["event_time", "row_id"], kind="stable")
    early, late = labelled_split(table, until, contract)
    booster = xgboost.train(_PARAMETERS, xgboost.DMatrix(early[names], early["is_fraud"]), _TREES)
    scores = booster.predict(xgboost.DMatrix(late[names]), output_margin=True)
    metrics = rank_metrics(late["is_fraud"].to_numpy(), scores, contract.alert_budget)
    found = None
    aimed = late["row_id"].isin(targeted).to_numpy()
    if aimed.any():
        alerted = np.argsort(np.argsort(-scores, kind="stable"), kind="stable") < metrics.alerts
        found = float(alerted[aimed].mean())
    return Figures(auc_pr=metrics.auc_pr or 0.0, recall=metrics.recall_at_budget or 0.0, targeted=found)


def generated(seed: int, folder: Path) -> tuple[dict[str, Path], set[str]]:
    """Payments with few mules, each paid into from all banks; and the frauds that went to them."""
    made = generate(GeneratorSettings(seed=seed, mules_per_1000_customers=3), folder)
    truth = pd.read_parquet(made.truth)
    frauds = set(truth["payment_id"])
    inside = pd.concat(pd.read_parquet(path) for path in made.events.values())
    transfers = inside[(inside["direction"] == "out") & inside["payment_id"].isin(frauds)]
    return made.events, set(transfers.loc[transfers["counterparty_bank"].notna(), "payment_id"])


def planted(data: Path, seed: int, folder: Path) -> tuple[dict[str, Path], set[str]]:
    """A card data set with compromised merchants planted."""
    from simulator.datasets import load_dataset

    made = load_dataset(data, folder)
    events = {bank: pd.read_parquet(path) for bank, path in made.events.items()}
    changed, ids = plant_merchants(events, merchants=120, days=21, share=0.15, seed=seed)
    for bank, frame in changed.items():
        frame.to_parquet(made.events[bank], index=False)
    return dict(made.events), ids


def main(arguments: Iterable[str] | None = None) -> None:
    """Print the figures of each seed."""
    parser = argparse.ArgumentParser(description="What shared counterparty risk brings.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[41])
    parser.add_argument("--data", type=Path, help="the folder of card_payments; without it, payments are generated")
    parser.add_argument("--out", type=Path, help="JSON file of the figures; those of the other data in it are kept")
    options = parser.parse_args(arguments)
    spec = load_contract(None).shared_risk
    if spec is None:
        raise ConfigError("the packaged contract shares nothing")
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths, ids = generated(seed, folder) if options.data is None else planted(options.data, seed, folder)
            for way, figures in compare(paths, spec, ids).items():
                rows.append({"seed": seed, "features": way, "auc_pr": figures.auc_pr, "recall": figures.recall})
                rows[-1]["recall_targeted"] = figures.targeted
                print(rows[-1], flush=True)
    if options.out is not None:
        _keep(options.out, "generated" if options.data is None else options.data.name, rows)
    table = pd.DataFrame(rows)
    print(table.groupby("features", sort=False)[["auc_pr", "recall", "recall_targeted"]].mean().round(3).to_string())


def _keep(path: Path, data: str, rows: list[dict[str, Any]]) -> None:
    """Write the figures beside those of other data sets."""
    before = json.loads(path.read_text())["figures"] if path.exists() else []
    figures = [row for row in before if row["data"] != data] + [{"data": data} | row for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": provenance(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
