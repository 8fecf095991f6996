"""Compares models of the packed layout with those of the wide one: AUC-PR on later rows, three data sets, five seeds.

``python -m tests.benchmarks.layouts FOLDER ...`` prints the table of docs/benchmarks.md for generated payments and for
each outside data set. All rows are in one process, as neither layout depends on how they lie over banks. On generated
payments a seed is the generator's; on outside data it draws the rows and columns of each tree (80 % each).
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score

from bank_node.boosting import (
    BoostingParameters,
    Tree,
    bin_rows,
    global_bins,
    predict_margin,
    row_keys,
    train_trees,
)
from features import extract_features, load_contract, time_split
from simulator.datasets import load_dataset
from simulator.generator import GeneratedConsortium, GeneratorSettings, generate
from simulator.harness.measuring import provenance

_TRAIN_SHARE = 0.7


def tables(made: GeneratedConsortium) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All banks' rows before and after 70 % of the days, the label delay left out between them."""
    contract = load_contract(None)
    found = [extract_features(contract, path) for _, path in sorted(made.events.items())]
    first = min(table["event_time"].min() for table in found)
    last = max(table["event_time"].max() for table in found)
    until = (first + _TRAIN_SHARE * (last - first)).normalize()
    halves = [time_split(table, until, contract.label.delay_days) for table in found]
    early, late = (pd.concat([half[k] for half in halves], ignore_index=True) for k in (0, 1))
    return early, late


def compare(early: pd.DataFrame, late: pd.DataFrame, params: BoostingParameters) -> dict[str, float]:
    """AUC-PR of both layouts, and after how many trees their trees first differ."""
    contract = load_contract(None)
    features = [feature for feature in contract.features if feature.name in early]
    names, grids = [feature.name for feature in features], [feature.grid.edges() for feature in features]
    columns = early[names].to_numpy(dtype=np.float32)
    labels = early["is_fraud"].to_numpy(dtype=np.uint8)
    test = late[names].to_numpy(dtype=np.float32)
    keys = row_keys(early["row_id"].astype(str))

    def alone(step: str, vector: np.ndarray) -> np.ndarray:
        return vector

    cuts = global_bins(columns, labels, grids, params.max_bin, alone, feature_names=names)
    binned = bin_rows(columns, cuts)
    scores: dict[str, float] = {}
    trees: dict[str, list[Tree]] = {}
    for layout in ("wide", "packed"):
        chosen = replace(params, histogram_layout=layout)
        trees[layout] = train_trees(binned, labels, chosen, alone, n_rows_total=len(labels), row_keys=keys)
        margins = predict_margin(trees[layout], test, cuts.base_score(params))
        scores[layout] = float(average_precision_score(late["is_fraud"], margins))
    same = 0
    for ours, theirs in zip(trees["packed"], trees["wide"], strict=True):
        if not np.array_equal(ours.feature, theirs.feature):
            break
        same += 1
    return scores | {"same": same, "rows": len(labels), "frauds": int(labels.sum())}


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="*", help="folders of outside data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33, 34, 35])
    parser.add_argument("--trees", type=int, default=60)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    params = BoostingParameters(n_estimators=options.trees, max_depth=6, eta=0.15, max_bin=64, min_child_weight=2.0)
    screen = Console()
    shown = Table("data", "seed", "rows", "wide", "packed", "difference", "trees until they differ")
    figures = []
    for path in (None, *options.data):
        with tempfile.TemporaryDirectory() as folder:
            halves = None if path is None else tables(load_dataset(path, Path(folder)))
        for seed in options.seeds:
            chosen = params if halves is None else replace(params, subsample=0.8, colsample_bytree=0.8, seed=seed)
            if halves is None:
                with tempfile.TemporaryDirectory() as folder:
                    found = compare(*tables(generate(GeneratorSettings(seed=seed), Path(folder))), chosen)
            else:
                found = compare(*halves, chosen)
            name = "generated" if path is None else path.name
            figures.append({"data": name, "seed": seed} | found)
            difference = found["packed"] - found["wide"]
            shown.add_row(
                name, str(seed), str(found["rows"]), f"{found['wide']:.5f}", f"{found['packed']:.5f}",
                f"{difference:+.5f}", "never" if found["same"] == options.trees else str(found["same"]),
            )  # fmt: skip
            screen.print(f"{name}, seed {seed}: {found}")
    screen.print(shown)
    if options.out:
        report = {"run": provenance(), "trees": options.trees, "figures": figures}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
