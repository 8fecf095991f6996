"""Peer: Flower's bagging of XGBoost trees, in its simulation. Run by peers.py in the peers' environment."""

import json
import sys
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import xgboost
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedXgbBagging
from flwr.simulation import run_simulation
from peer_rows import held_out, settings, site_rows, xgboost_parameters

__all__ = ["client", "main"]

client = ClientApp()


@lru_cache(maxsize=8)
def _matrix(data: str, site: str) -> xgboost.DMatrix:
    """Kept over rounds where Flower keeps the process: reading rows is not what is measured."""
    columns, labels = site_rows(Path(data), site)
    return xgboost.DMatrix(columns, label=labels)


@client.train()
def _one_round(message: Message, context: Context) -> Message:
    """Boost one tree on top of the common model, on this site's rows; send that tree only."""
    config = message.content["config"]
    data = str(config["data"])
    chosen = settings(Path(data))
    rows = _matrix(data, f"site-{int(context.node_config['partition-id']) + 1}")
    # Every round adds a tree of each site: with the whole eta they would step three times as far.
    parameters = xgboost_parameters(chosen, threads=1) | {"eta": chosen["eta"] / chosen["sites"]}
    before = message.content["arrays"]["0"].numpy().tobytes()
    booster = xgboost.Booster(parameters, [rows])
    if before:
        booster.load_model(bytearray(before))
        booster.set_param(parameters)
    known = booster.num_boosted_rounds()
    booster.update(rows, known)
    sent = booster[known : known + 1].save_raw("json")
    return Message(
        RecordDict(
            {
                "arrays": ArrayRecord([np.frombuffer(sent, dtype=np.uint8)]),
                "metrics": MetricRecord({"num-examples": rows.num_row(), "bytes": len(sent)}),
            }
        ),
        reply_to=message,
    )


def main(data: Path, out: Path) -> None:
    """Run the rounds, save the held-out rows' scores and what was measured."""
    chosen = settings(data)
    server = ServerApp()
    measured: dict[str, float] = {}

    @server.main()
    def _serve(grid: Grid, context: Context) -> None:
        strategy = FedXgbBagging(
            fraction_evaluate=0.0, min_train_nodes=chosen["sites"], min_available_nodes=chosen["sites"]
        )
        started = time.perf_counter()
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord([np.frombuffer(b"", dtype=np.uint8)]),
            num_rounds=chosen["trees"],
            train_config=ConfigRecord({"data": str(data)}),
        )
        measured["seconds"] = time.perf_counter() - started
        measured["bytes"] = sum(float(metrics["bytes"]) for metrics in result.train_metrics_clientapp.values())
        (out / "model.json").write_bytes(result.arrays["0"].numpy().tobytes())

    started = time.perf_counter()
    run_simulation(
        server,
        client,
        num_supernodes=chosen["sites"],
        backend_config={"client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}},
    )
    job_seconds = time.perf_counter() - started
    if "seconds" not in measured:
        raise SystemExit("the simulation ended without a model")
    booster = xgboost.Booster(model_file=out / "model.json")
    trees = len(booster.get_dump())
    np.save(out / "scores.npy", booster.predict(xgboost.DMatrix(held_out(data)[0])))
    result = {
        "job_seconds": job_seconds,
        "training_seconds": measured["seconds"],
        "trees": trees,
        "bytes_per_site": int(measured["bytes"]),
        "note": f"eta divided by the number of sites; {trees} trees, one of each site a round",
    }
    if trees != chosen["trees"] * chosen["sites"]:
        raise SystemExit(f"the model has {trees} trees, {chosen['trees'] * chosen['sites']} were asked for")
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    # By its importable name, so that Flower's workers find the client app and keep its cache.
    import peer_flower

    peer_flower.main(Path(sys.argv[1]), Path(sys.argv[2]))
