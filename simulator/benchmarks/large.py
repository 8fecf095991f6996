"""The large benchmark: a consortium's generated payments from nothing to an encrypted model. It compares with nothing.

Every phase leaves files, and a phase whose files are there is not repeated. Each bank's tables and features are made
one bank after the other, each in a process of its own, so that memory stays bounded by the largest bank; training maps
the features from disk.
"""

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from bank_node.files import write_atomic
from features import DataContract, extract_features, load_contract
from protocol.errors import ConfigError
from protocol.messages import RunView
from simulator.generator import GeneratorSettings, bank_names, generate
from simulator.harness.measuring import available_bytes, peak_bytes, processor_seconds, provenance
from simulator.harness.processes import AggregatorProcess
from simulator.harness.training import federate_saved, the_model
from simulator.harness.worker import BankJob, save_job

__all__ = ["bench_large"]

_DAYS = 120
_PAYMENTS_OF_A_CUSTOMER = 85.0
"""Outgoing payments in that time, a little less than on average: millions are rather more than asked for."""
_SEED = 7

Figures = dict[str, Any]


def bench_large(
    out: Path,
    *,
    banks: int = 13,
    rows: int = 10_000_000,
    features: int = 40,
    trees: int = 100,
    layout: str = "packed",
    say: Callable[[str], None] | None = None,
) -> Figures:
    """Generate, make features, train encrypted, print; the figures also go to ``large.json``.

    Args:
        out: the folder; payments and features stay there for the next time.
        banks: 3 at least.
        rows: outgoing payments of all banks, about so many.
        features: the first so many of the packaged contract's own ones.
        trees: boosting rounds, depth 6, 64 bins.
        layout: ``packed`` or ``wide``.
        say: told what is under way.

    Returns:
        Seconds and largest memory of each phase, and where the banks' and the node's processor time went.

    Raises:
        ConfigError: the folder holds a benchmark of another size.
    """
    screen = Console()
    tell = say or screen.print
    contract = _contract(features)
    params = BoostingParameters.from_mapping(
        {"n_estimators": trees, "max_depth": 6, "eta": 0.1, "max_bin": 64, "histogram_layout": layout}
    )
    if banks < 3:
        raise ConfigError(f"{banks} banks; the benchmark needs three, as a run does")
    settings = GeneratorSettings(
        banks=banks,
        customers=max(20 * banks, math.ceil(rows / _PAYMENTS_OF_A_CUSTOMER)),
        merchants=max(50, math.ceil(rows / _PAYMENTS_OF_A_CUSTOMER / 3)),
        days=_DAYS,
        seed=_SEED,
    )
    _claim(out, {"banks": banks, "rows": rows, "features": list(contract.feature_names), "seed": _SEED})
    made = _phase(out / "generated.json", tell, "generating payments", _generate, settings, out / "banks")
    folders = {bank: out / "banks" / bank for bank in bank_names(banks)}
    extracted = {
        bank: _phase(folder / "features.json", tell, f"features of {bank}", _extract, contract, bank, folder)
        for bank, folder in folders.items()
    }
    n_rows = sum(figures["rows"] for figures in extracted.values())
    tell(f"training on {n_rows:,} rows of {banks} banks, {features} features, {trees} trees, {layout}")
    trained = _train(folders, params, out, contract.alert_budget, tell)
    report = {
        "run": provenance(),
        "banks": banks,
        "rows": n_rows,
        "frauds": sum(figures["frauds"] for figures in extracted.values()),
        "rows_of_largest_bank": max(figures["rows"] for figures in extracted.values()),
        "features": features,
        "trees": trees,
        "layout": layout,
        "cores": os.cpu_count(),
        "generate": made,
        "extract": {
            "seconds": sum(figures["seconds"] for figures in extracted.values()),
            "peak_bytes": max(figures["peak_bytes"] for figures in extracted.values()),
        },
        "train": trained,
    }
    write_atomic(out / "large.json", (json.dumps(report, indent=2) + "\n").encode())
    _show(screen, report)
    return report


def _contract(features: int) -> DataContract:
    """The packaged contract with the first of its features that a bank makes alone."""
    whole = load_contract(None)
    if not 1 <= features <= len(whole.local_names):
        raise ConfigError(
            f"{features} features; the packaged contract has {len(whole.local_names)} that a bank makes alone"
        )
    names = whole.local_names[:features]
    chosen = tuple(feature for feature in whole.features if feature.name in names)
    return whole.model_copy(update={"features": chosen, "shared_risk": None})


def _claim(out: Path, what: Figures) -> None:
    """Say what the folder is for, so that files of another size are not taken for ours."""
    path = out / "size.json"
    if path.exists() and json.loads(path.read_text()) != what:
        raise ConfigError(f"{out} holds a benchmark of another size: delete it, or name another folder by --out")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(what).encode())


def _phase(done: Path, tell: Callable[[str], None], words: str, work: Callable[..., Figures], *given: Any) -> Figures:
    """Run a phase in a process of its own, unless it was; `done` has its figures."""
    if done.exists():
        tell(f"{words}: done before")
        return dict(json.loads(done.read_text()))
    started = perf_counter()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = pool.submit(work, *given).result()
    figures["seconds"] = perf_counter() - started
    write_atomic(done, json.dumps(figures).encode())
    tell(f"{words}: {figures['seconds']:.1f} s, at most {figures['peak_bytes'] / 1e6:,.0f} MB")
    return figures


def _generate(settings: GeneratorSettings, folder: Path) -> Figures:
    generate(settings, folder)
    return {"peak_bytes": peak_bytes()}


def _extract(contract: DataContract, bank: str, folder: Path) -> Figures:
    table = extract_features(contract, folder / "events.parquet")
    columns = np.empty((len(table), len(contract.feature_names)), dtype=np.float32)
    for place, name in enumerate(contract.feature_names):
        columns[:, place] = table[name].to_numpy()
    labels = (table["is_fraud"].to_numpy() > 0.5).astype(np.uint8)
    rows = BankRows(columns=columns, labels=labels)
    save_job(
        BankJob(
            bank=bank,
            folder=folder,
            feature_names=contract.feature_names,
            grids=tuple(feature.grid.edges() for feature in contract.features),
            train=rows,
            test=rows,
        )
    )
    return {"peak_bytes": peak_bytes(), "rows": len(labels), "frauds": int(labels.sum())}


def _train(
    folders: Mapping[str, Path],
    params: BoostingParameters,
    out: Path,
    alert_budget: float,
    tell: Callable[[str], None],
) -> Figures:
    node: Figures = {}
    before = lowest = available_bytes()
    told = 0

    def on_progress(view: RunView) -> None:
        nonlocal lowest, told
        lowest = min(lowest, available_bytes())
        if view.rounds_done >= told + 10:
            told = view.rounds_done
            tell(f"boosting round {told} of {params.n_estimators} ({perf_counter() - started:.0f} s)")

    def on_end(process: AggregatorProcess) -> None:
        node.update(peak_bytes=peak_bytes(process.pid), processor_seconds=processor_seconds(process.pid))

    started = perf_counter()
    results, seconds = federate_saved(
        dict(folders), params, out, alert_budget=alert_budget, on_progress=on_progress, on_end=on_end
    )
    (out / "model.json").write_text(the_model(results)["model_json"])
    kinds = next(iter(results.values()))["work"]
    return {
        "seconds": seconds,
        "model_sha256": next(iter(results.values()))["model_sha256"],
        "auc_pr_on_training_rows": next(iter(results.values()))["consortium"]["auc_pr"],
        "peak_bytes_of_a_bank": max(int(result["peak_bytes"]) for result in results.values()),
        "peak_bytes_of_the_node": node["peak_bytes"],
        "peak_bytes_of_the_machine": max(0, before - lowest),
        "bytes_sent_of_a_bank": max(int(result["bytes_sent"]) for result in results.values()),
        "node_processor_seconds": node["processor_seconds"],
        "bank_seconds": {kind: [result["work"][kind] for result in results.values()] for kind in kinds},
    }


def _show(screen: Console, report: Figures) -> None:
    train, made, extract = report["train"], report["generate"], report["extract"]
    phases = [("generate payments", made["seconds"], made["peak_bytes"])]
    phases.append(("features, one bank after the other", extract["seconds"], extract["peak_bytes"]))
    phases += [(name, value, None) for name, value in train["seconds"].items() if name != "total"]
    shown = Table(
        f"{report['banks']} banks, {report['rows']:,} rows, {report['features']} features, {report['trees']} trees, "
        f"{report['layout']}, {report['cores']} cores",
        "seconds",
        "largest memory of a process, MB",
    )
    for name, seconds, peak in phases:
        shown.add_row(name, f"{seconds:.1f}", "" if peak is None else f"{peak / 1e6:,.0f}")
    screen.print(shown)
    banks = train["bank_seconds"]
    work = Table("processor seconds while training and evaluating", "all banks", "the busiest bank")
    for kind in banks:
        if kind not in ("waiting in sums", "sums"):
            work.add_row(kind, f"{sum(banks[kind]):.1f}", f"{max(banks[kind]):.1f}")
    work.add_row("the node, whole", f"{train['node_processor_seconds']:.1f}", "")
    screen.print(work)
    waits = banks["waiting in sums"]
    screen.print(
        f"a bank waits {min(waits):.0f} to {max(waits):.0f} s in {max(banks['sums']):.0f} sums; sends "
        f"{train['bytes_sent_of_a_bank'] / report['trees'] / 1e6:.2f} MB a tree"
    )
    screen.print(
        f"largest memory: a bank {train['peak_bytes_of_a_bank'] / 1e6:,.0f} MB (its rows mapped from disk included), "
        f"the node {train['peak_bytes_of_the_node'] / 1e6:,.0f} MB, all together "
        f"{train['peak_bytes_of_the_machine'] / 1e6:,.0f} MB"
    )
    screen.print(
        f"model {train['model_sha256'][:12]}, AUC-PR on its training rows {train['auc_pr_on_training_rows']:.3f}"
    )
