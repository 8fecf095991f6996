"""Measures which calibration suits few frauds: one line in log-odds, or a step function. It trains nothing together.

``python -m simulator.experiments.calibration`` trains XGBoost on the tables of `simulator.experiments.defaults` from
the starting parameters, and judges calibrations on rows that did not fit them: folds by row, and the earlier half of
the later days for the later half.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost

from bank_node.boosting import BoostingParameters, log_odds, probabilities
from bank_node.boosting.xgboost_settings import xgboost_settings
from bank_node.evaluation.calibration import fit
from bank_node.evaluation.reliability import CellCounts, cell_counts, fold_of, reliability
from features import labelled_split, load_contract
from features.contract.schema import DataContract
from protocol.starting_parameters import starting_parameters
from simulator.experiments.defaults import DATA, Data, draw, table_path, tables
from simulator.experiments.shared_benefit import FEATURES
from simulator.harness.measuring import provenance

__all__ = ["WAYS", "compare", "main"]

Numbers = npt.NDArray[np.float64]
Marks = npt.NDArray[np.uint8]
Fitted = Callable[[Numbers], Numbers]
_LEAST = 1e-6


def _none(margins: Numbers, labels: Marks) -> Fitted:
    return probabilities


def _line(margins: Numbers, labels: Marks) -> Fitted:
    """The one that ships."""
    counts = cell_counts(labels, margins.astype(np.float32), np.zeros(labels.size, dtype=np.uint8))
    return fit(CellCounts.folds(counts)[0]).probability


def _isotonic(margins: Numbers, labels: Marks) -> Fitted:
    """Pool adjacent violators, with a floor and a ceiling, so that no row is certain."""
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression(y_min=_LEAST, y_max=1 - _LEAST, out_of_bounds="clip").fit(margins, labels)
    return lambda given: np.asarray(found.predict(given), dtype=np.float64)


def _centred(margins: Numbers, labels: Marks) -> Fitted:
    """Isotonic steps joined at their middles by lines in log-odds; half a row of the mean rate in each step."""
    from sklearn.isotonic import IsotonicRegression

    _, block = np.unique(IsotonicRegression().fit_transform(margins, labels), return_inverse=True)
    rows, frauds = np.bincount(block), np.bincount(block, labels)
    middle = np.bincount(block, margins) / rows
    height = np.maximum.accumulate(log_odds((frauds + 0.5 * labels.mean()) / (rows + 0.5)))
    return lambda given: probabilities(np.interp(given, middle, height))


WAYS: Mapping[str, Callable[[Numbers, Marks], Fitted]] = {
    "as they are": _none,
    "line in log-odds (ships)": _line,
    "isotonic": _isotonic,
    "centred isotonic": _centred,
}


def compare(table: pd.DataFrame, names: Sequence[str], contract: DataContract) -> list[dict[str, Any]]:
    """Each way's calibration error and log loss, over folds by row and from the earlier later rows to the rest."""
    params = BoostingParameters.from_mapping(starting_parameters())
    first, last = table["event_time"].min(), table["event_time"].max()
    early, late = labelled_split(table, (first + 0.7 * (last - first)).normalize(), contract)
    columns = early[list(names)].to_numpy(np.float32)
    training = xgboost.QuantileDMatrix(columns, early["is_fraud"], max_bin=params.max_bin, nthread=1)
    booster = xgboost.train(xgboost_settings(params) | {"nthread": 1}, training, params.n_estimators)
    later = late[list(names)].to_numpy(np.float32)
    margins = booster.predict(xgboost.DMatrix(later, nthread=1), output_margin=True).astype(np.float64)
    labels = (late["is_fraud"].to_numpy() > 0.5).astype(np.uint8)
    fold = fold_of(later)
    old = (late["event_time"] < late["event_time"].quantile(0.5)).to_numpy()
    found = []
    for way, fitted in WAYS.items():
        said = np.empty_like(margins)
        for mine in (0, 1):
            said[fold == mine] = fitted(margins[fold != mine], labels[fold != mine])(margins[fold == mine])
        after = fitted(margins[old], labels[old])(margins[~old])
        for how, p, y, m in (("by row", said, labels, margins), ("by time", after, labels[~old], margins[~old])):
            found.append({"way": way, "split": how, "frauds": int(y.sum())} | _judged(p, y, m))
    return found


def _judged(said: Numbers, labels: Marks, margins: Numbers) -> dict[str, float]:
    counts = CellCounts.folds(cell_counts(labels, margins.astype(np.float32), np.zeros(labels.size, np.uint8)))[0]
    # Bins by the score as it was, so that all ways are judged by the same; each cell's mean of what was said.
    share = (margins.astype(np.float32).astype(np.float64) + 12.0) / 24.0
    cell = np.clip((share * counts.rows.size).astype(np.int64), 0, counts.rows.size - 1)
    mean = np.bincount(cell, said, counts.rows.size) / np.maximum(counts.rows, 1)
    clipped = np.clip(said, _LEAST, 1 - _LEAST)
    loss = -np.log(np.where(labels == 1, clipped, 1 - clipped)).mean()
    error = reliability(counts, mean).error
    return {"error": float("nan") if error is None else error, "log_loss": float(loss)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print each figure as it comes, write all of them."""
    parser = argparse.ArgumentParser(description="Which calibration suits few frauds.")
    parser.add_argument("--seeds", type=int, default=3, help="draws of accounts of each table")
    parser.add_argument("--data", type=Path, help="folder of the outside data sets; without it, generated ones only")
    parser.add_argument("--tables", type=Path, help="keep the feature tables here, and take those that are there")
    parser.add_argument("--out", type=Path, default=Path(".bench/calibration.json"))
    options = parser.parse_args(arguments)
    contract = load_contract(None)
    names = [*contract.local_names, *FEATURES]
    chosen: list[Data] = [data for data in DATA if data.frauds is None]
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.tables or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        there = set(tables(options.data, kept, contract, dict.fromkeys(data.source for data in chosen)))
        for seed in range(options.seeds):
            for data in chosen:
                if data.source not in there:
                    print(f"left out: {data.name}: no {data.source} in --data", flush=True)
                    continue
                table = draw(pd.read_parquet(table_path(kept, data.source)), data, seed)
                for one in compare(table, names, contract):
                    figures.append({"data": data.name, "seed": seed} | one)
                    print(json.dumps(figures[-1]), flush=True)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                document = {"run": provenance(), "figures": figures}
                options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
