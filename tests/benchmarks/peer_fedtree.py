"""Peer: FedTree, horizontal, plain or under its Paillier encryption. Run by peers.py in FedTree's environment."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from fedtree import FLClassifier
from peer_rows import held_out, settings, site_rows

__all__ = ["main"]


def main(data: Path, out: Path, privacy: str) -> None:
    """Train over parties FedTree cuts itself, save the held-out rows' scores and what was measured.

    Args:
        data: folder peers.py wrote.
        out: folder for the results.
        privacy: ``none`` or ``he``.
    """
    chosen = settings(data)
    parts = [site_rows(data, f"site-{number}") for number in range(1, chosen["sites"] + 1)]
    columns = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    model = FLClassifier(
        n_parties=chosen["sites"],
        mode="horizontal",
        partition_mode="horizontal",
        privacy_tech=privacy,
        max_depth=chosen["depth"],
        n_trees=chosen["trees"],
        learning_rate=chosen["eta"],
        max_num_bin=chosen["bins"],
        gamma=0,
        objective="binary:logistic",
        verbose=0,
    )
    started = time.perf_counter()
    model.fit(columns, labels)
    seconds = time.perf_counter() - started
    np.save(out / "scores.npy", np.asarray(model.predict_proba(held_out(data)[0]))[:, 1])
    note = "all parties in one process; it cuts the rows into parties itself; nothing crosses a network"
    result = {"job_seconds": seconds, "training_seconds": seconds, "trees": chosen["trees"], "note": note}
    (out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
