"""Sources that mean the same give the same table; spans, labels and splits."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import extract_features, labelled_rows, load_contract, time_split
from tests.unit.features.payments import START, good_frame, written

CONTRACT = load_contract()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return extract_features(CONTRACT, written(good_frame(), tmp_path_factory.mktemp("good") / "payments.parquet"))


def test_the_table_has_the_promised_columns_in_order(good: pd.DataFrame) -> None:
    assert list(good.columns) == ["row_id", "event_time", "is_fraud", "label_time", *CONTRACT.local_names]
    assert good["event_time"].dtype == good["label_time"].dtype == "datetime64[us]"
    assert good["is_fraud"].dtype == np.float64
    assert {str(good[name].dtype) for name in CONTRACT.local_names} == {"float32"}
    assert good[["event_time", "row_id"]].apply(tuple, axis=1).is_monotonic_increasing


def test_no_account_or_counterparty_is_in_the_table(good: pd.DataFrame) -> None:
    text = good.to_csv(index=False)
    assert not any(f",{name}{number}," in text for name in "am" for number in range(4))


def test_csv_equals_parquet(good: pd.DataFrame, tmp_path: Path) -> None:
    pd.testing.assert_frame_equal(extract_features(CONTRACT, written(good_frame(), tmp_path / "p.csv")), good)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_folder_equals_one_file(good: pd.DataFrame, ending: str, tmp_path: Path) -> None:
    table = good_frame()
    (tmp_path / "2024").mkdir()
    written(table.iloc[:7], tmp_path / "2024" / f"a.{ending}")
    # Another order of columns, one more column and a marker file: none of them matters.
    written(table.iloc[7:][table.columns[::-1]].assign(branch="north"), tmp_path / f"b.{ending}")
    written(table.iloc[:3], tmp_path / f"_temporary.{ending}")
    (tmp_path / "_SUCCESS").touch()
    pd.testing.assert_frame_equal(extract_features(CONTRACT, tmp_path), good)


def test_types_of_the_same_family_are_the_same(good: pd.DataFrame, tmp_path: Path) -> None:
    table = good_frame()
    table["is_fraud"] = table["is_fraud"].astype(bool)
    table["amount"] = table["amount"].astype("int32")
    table["category"] = table["category"].astype("category")
    table["event_time"] = table["event_time"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    table["label_time"] = table["label_time"].astype("datetime64[ns]")
    table = table.drop(columns="counterparty_bank")
    pd.testing.assert_frame_equal(extract_features(CONTRACT, written(table, tmp_path / "p.parquet")), good)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%d %H:%M:%S.000000"])
def test_times_in_csv_are_read_as_utc(good: pd.DataFrame, form: str, tmp_path: Path) -> None:
    table = good_frame()
    for name in ("event_time", "label_time"):
        table[name] = table[name].dt.strftime(form)
    pd.testing.assert_frame_equal(extract_features(CONTRACT, written(table, tmp_path / "p.csv")), good)


def test_an_offset_in_csv_counts(good: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    table = good_frame()
    local = table["event_time"].dt.tz_localize("UTC").dt.tz_convert(timezone(timedelta(hours=5, minutes=30)))
    table["event_time"] = [moment.isoformat(" ") for moment in local]
    pd.testing.assert_frame_equal(extract_features(CONTRACT, written(table, tmp_path / "p.csv")), good)


def test_since_and_until_choose_rows_and_keep_their_history(good: pd.DataFrame, tmp_path: Path) -> None:
    path = written(good_frame(), tmp_path / "p.parquet")
    since, until = START + timedelta(minutes=5), START + timedelta(minutes=12)
    table = extract_features(CONTRACT, path, since=since, until=until)
    pd.testing.assert_frame_equal(table, good.iloc[5:12].reset_index(drop=True))
    zoned = extract_features(CONTRACT, path, since=since.replace(tzinfo=UTC), until=until)
    pd.testing.assert_frame_equal(zoned, table)
    none = extract_features(CONTRACT, path, since=START + timedelta(days=99))
    assert len(none) == 0
    assert list(none.dtypes) == list(good.dtypes)


def test_labelled_rows_are_those_known_by_then(good: pd.DataFrame) -> None:
    assert len(labelled_rows(good, START)) == 0
    known = labelled_rows(good, START + timedelta(days=3, minutes=9))
    assert list(known["row_id"]) == [f"p{number}" for number in range(10)]
    unknown = good.assign(is_fraud=np.nan)
    assert len(labelled_rows(unknown, datetime(2090, 1, 1))) == 0


def test_a_split_leaves_the_gap_out() -> None:
    days = pd.date_range("2024-01-01", periods=30, freq="D", unit="us")
    table = pd.DataFrame({"event_time": days})
    train, test = time_split(table, pd.Timestamp("2024-01-11"), 7)
    assert list(train["event_time"].dt.day) == list(range(1, 11))
    assert list(test["event_time"].dt.day) == list(range(18, 31))
    again, _ = time_split(table, pd.Timestamp("2024-01-11T02:00:00+02:00"), 7)
    assert len(again) == len(train)
    with pytest.raises(ValueError, match="gap_days"):
        time_split(table, pd.Timestamp("2024-01-11"), -1)


def test_a_crowded_counterparty_is_counted_right(tmp_path: Path) -> None:
    table = pd.concat([good_frame(1)] * 20_000, ignore_index=True)
    table["payment_id"] = [f"p{number:05d}" for number in range(20_000)]
    table["event_time"] += pd.to_timedelta(np.arange(20_000), unit="s")
    rows = extract_features(CONTRACT, written(table, tmp_path / "p.parquet"))
    np.testing.assert_array_equal(rows["counterparty_count_1h"], np.minimum(np.arange(20_000), 3600))
    np.testing.assert_array_equal(rows["account_sum_30d"], 10 * np.arange(20_000))
