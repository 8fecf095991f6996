"""Measures which training parameters suit rare frauds, by XGBoost on all banks' rows. It trains nothing together.

``python -m simulator.experiments.defaults`` makes every table itself: payments generated at three seeds, both outside
data sets where they are, and the same with most frauds left out, down to 0.02 % of rows. A seed draws the accounts.
The federated model equals XGBoost on pooled rows for equal parameters, so that what is found here holds for it.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost

from bank_node.boosting import BoostingParameters
from bank_node.boosting.xgboost_settings import xgboost_settings
from bank_node.evaluation.metrics import rank_metrics
from features import extract_features, labelled_split, load_contract
from features.contract.schema import DataContract
from protocol.errors import ConfigError
from simulator.datasets import load_dataset
from simulator.experiments.shared_benefit import FEATURES, consortium_features, read_events
from simulator.generator import GeneratorSettings, generate
from simulator.harness.measuring import provenance

__all__ = ["DATA", "SETTINGS", "Data", "draw", "judge", "main", "table_of", "table_path", "tables"]

_TRAIN_SHARE = 0.7
#: The last part of the training days, by which early stopping is judged.
_VALIDATION_SHARE = 0.2

#: What every setting starts from: what the demo trained with before this was measured.
BEFORE: Mapping[str, Any] = {"n_estimators": 60, "max_depth": 6, "eta": 0.15, "min_child_weight": 2.0, "max_bin": 64}

#: Name -> in what it differs from `BEFORE`. ``base_score`` None starts from the share of frauds.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "from the share of frauds": {},
    "step bound 1": {"max_delta_step": 1.0},
    "base score 0.5": {"base_score": 0.5},
    "base score 0.5, lambda 5": {"base_score": 0.5, "reg_lambda": 5.0},
    "base score 0.5, step bound 4": {"base_score": 0.5, "max_delta_step": 4.0},
    "base score 0.5, step bound 4, 100 trees": {"base_score": 0.5, "max_delta_step": 4.0, "n_estimators": 100},
    "base score 0.5, 120 trees of eta 0.1": {"base_score": 0.5, "eta": 0.1, "n_estimators": 120},
    "base score 0.5, depth 8": {"base_score": 0.5, "max_depth": 8},
    "base score 0.5, depth 4": {"base_score": 0.5, "max_depth": 4},
    "base score 0.5, child weight 20": {"base_score": 0.5, "min_child_weight": 20.0},
    "base score 0.5, stopped early": {"base_score": 0.5, "n_estimators": 300, "early_stopping_rounds": 20},
}
#: Where the rarest frauds are, on more rows: what each first step costs, and whether the trees are enough.
_FEW = (
    "from the share of frauds",
    "step bound 1",
    "base score 0.5, step bound 4",
    "base score 0.5, step bound 4, 100 trees",
    "base score 0.5, 120 trees of eta 0.1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A table to measure on.

    Attributes:
        name: of the result.
        source: ``generated/SEED``, or an outside data set's folder name.
        accounts: share of accounts that a seed draws.
        frauds: share of rows that are frauds after most were left out; None keeps all.
        settings: names of the settings tried.
    """

    name: str
    source: str
    accounts: float
    frauds: float | None = None
    settings: tuple[str, ...] = tuple(SETTINGS)


DATA: tuple[Data, ...] = (
    Data(name="generated, seed 7", source="generated/7", accounts=0.85),
    Data(name="generated, seed 11", source="generated/11", accounts=0.85),
    Data(name="generated, seed 23", source="generated/23", accounts=0.85),
    Data(name="account transfers", source="account_transfers", accounts=0.85),
    Data(name="card payments", source="card_payments", accounts=0.15),
    Data(name="generated, seed 7, 0.1 % frauds", source="generated/7", accounts=0.95, frauds=0.001, settings=_FEW),
    Data(name="card payments, 0.05 % frauds", source="card_payments", accounts=0.3, frauds=0.0005, settings=_FEW),
    Data(name="card payments, 0.02 % frauds", source="card_payments", accounts=0.4, frauds=0.0002, settings=_FEW),
)


def table_of(paths: Mapping[str, Path], contract: DataContract) -> pd.DataFrame:
    """All banks' feature rows in one table: the contract's own features, shared risk, ``account_id`` and ``bank``."""
    if contract.shared_risk is None:
        raise ConfigError("the packaged contract shares nothing")
    events = {bank: read_events(path, contract) for bank, path in paths.items()}
    shared = consortium_features(events, contract.shared_risk)
    parts = []
    for bank, path in paths.items():
        accounts = events[bank][["payment_id", "account_id"]].rename(columns={"payment_id": "row_id"})
        made = extract_features(contract, path).merge(shared[bank], on="row_id", how="left")
        parts.append(made.merge(accounts, on="row_id", how="left").assign(bank=bank))
    return pd.concat(parts, ignore_index=True)


def draw(table: pd.DataFrame, data: Data, seed: int) -> pd.DataFrame:
    """The labelled rows of the accounts that a seed draws, with so many frauds left as `data` says."""
    rng = np.random.default_rng(seed)
    known = table[table["is_fraud"].notna()]
    accounts = np.sort(known["account_id"].unique())
    chosen = accounts[rng.random(len(accounts)) < data.accounts]
    known = known[known["account_id"].isin(chosen)]
    if data.frauds is not None:
        fraud = (known["is_fraud"] == 1).to_numpy()
        share = data.frauds / (1.0 - data.frauds) * (~fraud).sum() / max(1, fraud.sum())
        known = known[~fraud | (rng.random(len(known)) < share)]
    return known


def judge(table: pd.DataFrame, names: Sequence[str], settings: Mapping[str, Any], contract: DataContract) -> Any:
    """Train on the first days, judge on those after the label delay.

    Returns:
        AUC-PR, log loss, recall at the alert budget, the largest leaf of the model file and the largest log-odds of a
        later row, the numbers of trees and of later frauds.
    """
    params = BoostingParameters.from_mapping({**BEFORE, **settings})
    first, last = table["event_time"].min(), table["event_time"].max()
    until = (first + _TRAIN_SHARE * (last - first)).normalize()
    early, late = labelled_split(table, until, contract)
    more: dict[str, Any] = {}
    if params.early_stopping_rounds:
        begin = (until - _VALIDATION_SHARE * (until - first)).normalize()
        early, judging = labelled_split(early, begin, contract)
        more = {"evals": [(_matrix(judging, names), "later")], "early_stopping_rounds": params.early_stopping_rounds}
    columns = early[list(names)].to_numpy(np.float32)
    training = xgboost.QuantileDMatrix(columns, early["is_fraud"], max_bin=params.max_bin, nthread=1)
    chosen = xgboost_settings(params) | {"nthread": 1, "verbosity": 0, "eval_metric": "aucpr"}
    booster = xgboost.train(chosen, training, params.n_estimators, verbose_eval=False, **more)
    if more:
        booster = booster[: booster.best_iteration + 1]
    margins = booster.predict(_matrix(late, names), output_margin=True).astype(np.float64)
    labels = late["is_fraud"].to_numpy()
    metrics = rank_metrics(labels, margins, contract.alert_budget)
    return {
        "auc_pr": metrics.auc_pr,
        "recall": metrics.recall_at_budget,
        "log_loss": float(np.logaddexp(0.0, np.where(labels > 0.5, -margins, margins)).mean()),
        "largest_leaf": _largest_leaf(booster),
        "largest_margin": float(margins.max()),
        "trees": booster.num_boosted_rounds(),
        "frauds": metrics.frauds,
        "rows": metrics.rows,
    }


def _matrix(table: pd.DataFrame, names: Sequence[str]) -> xgboost.DMatrix:
    return xgboost.DMatrix(table[list(names)].to_numpy(np.float32), label=table["is_fraud"], nthread=1)


def _largest_leaf(booster: xgboost.Booster) -> float:
    """The largest absolute leaf value of the model file, shrinkage included."""
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    found: list[npt.NDArray[np.float64]] = []
    for tree in trees:
        leaf = np.array(tree["left_children"]) < 0
        found.append(np.abs(np.array(tree["split_conditions"], dtype=np.float64)[leaf]))
    return float(np.concatenate(found).max())


def tables(outside: Path | None, kept: Path, contract: DataContract, wanted: Iterable[str]) -> Iterator[str]:
    """Makes each source's table as a file in `kept`, and tells which there are; a file that is there is taken."""
    for source in wanted:
        path = table_path(kept, source)
        if not path.exists():
            kind, _, seed = source.partition("/")
            with tempfile.TemporaryDirectory() as name:
                if kind == "generated":
                    made = generate(GeneratorSettings(banks=4, seed=int(seed)), Path(name))
                elif outside is not None and (outside / source).is_dir():
                    made = load_dataset(outside / source, Path(name))
                else:
                    continue
                paths = {bank: Path(each) for bank, each in made.events.items()}
                table_of(paths, contract).to_parquet(path, index=False)
        yield source


def table_path(kept: Path, source: str) -> Path:
    """Where a source's table is."""
    return kept / f"{source.replace('/', '_')}.parquet"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print each figure as it comes, and write all of them after each table: seed by seed."""
    parser = argparse.ArgumentParser(description="Which training parameters suit rare frauds.")
    parser.add_argument("--seeds", type=int, default=5, help="draws of accounts of each table")
    parser.add_argument("--data", type=Path, help="folder of the outside data sets; without it, generated ones only")
    parser.add_argument("--only", nargs="*", help="names of tables; default: all")
    parser.add_argument("--tables", type=Path, help="keep the feature tables here, and take those that are there")
    parser.add_argument("--out", type=Path, default=Path(".bench/defaults.json"))
    options = parser.parse_args(arguments)
    contract = load_contract(None)
    names = [*contract.local_names, *FEATURES]
    known = {data.name for data in DATA}
    if unknown := set(options.only or ()) - known:
        raise ConfigError(f"no table is called {min(unknown)!r}; known are {', '.join(sorted(known))}")
    chosen = [data for data in DATA if not options.only or data.name in options.only]
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.tables or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        there = set(tables(options.data, kept, contract, dict.fromkeys(data.source for data in chosen)))
        for data in chosen:
            if data.source not in there:
                print(f"left out: {data.name}: no {data.source} in --data", flush=True)
        figures: list[dict[str, Any]] = []
        for seed in range(options.seeds):
            for data in chosen:
                if data.source in there:
                    figures += _measure(data, seed, table_path(kept, data.source), names, contract)
                    _write(options.out, figures)


def _measure(data: Data, seed: int, path: Path, names: list[str], contract: DataContract) -> list[dict[str, Any]]:
    table = draw(pd.read_parquet(path), data, seed)
    figures = []
    for setting in data.settings:
        found = judge(table, names, SETTINGS[setting], contract)
        figures.append({"data": data.name, "seed": seed, "setting": setting} | found)
        print(json.dumps(figures[-1]), flush=True)
    return figures


def _write(path: Path, figures: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"run": provenance(), "before": dict(BEFORE), "settings": SETTINGS, "figures": figures}
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
