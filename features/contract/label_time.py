"""When a label became known: the one rule, for a row, a data frame and an engine's expression. Reads no table.

A label is known from the time that the bank gives on; without one from the payment's time plus the contract's delay;
and never before the payment itself. A row without a label has no such time.
"""

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd

__all__ = ["NEVER_EARLIER_SQL", "is_settled", "known_at", "known_column", "known_series"]

NEVER_EARLIER_SQL = "CASE WHEN {label} IS NULL OR {time} IS NULL THEN NULL ELSE greatest({time}, {payment}) END"
"""A bank's time as it is kept: none without a label, and the payment's where a correction made that later."""


def known_at(payment: datetime, label_time: datetime | None, delay_days: int) -> datetime:
    """When the label of one payment became known, for a payment that has one.

    Args:
        payment: the payment's time, UTC.
        label_time: the bank's time of the label, UTC, or None.
        delay_days: the contract's ``label.delay_days``.
    """
    return payment + timedelta(days=delay_days) if label_time is None else label_time


def known_series(frame: "pd.DataFrame", delay_days: int) -> "pd.Series":
    """The same for payments in a frame with ``event_time``, ``is_fraud`` and ``label_time``; NaT without a label."""
    import pandas as pd

    settled = frame["event_time"] + pd.Timedelta(days=delay_days)
    return frame["label_time"].fillna(settled).where(frame["is_fraud"].notna())


def known_column(events: "ir.Table", delay_days: int) -> "ir.Value":
    """The same as an expression on such a table; null without a label."""
    import ibis

    settled = events["event_time"] + ibis.interval(days=delay_days)
    known = events["label_time"].coalesce(settled)
    return events["is_fraud"].notnull().ifelse(known, ibis.null("timestamp(6)"))


def is_settled(day: date, newest: date, delay_days: int) -> bool:
    """Whether the payments of a day have their labels by another: it is the delay or more before it."""
    return (newest - day).days >= delay_days
