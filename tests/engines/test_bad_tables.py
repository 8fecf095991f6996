"""What a bank is told when its table can't be reached or breaks the contract: the table and the rule, never a value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from features import load_contract
from features.engineering.in_engine import engine_features
from features.errors import (
    DataError,
    DuplicateRowError,
    MissingColumnError,
    RangeError,
    SourceError,
    UnknownCodeError,
)
from features.sources.engines import BankTable, open_table
from tests.engines.conftest import Put
from tests.unit.features.payments import good_frame

CONTRACT = load_contract()


def changed(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[[4, 9], column] = value
        return table

    return change


CASES = {
    "missing column": (lambda table: table.drop(columns="category"), MissingColumnError, "no column category"),
    "unknown code": (changed("category", "secretcode"), UnknownCodeError, "column category has 2 rows with a code"),
    "negative amount": (changed("amount", -77.25), RangeError, "column amount has 2 rows"),
    "infinite amount": (changed("amount", float("inf")), RangeError, "column amount has 2 rows"),
    "repeated payment": (changed("payment_id", "p1"), DuplicateRowError, "column payment_id has 2 rows"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_that_breaks_the_contract_is_refused(put: Put, case: str) -> None:
    change, error, words = CASES[case]
    source = put(change(good_frame()))
    with pytest.raises(error, match=words) as caught:
        list(engine_features(CONTRACT, source))
    assert source.label in str(caught.value)
    assert not any(value in str(caught.value) for value in ("secretcode", "77.25", "p1"))


def test_a_table_that_is_not_there(put: Put) -> None:
    source = put(good_frame()).model_copy(update={"table": "nowhere", "parquet": None})
    with pytest.raises(SourceError, match=r"There is no .* table nowhere"), open_table(source):
        pass


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="needs crossbank's extra postgres")
    source = BankTable(engine="postgresql", table="payments", connection=f"host={tmp_path} user=bank dbname=x")
    with (
        pytest.raises(SourceError, match="PostgreSQL can't be reached for postgresql table payments"),
        open_table(source),
    ):
        pass


def test_a_password_in_the_configuration_is_refused_and_not_repeated() -> None:
    pytest.importorskip("psycopg", reason="needs crossbank's extra postgres")
    source = BankTable(engine="postgresql", table="payments", connection="host=db password=hunter2")
    with pytest.raises(SourceError, match="holds a password") as caught, open_table(source):
        pass
    assert "hunter2" not in str(caught.value)


def test_nothing_can_be_written_to_the_banks_database(postgresql: Put) -> None:
    source = postgresql(good_frame())
    with pytest.raises(SourceError, match=r"failed \(25006\)"), open_table(source) as opened:
        opened.backend.raw_sql(f"DELETE FROM {source.table}")
    with open_table(source) as opened:
        assert opened.backend.to_pyarrow(opened.rows.count()).as_py() == len(good_frame())


def test_a_query_that_fails_says_no_value(postgresql: Put) -> None:
    source = postgresql(good_frame())
    words = r"A query of postgresql table payments_0 failed \(22P02\)"
    with pytest.raises(DataError, match=words) as caught, open_table(source) as opened:
        opened.backend.to_pyarrow(opened.rows.select(x=opened.rows["payment_id"].cast("int64")))
    assert "p1" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": "postgresql", "table": "payments"},
        {"engine": "spark", "table": "payments", "connection": "host=db"},
        {"engine": "postgresql", "table": "payments; DROP TABLE x", "connection": "host=db"},
        {"engine": "postgresql", "table": "payments", "connection": "host=db", "parquet": "x"},
        {"engine": "oracle", "table": "payments"},
        {"engine": "spark", "table": "payments", "colour": "blue"},
    ],
)
def test_a_source_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BankTable.model_validate(fields)
