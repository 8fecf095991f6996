"""One bank's way through a run, on arrays: bins, boosting, the model. No files but the run's folder.

The consortium is reached only through a `Consortium`: a secure sum and phase reports. `RunSession` is the real one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from bank_node.boosting import (
    Cuts,
    Tree,
    cuts_from_bytes,
    cuts_to_bytes,
    export_booster,
    kept_trees,
    predict_margin,
    stops,
    trees_to_bytes,
)
from bank_node.boosting.binning import agreed_bins
from bank_node.boosting.grower import OnRound, grow_trees
from bank_node.boosting.stopping import Judge
from bank_node.boosting.structure import Propose, code_length
from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.dtypes import Floats, Integers
from bank_node.evaluation.early_stopping import ValidationJudge
from bank_node.files import write_atomic
from bank_node.training.checkpoint import TreeFile, reading
from bank_node.training.training_input import StartingModel, TrainingInput
from protocol.field import HALF
from protocol.run_state import Phase
from protocol.steps import Point, Step

__all__ = ["BINS", "TURNS", "FederatedModel", "read_turns", "train_model"]

#: In a run's folder: the agreed bins, and with local structure the banks that propose trees in turn.
BINS, TURNS = "bins.npz", "turns.json"


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

    def margins(self, columns: Floats) -> Floats:
        """Log-odds of rows, as the exported Booster gives them."""
        return predict_margin(self.trees, columns, self.base_score)


def train_model(given: TrainingInput, consortium: Consortium, run_dir: Path, log: Log) -> FederatedModel:
    """Bins, then boosting in lockstep; checkpoints in `run_dir` after every round, and goes on from them.

    Args:
        given: this bank's rows and the run's parameters.
        consortium: the other banks.
        run_dir: where the run's files are kept.
        log: told of progress.

    Returns:
        The model, byte-identical at every bank.

    Raises:
        LocalError: the model to go on from has other features; no bank can propose a tree.
    """
    released = given.released_model()
    if given.frauds == 0:
        log(
            f"warning: none of this bank's {len(given.rows.labels)} training rows is a fraud; it still helps with the "
            "others"
        )
    started = perf_counter()
    cuts = whatever_the_roster(consortium, lambda: _agree_on_bins(given, consortium, run_dir), log)
    if given.shards is not None:
        log(f"rows in {given.shards.n_shards} shards on Dask workers")
    log(
        f"bins agreed: {cuts.total_bins} bins over {len(given.feature_names)} features, {cuts.n_rows_total} rows in all"
    )
    binned = perf_counter()
    start = released or StartingModel(base_score=cuts.base_score(given.params))
    trees, grown = _boost(given, start, cuts, consortium, run_dir, log)
    model = FederatedModel(
        trees=trees,
        cuts=cuts,
        base_score=start.base_score,
        model_json=export_booster(trees, cuts, given.params, list(given.feature_names), start.base_score),
        seconds={"binning": binned - started},
    )
    write_atomic(run_dir / "model.json", model.model_json)
    whatever_the_roster(consortium, lambda: _agree_on_model(model, grown, consortium), log)
    model.seconds["training"] = perf_counter() - binned
    log(f"model {model.sha256[:12]}: {len(trees)} trees, the same at every bank")
    return model


def _agree_on_bins(given: TrainingInput, consortium: Consortium, run_dir: Path) -> Cuts:
    """The bins of all banks' rows, from the folder or by a secure sum; ends the binning phase."""
    path, detail = run_dir / BINS, ""
    if path.exists():
        with reading(path):
            cuts = cuts_from_bytes(path.read_bytes())
    else:
        consortium.rewind(given.beginning.anchor)
        cuts, detail = _sum_bins(given, consortium)
        if given.params.structure == "local":
            turns = _agree_on_turns(given, consortium, run_dir)
            detail = f"{detail}; {turns}".removeprefix("; ")
        consortium.commit(Point.trees(0).text, hashlib.sha256(cuts_to_bytes(cuts)).hexdigest())
        write_atomic(path, cuts_to_bytes(cuts))
    if not consortium.reported(Phase.BINNING):
        consortium.report(Phase.BINNING, hashlib.sha256(cuts_to_bytes(cuts)).hexdigest(), detail=detail)
    return cuts


def _sum_bins(given: TrainingInput, consortium: Consortium) -> tuple[Cuts, str]:
    """The bins by a secure sum, and the operator's line from whoever looks at the counts."""
    seen: list[tuple[Integers, Integers]] = []

    def counting(step: str, vector: Integers) -> Integers:
        seen.append((vector, consortium.secure_sum(step, vector)))
        return seen[-1][1]

    cuts = agreed_bins(
        given.bin_counts(),
        given.grids,
        given.params.max_bin,
        counting,
        feature_names=given.feature_names,
        categorical=given.categorical,
        step=Step.bins(given.beginning.unit, 0).text,
    )
    return cuts, given.beginning.on_bins(*seen[0])


def _agree_on_turns(given: TrainingInput, consortium: Consortium, run_dir: Path) -> str:
    """Local structure: which banks propose trees, noted in the folder; says so for the operator."""
    from bank_node.training.proposing import agree_on_proposers

    step = Step.bins(given.beginning.unit, "turns").text
    able = agree_on_proposers(consortium.members, consortium.bank, given.rows.labels, consortium.secure_sum, step)
    write_atomic(run_dir / TURNS, json.dumps(able).encode())
    return f"{len(able)} banks propose trees in turn"


def _boost(
    given: TrainingInput, start: StartingModel, cuts: Cuts, consortium: Consortium, run_dir: Path, log: Log
) -> tuple[list[Tree], int]:
    """Grows the trees that the folder lacks.

    Returns:
        The model's trees, those that it started from first, and how many were grown in this run, in whichever process:
        more than the model has of them where it stopped early.
    """
    params, file = given.params, TreeFile(run_dir / "trees.bin")
    on_round = _checkpointing(file, params.n_estimators, consortium, log)

    def grow() -> list[Tree]:
        if len(file.trees) == params.n_estimators or stops(file.trees, params):
            return kept_trees(file.trees, params)
        consortium.rewind(Point.trees(len(file.trees)).text)
        return grow_trees(
            given.row_store(cuts, start),
            cuts,
            params,
            # Each bank's magnitudes, and so the totals, stay below 2**57 by the choice of units.
            lambda step, vector: consortium.secure_sum(step, vector, bound=HALF),
            n_rows_total=cuts.n_rows_total,
            base_score=start.base_score,
            resume=list(file.trees),
            on_round=on_round,
            warm=start.warm,
            judge=_judge(given, start, file.trees, consortium) if params.early_stopping_rounds else None,
            propose=_proposals(given, start, cuts, consortium, run_dir) if params.structure == "local" else None,
        )

    try:
        trees = whatever_the_roster(consortium, grow, log)
    finally:
        file.close()
    if len(trees) < len(file.trees):
        log(f"stopped early: {params.eval_metric} was best after tree {len(trees)} of {len(file.trees)}")
    return [*start.trees, *trees], len(file.trees)


def _checkpointing(file: TreeFile, n_trees: int, consortium: Consortium, log: Log) -> OnRound:
    """Keeps each new tree, and tells of every tenth part."""
    if file.trees:
        log(f"going on after boosting round {len(file.trees)} of {n_trees}")
    started, every = perf_counter(), max(1, n_trees // 10)

    def on_round(index: int, tree: Tree) -> None:
        # The anchor first: a tree in the checkpoint always has its anchor.
        body = trees_to_bytes([tree])
        consortium.commit(Point.trees(index + 1).text, hashlib.sha256(body).hexdigest())
        file.append(tree, body)
        if (index + 1) % every == 0 or index + 1 == n_trees:
            log(f"boosting round {index + 1} of {n_trees} ({perf_counter() - started:.1f} s)")

    return on_round


def _judge(given: TrainingInput, start: StartingModel, grown: Sequence[Tree], consortium: Consortium) -> Judge:
    """The validation metric over all banks, as it stands after the trees grown so far."""
    rows, metric = given.judging, given.params.eval_metric
    judge = ValidationJudge(rows.columns, rows.labels, start.margins(rows.columns), metric, consortium.secure_sum)
    judge.follow(grown)
    return judge


def _proposals(
    given: TrainingInput, start: StartingModel, cuts: Cuts, consortium: Consortium, run_dir: Path
) -> Propose:
    """Local structure: our tree where it is our turn, else nothing."""
    from bank_node.training.proposing import Proposer, whose_turn

    rows, params = given.rows, given.params
    able = read_turns(run_dir)
    proposer = Proposer(rows.columns, rows.labels, cuts, params, start.margins(rows.columns), rows.weights, rows.keys)
    none = np.zeros(code_length(params), dtype=np.int64)

    def propose(round_index: int, trees: Sequence[Tree]) -> Integers:
        ours = whose_turn(able, consortium.members, round_index) == consortium.bank
        return proposer(round_index, trees) if ours else none

    return propose


def read_turns(run_dir: Path) -> tuple[str, ...]:
    """The banks that propose trees in turn, as they were agreed.

    Raises:
        DamagedRunFiles: the file is not what was written.
    """
    with reading(run_dir / TURNS):
        found = json.loads((run_dir / TURNS).read_bytes())
        if not isinstance(found, list) or not found or not all(isinstance(bank, str) for bank in found):
            raise ValueError("no list of banks")
    return tuple(found)


def _agree_on_model(model: FederatedModel, grown: int, consortium: Consortium) -> None:
    """Ends the training phase with the model's digest."""
    if not consortium.reported(Phase.TRAINING):
        consortium.rewind(Point.trees(grown).text)
        consortium.commit(Point.model().text, model.sha256)
        consortium.report(Phase.TRAINING, model.sha256)
