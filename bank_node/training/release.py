"""The ends of a run: what the model is worth on rows not trained on, and the vote for it. Trains nothing."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from bank_node.boosting.row_files import BankRows
from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.dtypes import Doubles
from bank_node.evaluation.calibration import Calibrated, calibrate, digest_of, own_reliability
from bank_node.evaluation.metrics import RankingMetrics, rank_metrics, secure_metrics
from bank_node.evaluation.reliability import CellCounts, Reliability, cell_counts, fold_of
from bank_node.training.federated import FederatedModel
from protocol.run_state import Phase
from protocol.steps import Point, Step

__all__ = ["NO_EVALUATION", "Evaluation", "evaluate_model", "pass_over_evaluation", "vote"]

NO_EVALUATION = "no evaluation: the run names no train_until, so there are no rows later than those trained on"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What a model is worth on rows not trained on.

    Attributes:
        consortium, own: how it ranks all banks' rows, and this bank's.
        calibrated: how far its scores hold as probabilities at all banks, and what makes them hold.
        sidecar: the calibration's file, the same bytes at every bank.
        own_before, own_after: how far they hold on this bank's rows, without and with it.
        probability: float64 (n,), of this bank's rows, each by the calibration that it did not fit.
        largest_log_odds: of this bank's rows, in size, uncalibrated; 0 without a row.
    """

    consortium: RankingMetrics
    own: RankingMetrics
    calibrated: Calibrated
    sidecar: bytes
    own_before: Reliability
    own_after: Reliability
    probability: Doubles
    largest_log_odds: float


def evaluate_model(
    model: FederatedModel, rows: BankRows, alert_budget: float, consortium: Consortium, log: Log
) -> Evaluation:
    """The consortium's metrics and calibration by secure sum, and this bank's own, on rows not trained on."""
    margins = model.margins(rows.columns)
    folds = fold_of(rows.columns)
    own = rank_metrics(rows.labels, margins, alert_budget)
    cells = cell_counts(rows.labels, margins, folds)

    def judge() -> tuple[RankingMetrics, Calibrated, bytes]:
        consortium.rewind(Point.model().text)
        everyone = secure_metrics(rows.labels, margins, alert_budget, consortium.secure_sum)
        total = consortium.secure_sum(Step.evaluation(word="cells").text, cells)
        made = calibrate(CellCounts.folds(total), alert_budget)
        document = made.document(model.sha256)
        published = json.dumps(everyone.to_mapping() | _published(made, document), sort_keys=True)
        digest = hashlib.sha256(published.encode()).hexdigest()
        consortium.commit(Point.evaluation().text, digest)
        if not consortium.reported(Phase.EVALUATING):
            consortium.report(Phase.EVALUATING, digest, metrics_json=published)
        return everyone, made, document

    everyone, made, document = whatever_the_roster(consortium, judge, log)
    own_before, own_after = own_reliability(CellCounts.folds(cells), made)
    exact = margins.astype(np.float64)
    by_fold = [each.probability(exact) for each in made.of_fold]
    _log_calibration(made, own_before, own_after, log)
    return Evaluation(
        consortium=everyone,
        own=own,
        calibrated=made,
        sidecar=document,
        own_before=own_before,
        own_after=own_after,
        probability=np.where(folds == 0, by_fold[0], by_fold[1]),
        largest_log_odds=float(np.abs(margins).max()) if margins.size else 0.0,
    )


def _published(made: Calibrated, document: bytes) -> dict[str, object]:
    """What all banks sign of the calibration, and the operator sees."""
    return {
        "calibration_error": made.before.to_mapping()["error"],
        "calibration_error_calibrated": made.after.to_mapping()["error"],
        "calibration_sha256": digest_of(document),
    }


def _log_calibration(made: Calibrated, own_before: Reliability, own_after: Reliability, log: Log) -> None:
    if made.calibration.why:
        log(f"scores stay as they are: {made.calibration.why}; expected calibration error {_error(made.before)}")
        return
    log(
        f"expected calibration error over all banks: {_error(made.before)}, calibrated {_error(made.after)}; on our "
        f"rows: {_error(own_before)}, calibrated {_error(own_after)}"
    )


def _error(judged: Reliability) -> str:
    return "none" if judged.error is None else f"{judged.error:.5f}"


def pass_over_evaluation(consortium: Consortium, log: Log) -> None:
    """End the phase without metrics, as every bank does of a run whose plan leaves no later rows."""

    def agree() -> None:
        consortium.rewind(Point.model().text)
        digest = hashlib.sha256(NO_EVALUATION.encode()).hexdigest()
        consortium.commit(Point.evaluation().text, digest)
        if not consortium.reported(Phase.EVALUATING):
            consortium.report(Phase.EVALUATING, digest, detail=NO_EVALUATION)

    whatever_the_roster(consortium, agree, log)
    log(NO_EVALUATION)


def vote(consortium: Consortium, model_sha256: str, log: Log) -> None:
    """Vote for the model; returns once every bank has, and the run is released."""
    if not consortium.reported(Phase.VOTING):
        whatever_the_roster(consortium, lambda: consortium.report(Phase.VOTING, model_sha256), log)
