"""Peer: plain XGBoost, on all sites' rows pooled or on each site's own. Run by peers.py in the peers' environment."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import xgboost
from peer_rows import held_out, settings, site_rows, xgboost_parameters

__all__ = ["main"]


def main(data: Path, out: Path, kind: str) -> None:
    """Train, save the held-out rows' scores (one row of scores per model) and what was measured."""
    chosen = settings(data)
    parts = [site_rows(data, f"site-{number}") for number in range(1, chosen["sites"] + 1)]
    if kind == "pooled":
        parts = [(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))]
    parameters = xgboost_parameters(chosen, threads=chosen["threads"])
    matrices = [xgboost.DMatrix(held_out(data)[0])]
    started = time.perf_counter()
    boosters = []
    for columns, labels in parts:
        rows = xgboost.QuantileDMatrix(columns, label=labels, max_bin=chosen["bins"], nthread=chosen["threads"])
        boosters.append(xgboost.train(parameters, rows, chosen["trees"]))
    seconds = time.perf_counter() - started
    np.save(out / "scores.npy", np.stack([booster.predict(matrices[0]) for booster in boosters]))
    result = {"job_seconds": seconds, "training_seconds": seconds, "trees": chosen["trees"], "bytes_per_site": 0}
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
