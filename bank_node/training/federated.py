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

import numpy as np
import numpy.typing as npt

from bank_node.boosting import (
    BoostingParameters,
    Cuts,
    ReadModel,
    Tree,
    bin_rows,
    cuts_from_bytes,
    cuts_to_bytes,
    export_booster,
    kept_trees,
    predict_margin,
    read_booster,
    stops,
    trees_to_bytes,
)
from bank_node.boosting.binning import agreed_bins, bin_counts
from bank_node.boosting.dask_rows import DaskShards
from bank_node.boosting.grower import grow_trees, local_rows
from bank_node.boosting.local_rows import RowStore
from bank_node.boosting.row_files import BankRows
from bank_node.boosting.stopping import Judge
from bank_node.boosting.structure import Propose, code_length
from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.evaluation.early_stopping import ValidationJudge
from bank_node.files import write_atomic
from bank_node.training.checkpoint import TreeFile
from protocol.errors import LocalError
from protocol.field import HALF
from protocol.run_state import Phase
from protocol.steps import Point, Step

__all__ = [
    "BankRows",
    "Beginning",
    "FederatedModel",
    "train_model",
]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where binning begins, if steps came before it, and who looks at its counts.

    Attributes:
        anchor: the point up to which all is agreed.
        unit: number of the unit of steps that binning is.
        on_bins: told our counts of the binning step and the sum; may make more sums, named ``bins/<unit>/<word>``;
            gives a line for the operator.
    """

    anchor: str = Point.keys().text
    unit: int = 0
    on_bins: Callable[[Counts, Counts], str] = lambda ours, total: ""


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
    *,
    beginning: Beginning = Beginning(),  # noqa: B008  frozen
    validation: BankRows | None = None,
    warm: bytes = b"",
    shards: DaskShards | None = None,
) -> FederatedModel:
    """Bins, then boosting in lockstep; checkpoints in `run_dir` after every round, and goes on from them.

    Args:
        rows: the bank's own, may be none.
        feature_names: names of the columns.
        grids: the fine grid of each feature, from the data contract.
        params: the run's.
        consortium: the other banks.
        run_dir: where the run's files are kept.
        log: told of progress.
        validation: rows not trained on, for early stopping; may be none here as long as other banks have some.
        warm: the released model that `params.warm_start` names.
        shards: the same rows spread over workers, which do all that is done with rows; without, this process does.

    Returns:
        The model, byte-identical at every bank.

    Raises:
        ParameterError: the parameters name a feature that is not trained on.
        LocalError: the model to go on from is missing, or has other features.
    """
    params.check_features(feature_names)
    before = _read_warm(params, warm, feature_names)
    frauds = int(np.count_nonzero(rows.labels))
    if frauds == 0:
        log(f"warning: none of this bank's {len(rows.labels)} training rows is a fraud; it still helps with the others")
    seconds: dict[str, float] = {}
    started = perf_counter()
    bins_path, turns_path = run_dir / "bins.npz", run_dir / "turns.json"

    def agree_on_bins() -> Cuts:
        detail = ""
        if bins_path.exists():
            found = cuts_from_bytes(bins_path.read_bytes())
        else:
            consortium.rewind(beginning.anchor)
            seen: list[tuple[Counts, Counts]] = []

            def counting(step: str, vector: Counts) -> Counts:
                seen.append((vector, consortium.secure_sum(step, vector)))
                return seen[-1][1]

            kinds = [name in params.categorical_features for name in feature_names]
            if shards is None:
                counts = bin_counts(
                    rows.columns,
                    rows.labels,
                    grids,
                    feature_names=feature_names,
                    categorical=kinds,
                    weights=rows.weights,
                )
            else:
                counts = shards.bin_counts(grids, feature_names, kinds)
            found = agreed_bins(
                counts,
                grids,
                params.max_bin,
                counting,
                feature_names=feature_names,
                categorical=kinds,
                step=Step.bins(beginning.unit, 0).text,
            )
            detail = beginning.on_bins(*seen[0])
            if params.structure == "local":
                from bank_node.training.proposing import agree_on_proposers

                step = Step.bins(beginning.unit, "turns").text
                able = agree_on_proposers(consortium.members, consortium.bank, rows.labels, consortium.secure_sum, step)
                write_atomic(turns_path, json.dumps(able).encode())
                detail = f"{detail}; {len(able)} banks propose trees in turn".removeprefix("; ")
            consortium.commit(Point.trees(0).text, hashlib.sha256(cuts_to_bytes(found)).hexdigest())
            write_atomic(bins_path, cuts_to_bytes(found))
        if not consortium.reported(Phase.BINNING):
            consortium.report(Phase.BINNING, hashlib.sha256(cuts_to_bytes(found)).hexdigest(), detail=detail)
        return found

    cuts = whatever_the_roster(consortium, agree_on_bins, log)
    if shards is not None:
        log(f"rows in {shards.n_shards} shards on Dask workers")
    log(f"bins agreed: {cuts.total_bins} bins over {len(feature_names)} features, {cuts.n_rows_total} rows in all")
    seconds["binning"] = perf_counter() - started

    started = perf_counter()
    file = TreeFile(run_dir / "trees.bin")
    kept = file.trees
    if kept:
        log(f"going on after boosting round {len(kept)} of {params.n_estimators}")
    every = max(1, params.n_estimators // 10)

    def on_round(index: int, tree: Tree) -> None:
        # The anchor first: a tree in the checkpoint always has its anchor.
        body = trees_to_bytes([tree])
        consortium.commit(Point.trees(index + 1).text, hashlib.sha256(body).hexdigest())
        file.append(tree, body)
        if (index + 1) % every == 0 or index + 1 == params.n_estimators:
            log(f"boosting round {index + 1} of {params.n_estimators} ({perf_counter() - started:.1f} s)")

    base_score = cuts.base_score(params) if before is None else before.base_score

    def margins_before(columns: Floats) -> npt.NDArray[np.float32]:
        return predict_margin(() if before is None else before.trees, columns, base_score)

    def judge() -> Judge | None:
        if not params.early_stopping_rounds:
            return None
        judged = validation or BankRows(columns=rows.columns[:0], labels=rows.labels[:0])
        start = margins_before(judged.columns)
        found = ValidationJudge(judged.columns, judged.labels, start, params.eval_metric, consortium.secure_sum)
        found.follow(kept)
        return found

    def proposals() -> Propose | None:
        if params.structure == "global":
            return None
        from bank_node.training.proposing import Proposer, whose_turn

        able = tuple(json.loads(turns_path.read_bytes()))
        proposer = Proposer(
            rows.columns, rows.labels, cuts, params, margins_before(rows.columns), rows.weights, rows.keys
        )
        none = np.zeros(code_length(params), dtype=np.int64)

        def propose(round_index: int, trees: Sequence[Tree]) -> Counts:
            ours = whose_turn(able, consortium.members, round_index) == consortium.bank
            return proposer(round_index, trees) if ours else none

        return propose

    def boost() -> list[Tree]:
        if len(kept) == params.n_estimators or stops(kept, params):
            return kept_trees(kept, params)
        consortium.rewind(Point.trees(len(kept)).text)

        def bounded(step: str, vector: Counts) -> Counts:
            # Each bank's magnitudes, and so the totals, stay below 2**57 by the choice of units.
            return consortium.secure_sum(step, vector, bound=HALF)

        store: RowStore
        if shards is not None:
            store = shards.store(cuts, params, None if before is None else (before.trees, before.base_score))
        else:
            store = local_rows(
                bin_rows(rows.columns, cuts),
                rows.labels,
                params,
                weights=rows.weights,
                row_keys=rows.keys,
                start=None if before is None else margins_before(rows.columns),
            )
        return grow_trees(
            store,
            cuts,
            params,
            bounded,
            n_rows_total=cuts.n_rows_total,
            base_score=base_score,
            resume=list(kept),
            on_round=on_round,
            warm=before is not None,
            judge=judge(),
            propose=proposals(),
        )

    try:
        trees = whatever_the_roster(consortium, boost, log)
    finally:
        file.close()
    if len(trees) < len(kept):
        log(f"stopped early: {params.eval_metric} was best after tree {len(trees)} of {len(kept)}")
    trees = [*(() if before is None else before.trees), *trees]
    model_json = export_booster(trees, cuts, params, list(feature_names), base_score)
    model = FederatedModel(trees=trees, cuts=cuts, base_score=base_score, model_json=model_json, seconds=seconds)
    write_atomic(run_dir / "model.json", model_json)

    def agree_on_model() -> None:
        if not consortium.reported(Phase.TRAINING):
            consortium.rewind(Point.trees(len(kept)).text)
            consortium.commit(Point.model().text, model.sha256)
            consortium.report(Phase.TRAINING, model.sha256)

    whatever_the_roster(consortium, agree_on_model, log)
    seconds["training"] = perf_counter() - started
    log(f"model {model.sha256[:12]}: {len(trees)} trees, the same at every bank")
    return model


def _read_warm(params: BoostingParameters, warm: bytes, feature_names: Sequence[str]) -> ReadModel | None:
    """The model to go on from, if any."""
    if not params.warm_start:
        return None
    if hashlib.sha256(warm).hexdigest() != params.warm_start:
        raise LocalError(f"the run goes on from model {params.warm_start[:12]}, which this bank does not have")
    found = read_booster(warm)
    if found.feature_names != tuple(feature_names):
        raise LocalError(f"model {params.warm_start[:12]} has other features than this run")
    if set(found.categorical_features) != set(params.categorical_features):
        raise LocalError(f"model {params.warm_start[:12]} has other categorical features than this run")
    return found
