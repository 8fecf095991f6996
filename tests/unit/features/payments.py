"""Small payments tables for the tests of this folder."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

START = datetime(2024, 1, 5, 21, 0, 0)


def payment(number: int, **changes: Any) -> dict[str, Any]:
    """A good outgoing payment, the ``number``-th minute after `START`."""
    moment = START + timedelta(minutes=number)
    return {
        "payment_id": f"p{number}",
        "event_time": moment,
        "account_id": f"a{number % 3}",
        "counterparty_id": f"m{number % 4}",
        "counterparty_bank": None,
        "direction": "out",
        "channel": "card",
        "amount": 10.0 + number,
        "category": "home",
        "is_fraud": float(number % 5 == 0),
        "label_time": moment + timedelta(days=3),
    } | changes


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows with the canonical types."""
    table = pd.DataFrame(rows)
    for name in ("event_time", "label_time"):
        if name in table:
            table[name] = pd.to_datetime(table[name]).astype("datetime64[us]")
    return table


def good_frame(rows: int = 20) -> pd.DataFrame:
    """``rows`` good payments."""
    return frame([payment(number) for number in range(rows)])


def written(table: pd.DataFrame, path: Path) -> Path:
    """The table in a file of the kind that the path's ending names."""
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path
