"""The contract's sections on data quality and shared risk: their keys and limits. Judges nothing, counts nothing."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ACCOUNT_FEATURES",
    "COLUMNS",
    "COUNTERPARTY_FEATURES",
    "DEVICE_FEATURES",
    "MAX_DEPTH",
    "SHARED_FEATURES",
    "SPANS",
    "WINDOW_DAYS",
    "EntityKind",
    "QualitySpec",
    "SharedRiskSpec",
]


class QualitySpec(BaseModel):
    """Limits of the set rules, and what the consortium may know: a section of the contract.

    Attributes:
        recent_days: the newest days, on which a bank is judged.
        history_days: the days before them, with which they are compared; fewer than 7 there judge nothing.
        volume_low, volume_high: a day's payments over the median of the same weekday in the history; outside is bad.
        bad_days: most days of bad volume among the recent ones.
        missing_rise: how far a column's share of missing values may be above the history's.
        label_rate_high: largest share of frauds among settled payments of the recent days.
        unlabelled_rise: how far the share of payments without a label may be above the history's, where settled.
        stale_days: most days between the newest payment and the date that a run announces.
        quarantined: largest share of rows that could not be read.
        drift_warn, drift_stop: population stability index of a feature, the newest 28 days against the bank's own days
            before: from the first on it is a warning, from the second on the bank does not join.
        growing: features that grow with the length of a bank's history; no drift of theirs is judged.
        publish_counts: whether rows, labelled and quarantined rows are told to the consortium, as sums over all banks.
        publish_drift: whether a bank's largest drift is told to the consortium's node.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recent_days: int = Field(default=14, ge=1, le=90)
    history_days: int = Field(default=56, ge=7, le=730)
    volume_low: float = Field(default=0.4, ge=0, lt=1)
    volume_high: float = Field(default=2.5, gt=1, le=1000)
    bad_days: int = Field(default=3, ge=0, le=90)
    missing_rise: float = Field(default=0.2, gt=0, le=1)
    label_rate_high: float = Field(default=0.2, gt=0, le=1)
    unlabelled_rise: float = Field(default=0.5, gt=0, le=1)
    stale_days: int = Field(default=5, ge=0, le=365)
    quarantined: float = Field(default=0.05, ge=0, le=1)
    drift_warn: float = Field(default=0.25, gt=0, le=100)
    drift_stop: float = Field(default=1.0, gt=0, le=100)
    growing: tuple[str, ...] = ()
    publish_counts: bool = False
    publish_drift: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "QualitySpec":
        if self.drift_warn > self.drift_stop:
            raise ValueError("drift_warn must not be above drift_stop")
        return self


COLUMNS: Final = ("payments", "frauds", "customers", "banks")
"""What a cell counts: payments made that day; reports that became known that day; and, over the 30 days up to and with
that day, distinct customers who reported and banks that had a report."""


WINDOW_DAYS: Final = 30
"""The longest window, and the one over which customers and banks are distinct."""


SPANS: Final = {"1d": 1, "7d": 7, "30d": WINDOW_DAYS}


MAX_DEPTH: Final = 4
"""SHA-256 gives four 64-bit words: one a row of the sketch."""


COUNTERPARTY_FEATURES: Mapping[str, str] = {
    f"shared_counterparty_{what}_{span}": words.format(days=f"{days} day{'s' if days > 1 else ''}")
    for what, words in {
        "payments": "Payments of all banks' customers to this counterparty in the {days} before the payment's day.",
        "frauds": "Frauds with this counterparty that became known at any bank in the {days} before the payment's day.",
        "risk": "Such frauds over such payments plus the contract's smoothing, {days} before the payment's day.",
    }.items()
    for span, days in SPANS.items()
} | {
    "shared_counterparty_customers_30d": "Customers of all banks who reported this counterparty in the 30 days before.",
    "shared_counterparty_banks_30d": "Banks at which this counterparty was reported in the 30 days before.",
}
"""Of the payment's counterparty: a merchant, or the account that receives."""


DEVICE_FEATURES: Mapping[str, str] = {
    name.replace("counterparty", "device"): words.replace("to this counterparty", "from this device")
    .replace("with this counterparty", "from this device")
    .replace("this counterparty", "this device")
    for name, words in COUNTERPARTY_FEATURES.items()
}
"""Of the device that a payment was made from, where the contract has the column and a kind for it."""


ACCOUNT_FEATURES: Mapping[str, str] = {
    "shared_account_frauds_7d": "Frauds paid to the customer's own account, known at any bank in the 7 days before.",
    "shared_account_frauds_30d": "Frauds paid to the customer's own account, known at any bank in the 30 days before.",
    "shared_account_banks_30d": "Banks at which the customer's own account was reported in the 30 days before.",
}
"""Of the paying account itself, looked up as a beneficiary: a mule's bank has no label of what came in."""


SHARED_FEATURES: Mapping[str, str] = {**COUNTERPARTY_FEATURES, **DEVICE_FEATURES, **ACCOUNT_FEATURES}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntityKind(_Model):
    """One kind of counterparty, or devices, and the size of its sketch.

    Attributes:
        name: of the kind, in features and files.
        column: where the entity's identifier is; payments without one are not counted.
        channels: codes of the payments' channel that have such a counterparty.
        width: cells of a row; an estimate is above the truth by the day's total over the width, on average.
        depth: rows, each with its own hash; the smallest counts.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    column: Literal["counterparty_id", "device_id"] = "counterparty_id"
    width: int = Field(ge=1, le=1 << 20)
    depth: int = Field(ge=1, le=MAX_DEPTH)


class SharedRiskSpec(_Model):
    """What the banks share about counterparties: a section of the contract, so of its fingerprint.

    Attributes:
        kinds: what is counted, each with the size of its sketch.
        account_kind: the kind as which a customer's own account is looked up, or None.
        history_days: how many days back a run asks for.
        payments_below: a bank sends a cell with fewer payments in a day as 0. 1 sends all.
        reports_below: features read no report of a counterparty that fewer customers reported in 30 days. 1 reads all.
        smoothing: payments added to the divisor of a risk.
    """

    kinds: Annotated[tuple[EntityKind, ...], Field(min_length=1, max_length=8)]
    account_kind: str | None = None
    history_days: int = Field(default=800, ge=WINDOW_DAYS, le=3660)
    payments_below: int = Field(default=1, ge=1, le=1000)
    reports_below: int = Field(default=1, ge=1, le=1000)
    smoothing: float = Field(default=20.0, gt=0, le=1e6, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> "SharedRiskSpec":
        names = [kind.name for kind in self.kinds]
        channels = [(kind.column, channel) for kind in self.kinds for channel in kind.channels]
        if len(set(names)) < len(names) or len(set(channels)) < len(channels):
            raise ValueError("a kind or a channel is there twice")
        if self.account_kind is not None and self.account_kind not in names:
            raise ValueError(f"account_kind names {self.account_kind}, which is not a kind")
        if self.account_kind is not None and self.kind(self.account_kind).column != "counterparty_id":
            raise ValueError(f"account_kind names {self.account_kind}, which is no kind of counterparties")
        return self

    def kind(self, name: str) -> EntityKind:
        """The kind of that name."""
        return next(kind for kind in self.kinds if kind.name == name)

    @property
    def sketch_digest(self) -> str:
        """SHA-256, hex, of what the banks' tables depend on; tables of another digest can't be read."""
        text = repr(
            [(k.name, k.column, k.channels, k.width, k.depth) for k in self.kinds]
            + [self.payments_below, WINDOW_DAYS, COLUMNS]
        )
        return hashlib.sha256(text.encode()).hexdigest()
