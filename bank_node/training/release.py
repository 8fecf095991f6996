"""The ends of a run: what the model is worth on rows not trained on, and the vote for it. Trains nothing."""

import hashlib
import json

from bank_node.boosting.row_files import BankRows
from bank_node.consortium import Consortium, Log, whatever_the_roster
from bank_node.evaluation.metrics import RankingMetrics, rank_metrics, secure_metrics
from bank_node.training.federated import FederatedModel
from protocol.run_state import Phase
from protocol.steps import Point

__all__ = ["NO_EVALUATION", "evaluate_model", "pass_over_evaluation", "vote"]

NO_EVALUATION = "no evaluation: the run names no train_until, so there are no rows later than those trained on"


def evaluate_model(
    model: FederatedModel, rows: BankRows, alert_budget: float, consortium: Consortium, log: Log
) -> tuple[RankingMetrics, RankingMetrics]:
    """The consortium's metrics by secure sum, and this bank's own, on rows not trained on."""
    margins = model.margins(rows.columns)
    own = rank_metrics(rows.labels, margins, alert_budget)

    def judge() -> RankingMetrics:
        consortium.rewind(Point.model().text)
        everyone = secure_metrics(rows.labels, margins, alert_budget, consortium.secure_sum)
        published = json.dumps(everyone.to_mapping(), sort_keys=True)
        digest = hashlib.sha256(published.encode()).hexdigest()
        consortium.commit(Point.evaluation().text, digest)
        if not consortium.reported(Phase.EVALUATING):
            consortium.report(Phase.EVALUATING, digest, metrics_json=published)
        return everyone

    return whatever_the_roster(consortium, judge, log), own


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
