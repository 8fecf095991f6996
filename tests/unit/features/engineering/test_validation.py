"""Each bad table is refused with an error that says where, and says no value. As Parquet and as CSV."""

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features import errors as e
from features import extract_features, load_contract
from features.engineering.validation import check_features
from features.sources.files import source_files
from tests.unit.features.payments import frame, good_frame, payment, written

CONTRACT = load_contract()
SECRET = "hunter2"
"""Stands for a value of the data: it may be in no error."""

Change = Callable[[pd.DataFrame], Any]


def set_at(column: str, rows: list[int], value: Any) -> Change:
    def change(table: pd.DataFrame) -> None:
        table.loc[rows, column] = value

    return change


def refusal(path: Path) -> e.DataError:
    with pytest.raises(e.DataError) as caught:
        extract_features(CONTRACT, path)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)
    return caught.value


ROW_CASES: list[tuple[str, Change, type[e.SchemaError], str, int, int, str]] = [
    ("unknown category", set_at("category", [4, 9], SECRET), e.UnknownCodeError, "category", 2, 5, "doesn't know"),
    ("unknown channel", set_at("channel", [3], SECRET), e.UnknownCodeError, "channel", 1, 4, "doesn't know"),
    ("unknown direction", set_at("direction", [0], "OUT"), e.UnknownCodeError, "direction", 1, 1, "doesn't know"),
    ("negative amount", set_at("amount", [7, 8], -3.0), e.RangeError, "amount", 2, 8, "not above 0"),
    ("zero amount", set_at("amount", [19], 0.0), e.RangeError, "amount", 1, 20, "not above 0"),
    ("huge amount", set_at("amount", [2], 1e11), e.RangeError, "amount", 1, 3, "at most 1e+10"),
    ("infinite amount", set_at("amount", [2], np.inf), e.RangeError, "amount", 1, 3, "not above 0"),
    ("null amount", set_at("amount", [2, 3, 4], None), e.MissingValueError, "amount", 3, 3, "no value"),
    ("null time", set_at("event_time", [5], pd.NaT), e.MissingValueError, "event_time", 1, 6, "no value"),
    (
        "time too early",
        set_at("event_time", [6], datetime(1970, 1, 1)),
        e.RangeError,
        "event_time",
        1,
        7,
        "a time before 1990-01-01",
    ),
    (
        "time too late",
        set_at("event_time", [6], datetime(2150, 1, 1)),
        e.RangeError,
        "event_time",
        1,
        7,
        "a time after 2099-12-31",
    ),
    ("null account", set_at("account_id", [1], None), e.MissingValueError, "account_id", 1, 2, "no value"),
    (
        "empty counterparty",
        set_at("counterparty_id", [1], ""),
        e.MissingValueError,
        "counterparty_id",
        1,
        2,
        "no value",
    ),
    ("null category", set_at("category", [1], None), e.MissingValueError, "category", 1, 2, "no value"),
    ("label 2", set_at("is_fraud", [1], 2.0), e.RangeError, "is_fraud", 1, 2, "not 0 or 1"),
    ("label infinite", set_at("is_fraud", [1], np.inf), e.RangeError, "is_fraud", 1, 2, "not 0 or 1"),
    ("NaN label", set_at("is_fraud", [3, 4], np.nan), e.LabelError, "is_fraud", 2, 4, "no label although label_time"),
    (
        "label before payment",
        set_at("label_time", [11], datetime(2023, 1, 1)),
        e.LabelError,
        "label_time",
        1,
        12,
        "a time before the payment's own",
    ),
    ("duplicated id", set_at("payment_id", [5, 6], "p2"), e.DuplicateRowError, "payment_id", 2, 6, "another row"),
]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("case", ROW_CASES, ids=[case[0] for case in ROW_CASES])
def test_bad_rows_are_counted_and_the_first_is_named(case: Any, ending: str, tmp_path: Path) -> None:
    _, change, kind, column, bad, first, words = case
    table = good_frame()
    change(table)
    error = refusal(written(table, tmp_path / f"payments.{ending}"))
    assert type(error) is kind
    assert isinstance(error, e.SchemaError)
    assert (error.column, error.bad_rows, error.first_bad_row) == (column, bad, first)
    text = str(error)
    assert f"payments.{ending}: column {column} has {bad} row" in text
    assert words in text
    assert f"row {first}" in text


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("column", [c.name for c in CONTRACT.columns if c.required])
def test_a_missing_column_is_named(column: str, ending: str, tmp_path: Path) -> None:
    error = refusal(written(good_frame().drop(columns=column), tmp_path / f"payments.{ending}"))
    assert isinstance(error, e.MissingColumnError)
    assert error.column == column
    assert f"payments.{ending} has no column {column}." in str(error)


@pytest.mark.parametrize(
    ("column", "value", "wanted"),
    [
        ("amount", "12.5", "number"),
        ("account_id", 17, "string"),
        ("event_time", 1_700_000_000, "timestamp"),
        ("event_time", "2024-01-01", "timestamp"),
        ("is_fraud", "yes", "number"),
        ("category", 3, "string"),
        ("label_time", "soon", "timestamp"),
    ],
)
def test_a_wrong_type_in_parquet_is_named(column: str, value: Any, wanted: str, tmp_path: Path) -> None:
    table = good_frame()
    table[column] = [value] * len(table)
    error = refusal(written(table, tmp_path / "payments.parquet"))
    assert isinstance(error, e.ColumnTypeError)
    assert error.column == column
    assert f"payments.parquet: column {column} must be of type {wanted}, and is " in str(error)


@pytest.mark.parametrize(
    ("column", "text", "what"),
    [
        ("amount", SECRET, "number"),
        ("amount", "12,50", "number"),
        ("event_time", "31/12/2024", "time"),
        ("event_time", "2024-02-30 10:00:00", "time"),
        ("label_time", SECRET, "time"),
        ("is_fraud", "yes", "number"),
    ],
)
def test_text_that_cannot_be_read_in_csv_is_counted(column: str, text: str, what: str, tmp_path: Path) -> None:
    table = good_frame().astype("object")
    table.loc[[2, 7], column] = text
    error = refusal(written(table, tmp_path / "payments.csv"))
    assert isinstance(error, e.ColumnTypeError)
    assert (error.column, error.bad_rows, error.first_bad_row) == (column, 2, 3)
    assert f"2 rows with text that is not a {what}; the first is row 3." in str(error)


def test_nan_written_out_in_csv_is_no_amount(tmp_path: Path) -> None:
    table = good_frame().astype("object")
    table.loc[4, "amount"] = "NaN"
    error = refusal(written(table, tmp_path / "payments.csv"))
    assert isinstance(error, e.RangeError)
    assert (error.column, error.first_bad_row) == ("amount", 5)


def test_nan_in_a_parquet_double_is_no_amount(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(good_frame(), preserve_index=False)
    amounts = np.array([1.0, np.nan, *([2.0] * 18)])
    place = table.column_names.index("amount")
    table = table.set_column(place, "amount", pyarrow.array(amounts))
    assert table["amount"].null_count == 0
    pyarrow.parquet.write_table(table, tmp_path / "payments.parquet")
    error = refusal(tmp_path / "payments.parquet")
    assert isinstance(error, e.RangeError)
    assert (error.column, error.bad_rows, error.first_bad_row) == ("amount", 1, 2)


def test_every_broken_rule_is_told(tmp_path: Path) -> None:
    table = good_frame()
    table.loc[3, "amount"] = -1
    table.loc[[5, 6], "category"] = SECRET
    text = str(refusal(written(table, tmp_path / "payments.parquet")))
    assert "column amount has 1 row with a number that is not above 0 and at most 1e+10; it is row 4." in text
    assert "Column category has 2 rows with a code that the contract doesn't know." in text


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_in_a_folder_the_file_is_named(ending: str, tmp_path: Path) -> None:
    table = good_frame()
    table.loc[[13, 14], "amount"] = -1.0
    for number in range(4):
        written(table.iloc[5 * number : 5 * number + 5], tmp_path / f"day{number}.{ending}")
    error = refusal(tmp_path)
    assert isinstance(error, e.RangeError)
    assert (error.bad_rows, error.first_bad_row) == (2, 4)
    assert f"the first is row 4 of day2.{ending}." in str(error)


def test_a_payment_repeated_in_another_file_is_found(tmp_path: Path) -> None:
    table = good_frame()
    written(table.iloc[:10], tmp_path / "a.parquet")
    written(table.iloc[9:], tmp_path / "b.parquet")
    error = refusal(tmp_path)
    assert isinstance(error, e.DuplicateRowError)
    assert "1 row with an id that another row with the same direction has already; it is row 1 of b.parquet." in str(
        error
    )


def test_a_file_of_another_shape_in_a_folder_is_named(tmp_path: Path) -> None:
    written(good_frame(), tmp_path / "a.parquet")
    written(good_frame().drop(columns="amount"), tmp_path / "b.parquet")
    error = refusal(tmp_path)
    assert isinstance(error, e.MissingColumnError)
    assert "b.parquet has no column amount." in str(error)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_empty_table_is_refused(ending: str, tmp_path: Path) -> None:
    error = refusal(written(good_frame().iloc[:0], tmp_path / f"payments.{ending}"))
    assert isinstance(error, e.EmptyTableError)
    assert f"payments.{ending} has no row." in str(error)


def test_a_table_without_outgoing_payments_is_refused(tmp_path: Path) -> None:
    table = good_frame()
    table["direction"] = "in"
    error = refusal(written(table, tmp_path / "payments.parquet"))
    assert isinstance(error, e.EmptyTableError)
    assert "no out row" in str(error)


def test_a_file_without_a_byte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    assert isinstance(refusal(tmp_path / "a.csv"), e.EmptyTableError)
    (tmp_path / "a.parquet").write_bytes(b"")
    assert isinstance(refusal(tmp_path / "a.parquet"), e.SourceError)


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert "There is no file or folder" in str(refusal(tmp_path / "none.parquet"))
    assert "has no file that ends in one of" in str(refusal(tmp_path))
    (tmp_path / "payments.xlsx").write_bytes(b"x")
    said = str(refusal(tmp_path / "payments.xlsx"))
    assert "is neither Parquet nor plain CSV: extract it into a store, with a mapping" in said


def test_two_kinds_in_one_folder_are_refused(tmp_path: Path) -> None:
    written(good_frame(), tmp_path / "a.parquet")
    written(good_frame(), tmp_path / "b.csv")
    assert "has both csv and parquet files; keep one kind" in str(refusal(tmp_path))


def test_a_file_that_would_be_left_out_is_refused_by_name(tmp_path: Path) -> None:
    written(good_frame(), tmp_path / "jan.csv")
    for name in ("_SUCCESS", ".part", "jan.csv.sha256", "jan.csv.sha256.sig"):
        (tmp_path / name).write_text("x")
    (tmp_path / "jan.done").write_bytes(b"")
    assert source_files(tmp_path) == [tmp_path / "jan.csv"]
    (tmp_path / "later").mkdir()
    for name in ("mar.txt", "later/apr.csv.zip"):
        (tmp_path / name).write_text("x")
    said = str(refusal(tmp_path))
    assert "has later/apr.csv.zip, mar.txt beside its data, which would be left out" in said and "rename" in said
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("x")
    assert "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 6 more beside" in str(refusal(tmp_path))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(kept: float, tmp_path: Path) -> None:
    path = written(good_frame(), tmp_path / "payments.parquet")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    error = refusal(path)
    assert isinstance(error, e.SourceError)
    assert "payments.parquet is not a whole Parquet file: it is truncated or damaged." in str(error)


def test_damage_inside_a_parquet_file_is_refused(tmp_path: Path) -> None:
    path = written(good_frame(2000), tmp_path / "payments.parquet")
    content = bytearray(path.read_bytes())
    content[200:2000] = bytes(1800)
    path.write_bytes(content)
    assert isinstance(refusal(path), e.SourceError)


def test_a_csv_line_cut_short_is_refused_by_its_number(tmp_path: Path) -> None:
    path = written(good_frame(), tmp_path / "payments.csv")
    lines = path.read_text().splitlines()
    lines[6] = f"{SECRET},2024-01-01"
    path.write_text("\n".join(lines) + "\n")
    error = refusal(path)
    assert isinstance(error, e.SourceError)
    assert "truncated or damaged near line 7" in str(error)


def test_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    table = good_frame()
    table.loc[3, "account_id"] = "Zürich"
    path = tmp_path / "payments.csv"
    table.to_csv(path, index=False, encoding="latin-1")
    assert isinstance(refusal(path), e.SourceError)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text("payment_id,payment_id\n1,2\n")
    assert "two columns of the same name" in str(refusal(path))


def test_the_traceback_of_a_refusal_holds_no_value(tmp_path: Path) -> None:
    path = written(good_frame(), tmp_path / "payments.csv")
    path.write_text(path.read_text() + f'{SECRET},"{SECRET}\n')
    program = f"import features; features.extract_features(features.load_contract(), {str(path)!r})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "SourceError" in run.stderr
    assert SECRET not in run.stderr


def test_a_broken_feature_table_is_refused(tmp_path: Path) -> None:
    table = extract_features(CONTRACT, written(good_frame(), tmp_path / "payments.parquet"))
    assert check_features(table, CONTRACT) is not None
    broken: list[tuple[str, Change]] = [
        ("amount", set_at("amount", [3], np.inf)),
        ("row_id", set_at("row_id", [3], table["row_id"][4])),
        ("event_time", set_at("event_time", [3], table["event_time"][9])),
        ("is_fraud", set_at("is_fraud", [3], 0.5)),
    ]
    for column, change in broken:
        copy = table.copy()
        change(copy)
        with pytest.raises(e.FeatureTableError, match=column):
            check_features(copy, CONTRACT)
    with pytest.raises(e.FeatureTableError):
        check_features(table.drop(columns="amount"), CONTRACT)
    with pytest.raises(e.FeatureTableError):
        check_features(table.assign(account_id="a"), CONTRACT)


def test_what_is_unusual_and_good_is_not_refused(tmp_path: Path) -> None:
    rows = [payment(number) for number in range(6)]
    rows[0] |= {"is_fraud": None, "label_time": None}
    rows[1] |= {"label_time": None}
    rows[2] |= {"payment_id": "p9", "direction": "in", "is_fraud": None}
    rows[3] |= {"payment_id": "p9"}
    rows[4] |= {"is_fraud": 1.0, "label_time": rows[4]["event_time"]}
    table = extract_features(CONTRACT, written(frame(rows), tmp_path / "payments.parquet")).set_index("row_id")
    assert sorted(table.index) == ["p0", "p1", "p4", "p5", "p9"]
    assert np.isnan(table.loc["p0", "is_fraud"])
    assert table.loc["p0", "label_time"] is pd.NaT
    assert table.loc["p1", "label_time"] == rows[1]["event_time"] + timedelta(days=CONTRACT.label.delay_days)
