"""Crossbank itself among the peers: plain, or encrypted over loopback TLS. Run by peers.py in our own environment."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import xgboost

from bank_node.boosting import BoostingParameters
from bank_node.boosting.row_files import BankRows
from simulator.harness.tables import SimulatedTable, auto_grid
from simulator.harness.training import federate
from tests.benchmarks.peer_rows import held_out, settings, site_rows

__all__ = ["main"]


def _first(rows: BankRows) -> BankRows:
    return BankRows(columns=rows.columns[:1000], labels=rows.labels[:1000])


def main(data: Path, out: Path, kind: str) -> None:
    """Train, save the held-out rows' scores and what was measured.

    Args:
        data: folder peers.py wrote.
        out: folder for the results.
        kind: ``plain``, ``wide`` or ``packed``.
    """
    chosen = settings(data)
    train = {}
    for number in range(1, chosen["sites"] + 1):
        columns, labels = site_rows(data, f"site-{number}")
        train[f"site-{number}"] = BankRows(columns=columns, labels=labels)
    pooled = np.concatenate([rows.columns for rows in train.values()])
    names = tuple(f"f{number}" for number in range(pooled.shape[1]))
    table = SimulatedTable(
        feature_names=names,
        grids=tuple(auto_grid(pooled[:, number]) for number in range(len(names))),
        train=train,
        test={site: _first(rows) for site, rows in train.items()},
        in_sample=True,
    )
    params = BoostingParameters.from_mapping(
        {
            "n_estimators": chosen["trees"],
            "max_depth": chosen["depth"],
            "max_bin": chosen["bins"],
            "eta": chosen["eta"],
            "histogram_layout": "packed" if kind == "packed" else "wide",
        }
    )
    # The first use of a kernel compiles it: once on a machine, so before the clock starts.
    few = replace(table, train={site: _first(rows) for site, rows in train.items()})
    federate(few, replace(params, n_estimators=2), out, mode="plain", alert_budget=0.005)
    mode = "plain" if kind == "plain" else "processes"
    results, seconds = federate(table, params, out, mode=mode, alert_budget=0.005)
    model = next(iter(results.values()))["model_json"]
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.encode()))
    np.save(out / "scores.npy", booster.predict(xgboost.DMatrix(held_out(data)[0], feature_names=list(names))))
    result = {
        "job_seconds": seconds["total"],
        "training_seconds": seconds.get("keys", 0.0) + seconds["binning"] + seconds["training"],
        "trees": booster.num_boosted_rounds(),
        "bytes_per_site": max(int(site.get("bytes_sent", 0)) for site in results.values()),
    }
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
