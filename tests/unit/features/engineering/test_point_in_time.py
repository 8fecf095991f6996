"""Every feature of every row equals the plain-Python oracle: nothing of the row's own time or later is in it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import DataContract, extract_features, load_contract
from features.engineering.catalogue import CATALOGUE
from features.engineering.feature_table import feature_table
from tests.unit.features.oracle import oracle_features
from tests.unit.features.payments import START, frame, good_frame, payment, written

CONTRACT = load_contract()
EVERYTHING = DataContract.model_validate(
    CONTRACT.model_dump()
    | {
        "features": [
            {"name": name, "description": "x", "grid": {"kind": "values", "values": [1]}} for name in CATALOGUE
        ]
    }
)
"""The packaged contract with the whole catalogue, also what the default leaves out."""

# Offsets in microseconds at which a window's edge is decided, besides arbitrary ones.
EDGES = [
    timedelta(0),
    *(
        span + timedelta(microseconds=shift)
        for span in (timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30))
        for shift in (-1, 0, 1)
    ),
]
moments = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, 35 * 24).map(lambda hours: timedelta(hours=hours)),
    st.integers(0, 3_000_000_000_000).map(lambda number: timedelta(microseconds=number)),
)


def labelled(drawn: dict[str, Any]) -> dict[str, Any]:
    """With the label's time: some time after the payment, or unknown."""
    after = drawn.pop("known_after")
    drawn["label_time"] = None if after is None or drawn["is_fraud"] is None else drawn["event_time"] + after
    return drawn


payments = st.fixed_dictionaries(
    {
        "event_time": moments.map(lambda offset: START + offset),
        "account_id": st.sampled_from(["a", "b"]),
        "counterparty_id": st.sampled_from(["a", "m", "n"]),
        "direction": st.sampled_from(["out", "out", "in"]),
        "channel": st.sampled_from(["card", "transfer"]),
        "amount": st.one_of(st.floats(0.001, 1e6), st.sampled_from([0.005, 1.0, 0.004])),
        "category": st.sampled_from(list(CONTRACT.codes("category"))),
        "counterparty_country": st.sampled_from(["CH", "NO", None]),
        "is_fraud": st.sampled_from([0.0, 1.0, 1.0, None]),
        "known_after": st.one_of(st.none(), moments),
    }
).map(labelled)


@pytest.fixture(scope="module")
def extract() -> Iterator[Callable[[pd.DataFrame], pd.DataFrame]]:
    """The feature expression of `EVERYTHING` on an engine, compiled once: compiling takes longer than running."""
    backend = ibis.duckdb.connect()
    names = {"string": "string", "number": "float64", "timestamp": "timestamp(6)"}
    events = backend.create_table("events", schema={c.name: names[c.type] for c in EVERYTHING.columns})
    query = str(ibis.to_sql(feature_table(events, EVERYTHING), dialect="duckdb"))

    def run(table: pd.DataFrame) -> pd.DataFrame:
        backend.raw_sql("DELETE FROM events")
        backend.con.register("new_rows", table.reindex(columns=list(events.columns)))
        backend.raw_sql("INSERT INTO events SELECT * FROM new_rows")
        return backend.con.sql(query).to_arrow_table().to_pandas()

    yield run
    backend.disconnect()


def expected(rows: list[dict[str, Any]], contract: DataContract) -> dict[str, dict[str, np.float32]]:
    channels, categories = list(contract.codes("channel")), list(contract.codes("category"))
    return {
        row["payment_id"]: {
            name: np.float32(value) for name, value in oracle_features(rows, row, channels, categories).items()
        }
        for row in rows
        if row["direction"] == "out"
    }


def assert_equals_oracle(table: pd.DataFrame, rows: list[dict[str, Any]], contract: DataContract) -> None:
    oracle = expected(rows, contract)
    assert sorted(table["row_id"]) == sorted(oracle)
    for _, row in table.iterrows():
        for name in contract.local_names:
            want = oracle[row["row_id"]][name]
            # One rounding apart at most: the oracle divides in float64 in another order for a mean.
            np.testing.assert_allclose(row[name], want, rtol=1.2e-7, atol=0, err_msg=f"{name} of {row['row_id']}")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.lists(payments, min_size=1, max_size=25))
def test_equals_the_oracle(extract: Callable[[pd.DataFrame], pd.DataFrame], drawn: list[dict[str, Any]]) -> None:
    rows = [payment(number) | row for number, row in enumerate(drawn)]
    assert_equals_oracle(extract(frame(rows)), rows, EVERYTHING)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.lists(payments, min_size=1, max_size=25))
def test_many_payments_equal_the_oracle(
    extract: Callable[[pd.DataFrame], pd.DataFrame], drawn: list[dict[str, Any]]
) -> None:
    rows = [payment(number) | row for number, row in enumerate(drawn)]
    assert_equals_oracle(extract(frame(rows)), rows, EVERYTHING)


def test_the_whole_way_through_a_file_equals_the_oracle(tmp_path: Path) -> None:
    rows = [
        payment(
            number,
            event_time=START + timedelta(hours=7 * number % 900),
            direction="in" if number % 4 == 3 else "out",
            label_time=START + timedelta(days=60),
        )
        for number in range(300)
    ]
    table = extract_features(EVERYTHING, written(frame(rows), tmp_path / "payments.parquet"))
    assert_equals_oracle(table, rows, EVERYTHING)


def test_rows_of_the_same_time_do_not_see_each_other(tmp_path: Path) -> None:
    rows = [payment(0), *(payment(n, event_time=START + timedelta(hours=2), account_id="a0") for n in (1, 2, 3))]
    rows[0] |= {"account_id": "a0"}
    table = extract_features(CONTRACT, written(frame(rows), tmp_path / "payments.parquet"))
    assert list(table["account_count_1d"]) == [0, 1, 1, 1]
    assert list(table["pair_count"]) == [0, 0, 0, 0]


def test_a_window_holds_its_far_edge_and_not_its_near_one(tmp_path: Path) -> None:
    moments = [START, START + timedelta(hours=1), START + timedelta(hours=1, microseconds=1)]
    rows = [payment(number, event_time=moment, account_id="a") for number, moment in enumerate(moments)]
    table = extract_features(CONTRACT, written(frame(rows), tmp_path / "payments.parquet"))
    assert list(table["account_count_1h"]) == [0, 1, 1]


def test_later_rows_change_nothing(tmp_path: Path) -> None:
    rows = [payment(number) for number in range(40)]
    early = extract_features(CONTRACT, written(frame(rows[:25]), tmp_path / "early.parquet"))
    late = extract_features(CONTRACT, written(frame(rows), tmp_path / "late.parquet"))
    pd.testing.assert_frame_equal(late.head(25), early)


def test_the_label_is_in_no_feature(tmp_path: Path) -> None:
    table = good_frame()
    first = extract_features(CONTRACT, written(table, tmp_path / "one.parquet"))
    table["is_fraud"] = 1 - table["is_fraud"]
    table["label_time"] += timedelta(days=1)
    second = extract_features(CONTRACT, written(table, tmp_path / "two.parquet"))
    names = list(CONTRACT.local_names)
    pd.testing.assert_frame_equal(first[names], second[names])


def test_the_order_of_rows_and_threads_do_not_matter(tmp_path: Path) -> None:
    table = frame([payment(n, amount=0.1 * n + 0.01, account_id="a", counterparty_id="m") for n in range(3000)])
    one = extract_features(CONTRACT, written(table, tmp_path / "one.parquet"), threads=1)
    mixed = table.sample(frac=1, random_state=7)
    two = extract_features(CONTRACT, written(mixed, tmp_path / "two.parquet"), threads=2)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
