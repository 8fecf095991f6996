"""`simulator tune`: a search among parameter sets over the banks of a table, summed in memory. Prints nothing.

Metrics are integers' sums and the same to the last bit with encryption, so choosing parameters needs none.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bank_node.boosting import BoostingParameters
from protocol.documents import read_mapping
from protocol.errors import ConfigError, CrossbankError
from protocol.run_plan import TuningPlan
from protocol.starting_parameters import STARTING_RUNGS, STARTING_SETS, starting_parameters
from simulator.harness.tables import SimulatedTable
from simulator.harness.training import federate

__all__ = ["DEFAULT_SEARCH", "load_search", "search"]

#: What is tried where no file says.
DEFAULT_SEARCH = TuningPlan(sets=tuple(dict(each) for each in STARTING_SETS), rungs=STARTING_RUNGS)


def load_search(path: Path | None) -> tuple[BoostingParameters, TuningPlan]:
    """Read a YAML file with ``params`` that all sets share, ``sets`` and ``rungs``; each has a default.

    Raises:
        ConfigError: unreadable, or an unknown or wrong key; names the file.
    """
    if path is None:
        return BoostingParameters.from_mapping(starting_parameters(searched=True)), DEFAULT_SEARCH
    document = read_mapping(path, "search")
    common = document.pop("params", None)
    if common is None:
        common = starting_parameters(searched=True)
    if not isinstance(common, dict):
        raise ConfigError(f"search {path}: params must be a mapping")
    try:
        params = BoostingParameters.from_mapping(common)
        tuning = TuningPlan.of({"sets": DEFAULT_SEARCH.sets, "rungs": DEFAULT_SEARCH.rungs} | document)
        tuning.parameters(params)
    except CrossbankError as error:
        raise ConfigError(f"search {path}: {error}") from error
    return params, tuning


def search(
    table: SimulatedTable,
    params: BoostingParameters,
    tuning: TuningPlan,
    out: Path,
    *,
    alert_budget: float = 0.005,
    on_score: Callable[[int, int, float], None] = lambda number, rung, score: None,
) -> dict[str, Any]:
    """Search, and write ``tuning.json``, ``tuning.svg``, ``best.yaml`` and ``model.json`` into `out`.

    A search that was stopped goes on with what it left in `out`, after its last whole tree.

    Args:
        table: the cut table, with validation rows.
        params: what all sets share.
        tuning: the sets and rungs.
        out: folder for the results; made if missing.
        alert_budget: share of rows for recall at budget.
        on_score: told each score as it comes: the set's number, the rung's number, the score.

    Returns:
        What ``tuning.json`` has.

    Raises:
        ConfigError: there are no validation rows, or `out` holds another search.
    """
    if not table.validation:
        raise ConfigError("a search needs validation rows: give --validate-from or --validation-share")
    out.mkdir(parents=True, exist_ok=True)
    mark = out / "search.sha256"
    digest = _digest(table, params, tuning)
    if mark.exists() and mark.read_text() != digest:
        raise ConfigError(f"{out} holds another search, of other sets, rungs or rows: choose another --out")
    mark.write_text(digest)
    results, seconds = federate(
        table, params, out, mode="plain", alert_budget=alert_budget, tuning=tuning, on_score=on_score, resume=True
    )
    first = next(iter(results.values()))
    report: dict[str, Any] = first["tuning"] | {
        "common": params.to_mapping(),
        "model_sha256": first["model_sha256"],
        "test": first["consortium"],
        "seconds": round(seconds["total"], 3),
    }
    best = report["sets"][report["best"]]["params"]
    usual = BoostingParameters().to_mapping()
    given = {name: value for name, value in params.to_mapping().items() if value != usual[name]}
    (out / "best.yaml").write_text(
        yaml.safe_dump(given | BoostingParameters.canonical(best) | {"n_estimators": tuning.rungs[-1]})
    )
    (out / "model.json").write_text(first["model_json"])
    (out / "tuning.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot(report, out / "tuning.svg")
    shutil.rmtree(out / "work", ignore_errors=True)
    return report


def _digest(table: SimulatedTable, params: BoostingParameters, tuning: TuningPlan) -> str:
    text = json.dumps([params.to_mapping(), tuning.model_dump(mode="json"), table.fingerprint], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for part in (table.train, table.validation):
        for bank, rows in sorted(part.items()):
            digest.update(f"{bank} {rows.columns.shape}".encode())
            for values in (rows.columns, rows.labels, rows.weights, rows.keys):
                digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for number, each in enumerate(report["sets"]):
        best = number == report["best"]
        label = ", ".join(f"{name} {value}" for name, value in each["params"].items())
        axis.plot(
            report["rungs"][: len(each["scores"])],
            each["scores"],
            marker="o",
            color="#c2410c" if best else "#9aa5b1",
            linewidth=2 if best else 1,
            zorder=2 if best else 1,
            label=f"best: {label}" if best else None,
        )
    axis.set_xlabel("trees")
    axis.set_ylabel({"aucpr": "AUC-PR", "logloss": "minus log-loss"}[report["metric"]] + " on validation rows")
    axis.legend(loc="lower right")
    figure.savefig(path)
    pyplot.close(figure)
