"""Peer: NVIDIA FLARE's histogram XGBoost without HE, in its simulator. Run by peers.py in the peers' environment."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import xgboost
from nvflare.app_opt.xgboost.recipes.histogram import XGBHorizontalRecipe
from nvflare.recipe import SimEnv
from peer_flare_rows import SiteRows
from peer_rows import held_out, settings, xgboost_parameters

__all__ = ["main"]


def main(data: Path, out: Path) -> None:
    """Train over the sites, save the held-out rows' scores and what was measured."""
    chosen = settings(data)
    sites = [f"site-{number}" for number in range(1, chosen["sites"] + 1)]
    stamps = out / "stamps"
    stamps.mkdir(parents=True)
    recipe = XGBHorizontalRecipe(
        name="peers",
        min_clients=len(sites),
        num_rounds=chosen["trees"],
        early_stopping_rounds=0,
        xgb_params=xgboost_parameters(chosen, threads=1) | {"eval_metric": "logloss"},
        per_site_config={site: {"data_loader": SiteRows(data=str(data), stamps=str(stamps))} for site in sites},
    )
    started = time.perf_counter()
    run = recipe.execute(SimEnv(clients=sites, workspace_root=str(out / "flare")))
    job_seconds = time.perf_counter() - started
    models = sorted(Path(run.get_result() or out / "flare").rglob("model.json"))
    if not models:
        raise SystemExit("the job ended and left no model")
    booster = xgboost.Booster(model_file=models[0])
    columns, _ = held_out(data)
    np.save(out / "scores.npy", booster.predict(xgboost.DMatrix(columns)))
    # Training: from the last site's rows being read to the first model being written.
    began = max(stamp.stat().st_mtime for stamp in stamps.iterdir())
    result = {
        "job_seconds": job_seconds,
        "training_seconds": models[0].stat().st_mtime - began,
        "trees": booster.num_boosted_rounds(),
        "note": "start-up of FLARE's processes is in the whole job's seconds only",
    }
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
