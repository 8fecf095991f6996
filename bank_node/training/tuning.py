"""Hyper-parameter search in one run: successive halving over parameter sets, judged on all banks' validation rows.

All banks train the sets in the same order, each going on from its own trees, and drop the worse half at each rung. The
metrics are secure sums, so all drop the same sets. Training itself is `train_model`'s: a set's trees are a stretch of
the run's boosting rounds, and this module only renames them. See docs/tuning.md.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bank_node.boosting import BoostingParameters, RowError
from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.dtypes import Integers
from bank_node.evaluation.early_stopping import ValidationJudge
from bank_node.files import write_atomic
from bank_node.training.checkpoint import reading
from bank_node.training.federated import BINS, TURNS, FederatedModel, train_model
from bank_node.training.training_input import TrainingInput
from protocol.errors import OutOfOrder
from protocol.halving import sets_at_rungs
from protocol.run_plan import TuningPlan
from protocol.run_state import Phase
from protocol.steps import Point, Step

__all__ = ["STATE", "OnScore", "TuningResult", "read_scores", "train_or_tune", "tune_model", "tuned_parameters"]

#: A run's scores so far, and at its end the result, in its folder.
STATE = "tuning.json"

OnScore = Callable[[int, int, float], None]
"""Told a set's number, the rung's number and its score, as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """What a search found.

    Attributes:
        metric: what the scores are, the higher the better: ``aucpr``, or ``logloss`` with its sign turned.
        rungs: trees at each rung.
        sets: each set's own parameters.
        scores: of each set at the rungs that it reached.
        best: number of the best set.
    """

    metric: str
    rungs: tuple[int, ...]
    sets: tuple[dict[str, Any], ...]
    scores: tuple[tuple[float, ...], ...]
    best: int

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping."""
        return {
            "metric": self.metric,
            "rungs": list(self.rungs),
            "sets": [
                {"params": params, "scores": list(scores)}
                for params, scores in zip(self.sets, self.scores, strict=True)
            ],
            "best": self.best,
        }


class _Stretch:
    """The consortium as the training of one set sees it: its trees are numbered from 0, the run's rounds go on."""

    def __init__(
        self, consortium: Consortium, *, grown: int, rounds: int, target: int, begins: str, final: bool = False
    ) -> None:
        """A stretch of rounds.

        Args:
            consortium: the real one.
            grown: trees that the set has when it begins.
            rounds: rounds of the run before it.
            target: trees that the set has when it ends.
            begins: the point up to which all is agreed when it begins.
            final: whether it ends the training phase.
        """
        self._consortium, self._shift, self._begins, self._final = consortium, rounds - grown, begins, final
        self._first, self._last = Point.trees(grown).text, Point.trees(target).text

    @property
    def bank(self) -> str:
        """Our id."""
        return self._consortium.bank

    @property
    def members(self) -> tuple[str, ...]:
        """The banks in the run now."""
        return self._consortium.members

    def secure_sum(self, step: str, vector: Integers, *, bound: int | None = None) -> Integers:
        """The sum, under the run's number of the round."""
        return self._consortium.secure_sum(Step.parse(step).later(self._shift).text, vector, bound=bound)

    def commit(self, name: str, digest: str) -> None:
        """Note a point to go on from."""
        if name != Point.model().text or self._final:
            self._consortium.commit(self._renamed(name), digest)

    def rewind(self, name: str) -> None:
        """Go back to one; behind the stretch's last tree there is nothing to repeat."""
        if name == self._first:
            self._consortium.rewind(self._begins)
        elif name != self._last:
            self._consortium.rewind(self._renamed(name))

    def adopt_roster(self) -> None:
        """Take the smaller roster."""
        self._consortium.adopt_roster()

    def report(self, phase: Phase, digest: str, *, metrics_json: str = "", detail: str = "") -> None:
        """End a phase, the training phase at the end only."""
        if phase is not Phase.TRAINING or self._final:
            self._consortium.report(phase, digest, metrics_json=metrics_json, detail=detail)

    def reported(self, phase: Phase) -> bool:
        """Whether a phase has ended."""
        return self._consortium.reported(phase)

    def _renamed(self, name: str) -> str:
        return Point.parse(name).later(self._shift).text


def tune_model(
    given: TrainingInput,
    tuning: TuningPlan,
    consortium: Consortium,
    run_dir: Path,
    log: Log,
    *,
    on_score: OnScore = lambda number, rung, score: None,
) -> tuple[FederatedModel, TuningResult]:
    """Train the sets by halving and agree on the best one's model; goes on from what `run_dir` holds.

    Args:
        given: this bank's rows, and what all sets have in common. Its validation rows judge; there may be none as long
            as the banks together have both kinds of label.
        tuning: the sets and the rungs.
        consortium: the other banks.
        run_dir: where the run's files are kept; each set has a folder in it.
        log: told of progress.
        on_score: told each score.

    Returns:
        The best set's model, byte-identical at every bank, and the search's result.

    Raises:
        RowError: the validation rows of all banks lack one kind of label.
    """
    search = _Search(given, tuning, consortium, run_dir, log)
    scores: list[list[float]] = [[] for _ in tuning.sets]
    ranked = list(range(len(tuning.sets)))
    for rung, (target, left) in enumerate(zip(tuning.rungs, sets_at_rungs(len(ranked), tuning.rungs), strict=True)):
        ranked = sorted(ranked[:left])
        for number in ranked:
            scores[number].append(search.score(number, target))
            on_score(number, rung, scores[number][-1])
        ranked.sort(key=lambda number: (-scores[number][-1], number))
        log(f"rung {rung + 1} of {len(tuning.rungs)}, {target} trees: set {ranked[0] + 1} leads")
    best = ranked[0]
    model = replace(search.train(best, tuning.rungs[-1], final=True), seconds=search.seconds)
    result = TuningResult(
        metric=given.params.eval_metric,
        rungs=tuple(tuning.rungs),
        sets=tuple(tuning.sets),
        scores=tuple(tuple(each) for each in scores),
        best=best,
    )
    # The model last: where it is, so is what it was made with.
    write_atomic(run_dir / STATE, json.dumps({"known": search.known} | result.to_mapping(), indent=2).encode())
    write_atomic(run_dir / "model.json", model.model_json)
    log(f"set {best + 1} of {len(tuning.sets)} is the best: {json.dumps(tuning.sets[best])}")
    return model, result


class _Search:
    """How far a search has come: which scores are known, how many trees each set has, how many rounds the run."""

    def __init__(
        self, given: TrainingInput, tuning: TuningPlan, consortium: Consortium, run_dir: Path, log: Log
    ) -> None:
        """Reads the scores that an earlier process left in `run_dir`; arguments as of `tune_model`."""
        self._given, self._consortium, self._run_dir, self._log = given, consortium, run_dir, log
        self._sets = tuning.parameters(given.params)
        self._grown = [0] * len(self._sets)
        self._rounds = self._place = 0
        state = run_dir / STATE
        #: Scores in the order in which they come.
        self.known: list[float] = read_scores(state) if state.exists() else []
        #: Seconds by phase, over all sets.
        self.seconds: dict[str, float] = {}

    def score(self, number: int, target: int) -> float:
        """A set's score with so many trees: what is known, else trained and judged. Sets must come in their order."""
        end = self._rounds + target - self._grown[number]
        if self._place == len(self.known):
            self.known.append(self._judge(self.train(number, target), end))
            write_atomic(self._run_dir / STATE, json.dumps({"known": self.known}).encode())
        self._grown[number], self._rounds, self._place = target, end, self._place + 1
        return self.known[self._place - 1]

    def train(self, number: int, target: int, *, final: bool = False) -> FederatedModel:
        """A set's model with so many trees, as a stretch of the run; `final` ends the training phase with it."""
        folder = self._run_dir / f"set_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        _copy((BINS, TURNS), self._run_dir, folder)
        stretch = _Stretch(
            self._consortium,
            grown=self._grown[number],
            rounds=self._rounds,
            target=target,
            begins=Point.scores(self._place).text,
            final=final,
        )
        given = replace(self._given, params=replace(self._sets[number], n_estimators=target))
        who = f"set {number + 1} of {len(self._sets)}"
        model = train_model(given, stretch, folder, lambda text: self._log(f"{who}: {text}"))
        _copy((BINS, TURNS), folder, self._run_dir)
        # Only the first stretch agrees on bins; the others read them.
        for phase, seconds in model.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        return model

    def _judge(self, model: FederatedModel, rounds: int) -> float:
        rows, metric, consortium = self._given.judging, self._given.params.eval_metric, self._consortium
        judge = ValidationJudge(rows.columns, rows.labels, model.margins(rows.columns), metric, consortium.secure_sum)

        def measured() -> float:
            consortium.rewind(Point.trees(rounds).text)
            return judge.measure(Step.train(rounds, "rung").text)

        score = whatever_the_roster(consortium, measured, self._log)
        if np.isnan(score):
            raise RowError("the validation rows of all banks together need both frauds and others")
        # All banks must have the same score; the next step's states show it.
        consortium.commit(Point.scores(self._place + 1).text, hashlib.sha256(score.hex().encode()).hexdigest())
        return score


def train_or_tune(
    given: TrainingInput,
    tuning: TuningPlan | None,
    consortium: Consortium,
    run_dir: Path,
    log: Log,
    *,
    on_score: OnScore = lambda number, rung, score: None,
) -> tuple[FederatedModel, TuningResult | None]:
    """`train_model`, or `tune_model` where the run's plan has a search."""
    if tuning is None:
        return train_model(given, consortium, run_dir, log), None
    return tune_model(given, tuning, consortium, run_dir, log, on_score=on_score)


def tuned_parameters(run_dir: Path, params: BoostingParameters, tuning: TuningPlan | None) -> BoostingParameters:
    """The parameters of a run's model: the best set's where it searched."""
    if tuning is None:
        return params
    state = run_dir / STATE
    with reading(state):
        found = json.loads(state.read_bytes()) if state.exists() else {}
        best = found.get("best") if isinstance(found, dict) else found
        if best is not None and (type(best) is not int or not 0 <= best < len(tuning.sets)):
            raise ValueError("no number of a set")
    if best is None:
        raise OutOfOrder(
            f"run {run_dir.name}: its search has not ended at this bank; first run `bank-node train` again"
        )
    return replace(tuning.parameters(params)[best], n_estimators=tuning.rungs[-1])


def read_scores(state: Path) -> list[float]:
    """The scores that a search knows so far, in the order in which they came.

    Raises:
        DamagedRunFiles: the file is not what was written.
    """
    with reading(state):
        known = json.loads(state.read_bytes())["known"]
        if not isinstance(known, list) or not all(isinstance(score, float) for score in known):
            raise ValueError("no list of scores")
    return known


def _copy(names: Sequence[str], source: Path, target: Path) -> None:
    for name in names:
        if (source / name).exists() and not (target / name).exists():
            write_atomic(target / name, (source / name).read_bytes())
