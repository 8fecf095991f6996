"""What alerts are worth in money, on one bank's own rows: a missed fraud costs its amount, an alert a fixed sum.

Nothing of it is sent or summed: amounts and costs are the bank's own.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bank_node.dtypes import Doubles, Marks

__all__ = ["AlertValue", "value_of_alerts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertValue:
    """What comes of alerting on every row whose probability times amount is at least the cost of an alert.

    Attributes:
        alert_cost: of one alert, in the contract's currency.
        alerts: rows alerted on.
        caught: frauds among them.
        expected_precision, precision: what the probabilities say, and what there was; None without an alert.
        expected_saved: the summed probability times amount of the alerts, less their cost.
        saved: the amounts of the frauds among them, less their cost.
        lost_without: the amounts of all frauds: what is lost where nobody looks.
    """

    alert_cost: float
    alerts: int
    caught: int
    expected_precision: float | None
    precision: float | None
    expected_saved: float
    saved: float
    lost_without: float

    def to_mapping(self) -> dict[str, Any]:
        """A plain mapping."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def value_of_alerts(labels: Marks, probability: Doubles, amounts: Doubles, alert_cost: float) -> AlertValue:
    """The worth of the alerts that pay for themselves.

    Args:
        labels: uint8 (n,), 0 or 1.
        probability: float64 (n,), of rows that did not fit the calibration.
        amounts: float64 (n,), in the contract's currency; NaN counts as 0.
        alert_cost: of one alert, 0 or more.
    """
    amounts = np.nan_to_num(amounts)
    loss = probability * amounts
    alerted = loss >= alert_cost
    alerts, fraud = int(alerted.sum()), labels == 1
    caught = int((alerted & fraud).sum())
    return AlertValue(
        alert_cost=alert_cost,
        alerts=alerts,
        caught=caught,
        expected_precision=math.fsum(probability[alerted].tolist()) / alerts if alerts else None,
        precision=caught / alerts if alerts else None,
        expected_saved=math.fsum(loss[alerted].tolist()) - alerts * alert_cost,
        saved=math.fsum(amounts[alerted & fraud].tolist()) - alerts * alert_cost,
        lost_without=math.fsum(amounts[fraud].tolist()),
    )
