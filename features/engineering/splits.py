"""Which rows train and which test: by time, with a gap, and by whether a label was known. Trains nothing."""

from datetime import datetime

import pandas as pd

from features.contract.schema import DataContract

__all__ = ["labelled_rows", "labelled_split", "naive_utc", "time_split"]


def labelled_rows(frame: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """The rows of a feature table whose label was known by ``as_of`` (UTC), in their order."""
    known = frame["is_fraud"].notna() & (frame["label_time"] <= naive_utc(as_of))
    return frame[known]


def time_split(frame: pd.DataFrame, train_until: datetime, gap_days: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows before a time, and test rows from ``gap_days`` after it on.

    Rows between the two are in neither: while they happened, the last training labels were not settled yet. Rows
    without a label stay; see `labelled_rows`.

    Args:
        train_until: end of the training period, exclusive, UTC.
        gap_days: the contract's ``label.delay_days``, 0 or more.
    """
    if gap_days < 0:
        raise ValueError("gap_days must be 0 or more")
    end = naive_utc(train_until)
    times = frame["event_time"]
    return frame[times < end], frame[times >= end + pd.Timedelta(days=gap_days)]


def labelled_split(
    frame: pd.DataFrame, train_until: datetime, contract: DataContract
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How every model here is trained and judged: `time_split` of the labelled rows, the contract's label delay apart.

    Args:
        frame: with ``event_time`` and ``is_fraud``.
        train_until: end of the training period, exclusive, UTC.
        contract: the bank's own, whose label delay is the gap.
    """
    return time_split(frame[frame["is_fraud"].notna()], train_until, contract.label.delay_days)


def naive_utc(moment: datetime) -> pd.Timestamp:
    """A time without zone counts as UTC."""
    stamp = pd.Timestamp(moment)
    return stamp.tz_convert("UTC").tz_localize(None) if stamp.tzinfo is not None else stamp
