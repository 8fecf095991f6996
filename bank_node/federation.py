"""One bank's way through a run, on arrays: bins, boosting, evaluation, vote. No files but the run's folder.

The consortium is reached only through a `Consortium`: a secure sum and phase reports. `RunSession` is the real one.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bank_node.boosting import (
    BoostingParameters,
    Cuts,
    Tree,
    bin_rows,
    cuts_from_bytes,
    cuts_to_bytes,
    export_booster,
    global_bins,
    predict_margin,
    train_trees,
    trees_from_bytes,
    trees_to_bytes,
)
from bank_node.evaluation import RankingMetrics, rank_metrics, secure_metrics
from bank_node.files import write_atomic
from protocol.run_state import Phase

__all__ = ["BankRows", "Consortium", "FederatedModel", "evaluate_model", "train_model"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Log = Callable[[str], None]


class Consortium(Protocol):
    """What training needs of the other banks."""

    def secure_sum(self, step: str, vector: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The exact sum over all banks."""
        ...

    def report(self, phase: Phase, digest: str, *, metrics_json: str = "") -> None:
        """Say that a phase ended with this digest; returns when all banks agree."""
        ...

    def reached(self, phase: Phase) -> bool:
        """Whether the run is at a phase or beyond."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRows:
    """One bank's rows: float32 (n, features) row-major with NaN for missing, and labels (n,) 0 or 1."""

    columns: Floats
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedModel:
    """What training ends with."""

    trees: list[Tree]
    cuts: Cuts
    base_score: float
    model_json: bytes
    seconds: dict[str, float]

    @property
    def sha256(self) -> str:
        """The digest that every bank must agree on."""
        return hashlib.sha256(self.model_json).hexdigest()

    def margins(self, columns: Floats) -> npt.NDArray[np.float32]:
        """Log-odds of rows, as the exported Booster gives them."""
        return predict_margin(self.trees, columns, self.base_score)


def train_model(
    rows: BankRows,
    feature_names: Sequence[str],
    grids: Sequence[npt.NDArray[np.float64]],
    params: BoostingParameters,
    consortium: Consortium,
    run_dir: Path,
    log: Log,
) -> FederatedModel:
    """Bins, then boosting in lockstep; checkpoints in `run_dir` after every round, and goes on from them.

    Returns:
        The model, byte-identical at every bank.
    """
    frauds = int(np.count_nonzero(rows.labels))
    if frauds == 0:
        log(f"warning: none of this bank's {len(rows.labels)} training rows is a fraud; it still helps with the others")
    seconds: dict[str, float] = {}
    started = perf_counter()
    bins_path, trees_path = run_dir / "bins.npz", run_dir / "trees.npz"
    if bins_path.exists():
        cuts = cuts_from_bytes(bins_path.read_bytes())
    else:
        cuts = global_bins(rows.columns, rows.labels, grids, params.max_bin, consortium.secure_sum)
        write_atomic(bins_path, cuts_to_bytes(cuts))
    if not consortium.reached(Phase.TRAINING):
        consortium.report(Phase.BINNING, hashlib.sha256(cuts_to_bytes(cuts)).hexdigest())
    log(f"bins agreed: {cuts.total_bins} bins over {len(feature_names)} features, {cuts.n_rows_total} rows in all")
    seconds["binning"] = perf_counter() - started

    started = perf_counter()
    done = trees_from_bytes(trees_path.read_bytes()) if trees_path.exists() else []
    if done:
        log(f"going on after boosting round {len(done)} of {params.n_estimators}")
    kept = list(done)
    every = max(1, params.n_estimators // 10)

    def on_round(index: int, tree: Tree) -> None:
        kept.append(tree)
        write_atomic(trees_path, trees_to_bytes(kept))
        if (index + 1) % every == 0 or index + 1 == params.n_estimators:
            log(f"boosting round {index + 1} of {params.n_estimators} ({perf_counter() - started:.1f} s)")

    binned = bin_rows(rows.columns, cuts)
    base_score = cuts.base_score(params)
    trees = train_trees(
        binned,
        rows.labels,
        params,
        consortium.secure_sum,
        n_rows_total=cuts.n_rows_total,
        base_score=base_score,
        resume=done,
        on_round=on_round,
    )
    model_json = export_booster(trees, cuts, params, list(feature_names), base_score)
    model = FederatedModel(trees=trees, cuts=cuts, base_score=base_score, model_json=model_json, seconds=seconds)
    write_atomic(run_dir / "model.json", model_json)
    if not consortium.reached(Phase.EVALUATING):
        consortium.report(Phase.TRAINING, model.sha256)
    seconds["training"] = perf_counter() - started
    log(f"model {model.sha256[:12]}: {len(trees)} trees, the same at every bank")
    return model


def evaluate_model(
    model: FederatedModel, rows: BankRows, alert_budget: float, consortium: Consortium
) -> tuple[RankingMetrics, RankingMetrics]:
    """The consortium's metrics by secure sum, and this bank's own, on rows not trained on."""
    margins = model.margins(rows.columns)
    own = rank_metrics(rows.labels, margins, alert_budget)
    everyone = secure_metrics(rows.labels, margins, alert_budget, consortium.secure_sum)
    if not consortium.reached(Phase.VOTING):
        published = json.dumps(everyone.to_mapping(), sort_keys=True)
        consortium.report(Phase.EVALUATING, hashlib.sha256(published.encode()).hexdigest(), metrics_json=published)
    return everyone, own
