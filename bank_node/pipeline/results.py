"""What each step returns: small mappings that JSON can hold, since Airflow keeps them and later tasks read them."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

__all__ = [
    "DayCounts",
    "Evaluated",
    "Extracted",
    "Judged",
    "LabelCounts",
    "PaymentCounts",
    "Registered",
    "Scored",
    "Trained",
    "Wiped",
]


class PaymentCounts(TypedDict):
    """Rows of payments: ``read`` is the sum of the others, ``quarantined`` by "column: reason"."""

    read: int
    kept: int
    repeated: int
    purged: int
    quarantined: dict[str, int]


class LabelCounts(TypedDict):
    """Rows of a source of labels; ``waiting`` ones have no payment yet."""

    read: int
    applied: int
    waiting: int
    repeated: int
    quarantined: dict[str, int]


class DayCounts(TypedDict):
    """Days whose features were made anew, or only their labels."""

    built: int
    relabelled: int


class Extracted(TypedDict):
    """Of `extract`: rows and frauds in the store at ``path``, and what became of the rows that were read."""

    rows: int
    frauds: int
    path: str
    payments: PaymentCounts
    labels: LabelCounts
    days: DayCounts


class Judged(TypedDict):
    """Of `gate`."""

    run_id: str
    passed: bool
    report: str


class Trained(TypedDict):
    """Of `train`: ``params`` as trained (after a search), ``seconds`` by phase."""

    run_id: str
    contract: str
    model_sha256: str
    trees: int
    rows: int
    frauds: int
    params: dict[str, Any]
    validation_rows: int
    seconds: dict[str, float]
    bytes_sent: int


class Evaluated(TypedDict):
    """Of `evaluate`, and ``evaluation.json``: metrics by `RankingMetrics.to_mapping`.

    None where there is nothing to judge by; ``evaluation`` says why there is none at all.
    """

    run_id: str
    bank: str
    rows: int
    frauds: int
    consortium: dict[str, Any] | None
    own: dict[str, Any] | None
    alone: dict[str, Any] | None
    calibration: NotRequired[Mapping[str, Any]]
    evaluation: NotRequired[str]


class Registered(TypedDict):
    """Of `register`."""

    run_id: str
    model_path: str
    model_sha256: str


class Scored(TypedDict):
    """Of `score`: ``rows`` scored; ``left_out_by_cost`` were within the budget and not worth an alert."""

    alerts_path: str
    alerts: int
    rows: int
    model: str
    calibrated: bool
    left_out_by_cost: int


class Wiped(TypedDict):
    """Of `wipe_keys`: the runs whose keys were wiped."""

    wiped: list[str]
