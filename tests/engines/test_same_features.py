"""DuckDB, PostgreSQL and Spark give the same feature table: on small tables with every edge, and on outside data."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest

from features import DataContract, extract_features, load_contract
from features.engineering.in_engine import engine_features
from features.sources.engines import BankTable
from simulator.datasets import load_dataset
from tests.engines.conftest import Put
from tests.outside_data import SHARED, needs
from tests.unit.features.engineering.test_point_in_time import EVERYTHING, assert_equals_oracle
from tests.unit.features.payments import START, frame, payment, written

CONTRACT = load_contract()
OUTSIDE = [pytest.param(name, marks=needs(name)) for name in ("card_payments", "account_transfers")]


def in_engine(contract: DataContract, source: BankTable, **limits: Any) -> pd.DataFrame:
    return pyarrow.Table.from_batches(engine_features(contract, source, **limits)).to_pandas()


def assert_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert list(found.columns) == list(wanted.columns)
    for name in ("row_id", "event_time", "label_time", "is_fraud"):
        pd.testing.assert_series_equal(found[name], wanted[name].astype(found[name].dtype), check_exact=True)
    for name in wanted.columns[4:]:
        assert found[name].dtype == wanted[name].dtype == np.float32, name
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=0, equal_nan=True, err_msg=name)


def edges() -> list[dict[str, Any]]:
    """Ties, both directions, far edges of windows to the microsecond, labels early, late, without a time and none."""
    spans = [timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30)]
    shifts = [timedelta(microseconds=shift) for shift in (-1, 0, 1, 500_000)]
    moments = [START, START, *(START + span + shift for span in spans for shift in shifts)]
    moments += [START + timedelta(hours=7 * number % 900) for number in range(60)]
    labels = [(0.0, 3), (1.0, 0), (1.0, 12), (1.0, None), (None, None)]
    rows = []
    for number, moment in enumerate(moments):
        fraud, delay = labels[number % 5]
        rows.append(
            payment(
                number,
                event_time=moment,
                account_id="ab"[number % 2],
                counterparty_id="amn"[number % 3],
                direction="in" if number % 7 == 3 else "out",
                amount=[0.005, 1.0, 0.004, 19.99, 1e6 + 0.335][number % 5],
                is_fraud=fraud,
                label_time=None if delay is None else moment + timedelta(days=delay),
            )
        )
    return rows


def test_every_feature_equals_the_oracle(put: Put) -> None:
    rows = edges()
    assert_equals_oracle(in_engine(EVERYTHING, put(frame(rows))), rows, EVERYTHING)


def test_since_and_until_equal_the_embedded_engine(put: Put, tmp_path: Path) -> None:
    table = frame(edges())
    limits = {"since": START + timedelta(days=2), "until": START + timedelta(days=20)}
    wanted = extract_features(EVERYTHING, written(table, tmp_path / "payments.parquet"), **limits)
    assert 0 < len(wanted) < len(table)
    assert_same(in_engine(EVERYTHING, put(table), **limits), wanted)


def outside(name: str, folder: Path, limit: int | None) -> pd.DataFrame:
    """All banks' rows together, or those of the largest bank among the first ``limit`` rows."""
    made = load_dataset(SHARED / name, folder, limit=limit)
    tables = [pd.read_parquet(path) for path in made.events.values()]
    # A transfer is in two banks' tables, once in each direction: together they still are one table without repeats.
    table = pd.concat(tables) if limit is None else max(tables, key=len)
    return table.sort_values(["event_time", "payment_id"], kind="stable").reset_index(drop=True)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_sample_of_outside_data_gives_the_same_features(put: Put, name: str, tmp_path: Path) -> None:
    table = outside(name, tmp_path / "banks", 12_000)
    assert len(table) > 2_000
    wanted = extract_features(CONTRACT, written(table, tmp_path / "payments.parquet"))
    assert_same(in_engine(CONTRACT, put(table)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_data_give_the_same_features(put: Put, name: str, tmp_path: Path) -> None:
    table = outside(name, tmp_path / "banks", None)
    wanted = extract_features(CONTRACT, written(table, tmp_path / "payments.parquet"))
    assert_same(in_engine(CONTRACT, put(table)), wanted)
