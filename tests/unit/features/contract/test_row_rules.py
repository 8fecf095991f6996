"""A row's rules are told once: the door that refuses a table and the door that sets rows aside say the same words."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features import load_contract
from features.engineering.validation import checked_events
from features.errors import SchemaError
from features.identifiers import IdentifierKey
from features.incremental import extract_days
from features.sources.files import engine, find_source
from features.store.partitions import FeatureStore
from tests.unit.features.payments import payment

CONTRACT = load_contract()
KEY = IdentifierKey(b"k" * 32)
BROKEN: dict[str, dict[str, Any]] = {
    "no account": {"account_id": ""},
    "no amount": {"amount": None},
    "a negative amount": {"amount": -1.0},
    "an amount that is not finite": {"amount": float("inf")},
    "an amount without end": {"amount": 1e300},
    "a channel nobody knows": {"channel": "pigeon"},
    "a payment of 1970": {"event_time": pd.Timestamp("1970-01-01")},
    "a payment of 2999": {"event_time": pd.Timestamp("2999-01-01")},
    "a label of 2": {"is_fraud": 2.0},
    "a label's time without a label": {"is_fraud": None},
    "a label before its payment": {"label_time": pd.Timestamp("2000-01-01")},
}


CASES = [
    (name, ending)
    for name in BROKEN
    for ending in ("csv", "parquet")
    # A bank's text of no number is unreadable under a mapping, while a table in the contract's own form may write it.
    if (name, ending) != ("an amount that is not finite", "csv")
]


@pytest.mark.parametrize(("name", "ending"), CASES)
def test_both_doors_refuse_the_same_row_in_the_same_words(name: str, ending: str, tmp_path: Path) -> None:
    table = pd.DataFrame([payment(0), payment(1) | BROKEN[name], payment(2)])
    file = tmp_path / f"payments.{ending}"
    table = table.astype({"event_time": "datetime64[us]", "label_time": "datetime64[us]"})
    if ending == "csv":
        table.to_csv(file, index=False)
    else:
        table.to_parquet(file, index=False)
    done = extract_days(CONTRACT, file, FeatureStore(tmp_path / "store"), key=KEY)
    ((column, reason), count), *others = done.quarantined.items()
    assert (count, others) == (1, [])
    with engine() as connection, pytest.raises(SchemaError) as refused:
        checked_events(connection, find_source(file), CONTRACT)
    assert f"column {column} has 1 row with {reason}; it is row 2." in str(refused.value)
