"""The calibration that was released with a model, and what an evaluation says of it at this bank. It fits nothing.

``<run>.calibration.json`` lies beside the model. Its digest is in the metrics that all banks signed at the evaluation's
end, so that another file, or another model's, is found out and not used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bank_node.boosting import Tree
from bank_node.boosting.row_files import BankRows
from bank_node.config import BankConfig
from bank_node.consortium import Log
from bank_node.evaluation.calibration import Calibration, digest_of, read
from bank_node.evaluation.costs import value_of_alerts
from bank_node.models.registry import CURRENT_CALIBRATION, ReleaseRecord
from bank_node.secure_aggregation.ledger_audit import published_metrics
from bank_node.training.release import Evaluation
from protocol.errors import ConfigError, LocalError, OutOfOrder
from protocol.run_plan import RunPlan

__all__ = [
    "AMOUNT",
    "SIDECAR",
    "calibration_report",
    "current_calibration",
    "kept_sidecar",
    "largest_leaf",
    "worth_their_cost",
]

#: In a run's folder: its model's calibration.
SIDECAR = "calibration.json"

#: The feature that says what a missed fraud costs.
AMOUNT = "amount"


def current_calibration(config: BankConfig, record: ReleaseRecord) -> Calibration | None:
    """The current model's calibration, once it is found to be the one that all banks signed; None if it has none.

    Args:
        record: the current model's, of `registry.current_model`.

    Raises:
        LocalError: the file is missing, changed, or another model's.
    """
    path = config.registry / CURRENT_CALIBRATION
    again = f"it is not used; register the run again (`bank-node register --run {record.run_id}`)"
    signed = published_metrics(record.evidence).get("calibration_sha256")
    if signed is None:
        if path.exists():
            raise LocalError(f"calibration {path} is not one that the banks of run {record.run_id} signed; {again}")
        return None
    if not path.exists():
        raise LocalError(f"the current model's calibration {path} is missing; {again}")
    document = path.read_bytes()
    if digest_of(document) != signed:
        raise LocalError(f"calibration {path} is not the one that the banks of run {record.run_id} signed; {again}")
    return read(document, record.model_sha256)


def kept_sidecar(config: BankConfig, run_id: str, plan: RunPlan) -> bytes | None:
    """The calibration of a run's model as its evaluation left it; None where the plan leaves no rows to evaluate on.

    Raises:
        OutOfOrder: this bank has not kept it.
    """
    path = config.run_dir(run_id) / SIDECAR
    if plan.train_until is None:
        return None
    if not path.exists():
        raise OutOfOrder(
            f"bank {config.bank_id} has no calibration of the model in run {run_id}; first run "
            f"`bank-node evaluate --config … --run {run_id}`"
        )
    return path.read_bytes()


def worth_their_cost(alerts: pd.DataFrame, alert_cost: float | None, log: Log) -> pd.DataFrame:
    """The alerts without those whose expected loss is less than what an alert costs.

    Args:
        alerts: of `scoring.make_alerts`.
        alert_cost: the bank's; None leaves none out.

    Raises:
        ConfigError: there is a cost, and no amount to compare it with.
    """
    if alert_cost is None:
        return alerts
    if alerts["expected_loss"].isna().all() and len(alerts):
        raise ConfigError(f"alert_cost needs the feature {AMOUNT!r}, which the contract has not: take it out")
    kept = alerts[~(alerts["expected_loss"] < alert_cost)]
    if len(kept) < len(alerts):
        log(f"{len(alerts) - len(kept)} alerts within the budget are left out: less to lose than alert_cost")
    return kept


def largest_leaf(trees: Sequence[Tree]) -> float:
    """The largest absolute value that a leaf adds to the log-odds, shrinkage included; 0 without a tree."""
    return max((float(np.abs(tree.value).max()) for tree in trees), default=0.0)


def calibration_report(
    config: BankConfig, names: Sequence[str], trees: Sequence[Tree], rows: BankRows, judged: Evaluation
) -> Mapping[str, Any]:
    """What ``evaluation.json`` says of the calibration: at all banks, on our rows, and what alerts are worth here.

    Args:
        names: the contract's features, in the columns' order.
        trees: the model's.
        rows: later rows, which `judged` is about.
    """
    costs: Mapping[str, Any] | str
    if AMOUNT not in names:
        costs = f"the contract has no feature {AMOUNT!r}: it is not known what a missed fraud costs"
    elif config.alert_cost is None:
        costs = "the bank's configuration has no alert_cost"
    else:
        amounts = rows.columns[:, list(names).index(AMOUNT)].astype(np.float64)
        costs = value_of_alerts(rows.labels, judged.probability, amounts, config.alert_cost).to_mapping()
    return {
        "consortium": judged.calibrated.to_mapping(),
        "own": {"before": judged.own_before.to_mapping(), "after": judged.own_after.to_mapping()},
        "largest_leaf": round(largest_leaf(trees), 6),
        "largest_log_odds": round(judged.largest_log_odds, 6),
        "costs": costs,
    }
