"""The benchmark: secure and plain federated training against pooled XGBoost, in one run on one machine."""

import json
import os
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import xgboost
from rich.console import Console
from rich.table import Table

from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.boosting.xgboost_settings import xgboost_settings
from bank_node.warm_up import warm_up
from simulator.benchmarks.kernels import SAME_WORK, kernel_seconds, xgboost_seconds
from simulator.harness.measuring import provenance
from simulator.harness.tables import SimulatedTable, auto_grid
from simulator.harness.training import federate

__all__ = ["bench", "make_rows"]


def make_rows(banks: int, rows: int, features: int, seed: int) -> SimulatedTable:
    """Random rows with a nonlinear, noisy signal and 2 % missing values; about 3 % positives."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=features)
    train = {}
    for bank in range(banks):
        columns = rng.normal(size=(rows, features)).astype(np.float32)
        signal = columns @ weights * 0.3 + np.sin(2 * columns[:, 0]) * columns[:, 1] + rng.normal(size=rows)
        labels = (signal > 3.4).astype(np.uint8)
        columns[rng.random(columns.shape) < 0.02] = np.nan
        train[f"bank_{bank + 1}"] = BankRows(columns=columns, labels=labels)
    everything = np.concatenate([part.columns for part in train.values()])
    return SimulatedTable(
        feature_names=tuple(f"f{i}" for i in range(features)),
        grids=tuple(auto_grid(everything[:, i]) for i in range(features)),
        train=train,
        test=train,
        in_sample=True,
    )


def _pooled(table: SimulatedTable, params: BoostingParameters, threads: int) -> float:
    rows = table.pooled(table.train)
    started = perf_counter()
    matrix = xgboost.QuantileDMatrix(rows.columns, label=rows.labels, max_bin=params.max_bin, nthread=threads)
    xgboost.train(xgboost_settings(params) | {"nthread": threads}, matrix, num_boost_round=params.n_estimators)
    return perf_counter() - started


def bench(
    out: Path, *, banks: int = 3, rows: int = 100_000, features: int = 30, trees: int = 50, repeats: int = 3
) -> dict[str, Any]:
    """Run and print the benchmark; times are wall-clock seconds, the comparison is in ratios.

    Federated times are the whole run from key exchange to the end of training, all banks and the aggregator on this
    machine's cores; starting the processes and compiling kernels (cached) are shown apart.
    """
    screen = Console()
    threads = os.cpu_count() or 1
    screen.print(
        f"{banks} banks x {rows} rows x {features} features x 64 bins, {trees} trees, depth 6, {threads} cores"
    )
    table = make_rows(banks, rows, features, seed=7)
    params = BoostingParameters.from_mapping({"n_estimators": trees, "max_depth": 6, "eta": 0.1, "max_bin": 64})
    # Before anything is timed.
    compile_seconds = warm_up()
    packed = BoostingParameters.from_mapping(params.to_mapping() | {"histogram_layout": "packed"})
    names = ("pooled XGBoost", "plain federated", "secure federated, exact", "secure federated, packed")
    times: dict[str, list[float]] = {name: [] for name in names}
    details: dict[str, dict[str, float]] = {}
    sent: dict[str, int] = {}
    checking: dict[str, float] = {}
    peak: dict[str, int] = {}
    for turn in range(repeats):
        times[names[0]].append(_pooled(table, params, threads))
        _, seconds = federate(table, params, out, mode="plain", alert_budget=0.005)
        times[names[1]].append(seconds["binning"] + seconds["training"])
        for name, chosen in ((names[2], params), (names[3], packed)):
            results, seconds = federate(table, chosen, out, mode="processes", alert_budget=0.005)
            times[name].append(seconds["keys"] + seconds["binning"] + seconds["training"])
            details[name] = seconds
            whole = max(r["seconds"]["binning"] + r["seconds"]["training"] for r in results.values())
            checking[name] = max(r["checking_seconds"] for r in results.values()) / whole
            sent[name] = max(int(result["bytes_sent"]) for result in results.values())
            peak[name] = max(int(result["peak_bytes"]) for result in results.values())
        screen.print(f"repeat {turn + 1}: " + ", ".join(f"{name} {times[name][-1]:.2f} s" for name in names))
    binned = rows * features
    base = times[names[0]]
    ratios = {name: median(t / b for t, b in zip(times[name], base, strict=True)) for name in names}
    shown = Table("", "seconds (median)", "ratio to pooled XGBoost (median of pairs)")
    for name in names:
        shown.add_row(name, f"{median(times[name]):.2f}", f"{ratios[name]:.2f}")
    screen.print(shown)
    for name, size in sent.items():
        screen.print(f"{name}: {size / trees / 1e6:.2f} MB sent per bank and tree")
    for name, share in checking.items():
        screen.print(f"{name}: MACs, witnesses, signatures and states take {share:.1%} of a bank's training time")
    for name, size in peak.items():
        screen.print(f"{name}: {size / 1e6:.0f} MB of memory at most in a bank; its binned rows are {binned / 1e6:.0f}")
    kernels = _kernels(screen, table, params, packed)
    screen.print(f"first use of the kernels (compiling, or reading the cache): {compile_seconds:.1f} s, not counted")
    for name, phases in details.items():
        screen.print(f"{name}, by phase: " + ", ".join(f"{k} {v:.2f} s" for k, v in phases.items()))
    report = {
        "run": provenance(),
        "banks": banks,
        "rows_per_bank": rows,
        "features": features,
        "trees": trees,
        "seconds": times,
        "ratio_to_pooled": ratios,
        "checking_share": checking,
        "peak_bytes_of_a_bank": peak,
        "binned_bytes_of_a_bank": binned,
        "kernel_seconds": kernels,
        "bytes_per_bank_and_tree": {name: size / trees for name, size in sent.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _kernels(
    screen: Console, table: SimulatedTable, params: BoostingParameters, packed: BoostingParameters
) -> dict[str, dict[str, float]]:
    """Times and prints the kernels on one core."""
    theirs = xgboost_seconds(table, params)
    ours = {"exact": kernel_seconds(table, params), "packed": kernel_seconds(table, packed)}
    shown = Table(
        "one core, seconds", "XGBoost", *ours, title="kernels on all rows; ratio to XGBoost's part in brackets"
    )
    for their_name, name in SAME_WORK.items():
        base = theirs[their_name]
        cells = [f"{seconds[name]:.2f} ({seconds[name] / base:.2f})" for seconds in ours.values()]
        shown.add_row(f"{name} / {their_name}", f"{base:.2f}", *cells)
    shown.add_row("finish_tree", "", *(f"{seconds['finish_tree']:.2f}" for seconds in ours.values()))
    whole = [f"{seconds['training']:.2f} ({seconds['training'] / theirs['training']:.2f})" for seconds in ours.values()]
    shown.add_row("training", f"{theirs['training']:.2f}", *whole)
    screen.print(shown)
    return ours | {"xgboost": theirs}
