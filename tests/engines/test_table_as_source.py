"""A table as a source of the store: the same store as from files, and only changed days are fetched."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bank_node import pipeline
from features import load_contract
from features.contract.mapping import Mapping
from features.errors import ColumnTypeError, EmptyTableError, MissingColumnError, SourceError
from features.identifiers import KEY_BYTES, IdentifierKey
from features.incremental import Extraction, extract_days, read_features
from features.ingestion.profile import draft_mapping
from features.ingestion.profile.trial import tried
from features.sources.engines import BankTable
from features.store.label_source import LabelCounts
from features.store.partitions import FeatureStore
from tests.engines.conftest import Put
from tests.unit.features.payments import START, frame, payment, written

CONTRACT = load_contract()
KEY = IdentifierKey(bytes(range(KEY_BYTES)))


def week() -> list[dict[str, Any]]:
    moments = [START + timedelta(hours=5 * number) for number in range(30)]
    return [
        payment(number, event_time=moment, label_time=moment + timedelta(days=3))
        for number, moment in enumerate(moments)
    ]


def features(store: FeatureStore) -> pd.DataFrame:
    return pd.concat([part.to_pandas() for part in read_features(store, CONTRACT)], ignore_index=True)


def extract(source: BankTable | Path, store: FeatureStore) -> Extraction:
    return extract_days(CONTRACT, source, store, key=KEY)


def test_a_table_and_files_make_the_same_features(put: Put, tmp_path: Path) -> None:
    table = frame(week())
    by_file, by_table = FeatureStore(tmp_path / "by_file"), FeatureStore(tmp_path / "by_table")
    extract(written(table, tmp_path / "payments.parquet"), by_file)
    done = extract(put(table), by_table)
    pd.testing.assert_frame_equal(features(by_table), features(by_file), check_exact=True)
    assert done.rows == done.stored == len(table)
    assert len(done.taken) == table["event_time"].dt.date.nunique()


def test_no_plain_identifier_is_left(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    table = frame(week())
    table["account_id"] = "plainaccount"
    source = put(table)
    extract(source, FeatureStore(tmp_path / "store"))
    assert list((tmp_path / "tmp").iterdir()) == []
    kept = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert kept
    assert not any(b"plainaccount" in file.read_bytes() for file in kept)


@pytest.mark.slow
def test_only_days_that_changed_are_fetched(postgresql: Put, tmp_path: Path) -> None:
    import psycopg

    rows = week()
    source = postgresql(frame(rows))
    store = FeatureStore(tmp_path / "store")
    extract(source, store)
    assert extract(source, store).taken == ()
    assert source.connection is not None
    with psycopg.connect(source.connection) as connection:
        # A correction, a late label, a late row, a payment that moves to another day, and one that is deleted.
        for change in (
            "SET amount = 77.5 WHERE payment_id = 'p3'",
            "SET is_fraud = 1 WHERE payment_id = 'p8'",
            "SET event_time = event_time + interval '2 days', label_time = NULL WHERE payment_id = 'p12'",
        ):
            connection.execute(f"UPDATE {source.table} {change}")
        connection.execute(f"DELETE FROM {source.table} WHERE payment_id = 'p29'")
        found = connection.execute(f"SELECT count(DISTINCT event_time::date) FROM {source.table}").fetchone()
    done = extract(source, store)
    assert found is not None
    assert 0 < len(done.taken) < found[0]
    assert done.stored == len(rows) - 1
    anew = FeatureStore(tmp_path / "anew")
    extract(source, anew)
    pd.testing.assert_frame_equal(features(store), features(anew), check_exact=True)
    assert np.isclose(features(store)["amount"], 77.5).sum() == 1


def test_the_extraction_of_a_configured_bank_reads_a_table(put: Put, tmp_path: Path) -> None:
    source = put(frame(week()))
    document = {
        "bank_id": "alder_bank",
        "events": source.model_dump(exclude_defaults=True),
        "work_dir": "work",
        "aggregator": {"ca": "ca.pem", "certificate": "bank.pem", "key": "bank.key"},
    }
    (tmp_path / "alder.yaml").write_text(yaml.safe_dump(document))
    done = pipeline.extract(tmp_path / "alder.yaml")
    assert done["payments"]["read"] == done["payments"]["kept"] == len(week())


def test_labels_come_from_a_table_of_their_own(put: Put, tmp_path: Path) -> None:
    table = frame(week())
    unlabelled = table.assign(is_fraud=np.nan, label_time=pd.NaT).astype({"label_time": "datetime64[us]"})
    payments = written(unlabelled, tmp_path / "payments.parquet")
    store, whole = FeatureStore(tmp_path / "store"), FeatureStore(tmp_path / "whole")
    done = extract_days(CONTRACT, payments, store, key=KEY, labels=put(table))
    assert done.labels == LabelCounts(rows=len(table), applied=len(table))
    extract(written(table, tmp_path / "labelled.parquet"), whole)
    pd.testing.assert_frame_equal(features(store), features(whole), check_exact=True)
    none = extract_days(CONTRACT, payments, store, key=KEY, labels=put(table.head(0)))
    assert none.labels == LabelCounts() and none.frauds == 0


def test_bad_rows_are_set_aside_and_counted(put: Put, tmp_path: Path) -> None:
    rows = week()
    rows[4]["event_time"] = None
    rows[4]["label_time"] = None
    rows[9]["amount"] = -3.0
    done = extract(put(frame(rows)), FeatureStore(tmp_path / "store"))
    assert sum(done.quarantined.values()) == 2
    assert done.rows == len(rows) == done.stored + 2


def test_a_day_without_a_good_row_is_set_aside_and_a_table_without_one_is_refused(put: Put, tmp_path: Path) -> None:
    rows = week()
    rows[4]["event_time"] = rows[4]["event_time"].replace(year=2199)
    rows[4]["label_time"] = None
    store = FeatureStore(tmp_path / "store")
    done = extract(put(frame(rows)), store)
    assert sum(done.quarantined.values()) == 1 and done.stored == len(rows) - 1
    for row in rows:
        row["amount"] = -3.0
    for _ in range(2):
        with pytest.raises(SourceError, match="none is good"):
            extract(put(frame(rows)), FeatureStore(tmp_path / "bad"))


def test_a_table_without_rows_or_columns_or_days_is_refused(put: Put, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(EmptyTableError, match="has no row"):
        extract(put(frame(week()).head(0)), store)
    with pytest.raises(MissingColumnError, match="has no column category"):
        extract(put(frame(week()).drop(columns="category")), store)
    mapping = Mapping(
        contract=CONTRACT.name,
        columns={
            column.name: {"from": "channel" if column.name == "event_time" else column.name}
            for column in CONTRACT.columns
        },
    )
    with pytest.raises(ColumnTypeError, match="column channel must be a timestamp or date"):
        extract_days(CONTRACT, put(frame(week())), store, key=KEY, mapping=mapping)


def test_a_draft_is_made_of_a_table(put: Put) -> None:
    source = put(frame(week()))
    draft = draft_mapping(source, CONTRACT)
    columns = yaml.safe_load(draft.text)["columns"]
    assert all(columns[name] == {"from": name} for name in ("payment_id", "event_time", "amount", "is_fraud"))
    assert draft.payments.sample.where == str(source)
    mapping = Mapping.model_validate(yaml.safe_load(draft.text))
    trial = tried(source, CONTRACT, mapping)
    assert (trial.kept, trial.quarantined) == (len(week()), 0)
