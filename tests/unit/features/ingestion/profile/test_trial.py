"""A trial of a mapping tells what an extraction then does, names the bank's file, and refuses what is not decided."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from features import load_contract
from features.contract.mapping import load_mapping
from features.errors import DataError, MappingError
from features.identifiers import IdentifierKey
from features.incremental import extract_days
from features.ingestion.profile import draft_mapping
from features.ingestion.profile.trial import tried
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.profile import exports

CONTRACT = load_contract()


def confirmed(source: Path, folder: Path, **columns: Any) -> Path:
    document = yaml.safe_load(draft_mapping(source, CONTRACT).text)
    document["columns"] |= columns
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(document | {"confirmed": True}, allow_unicode=True))
    return path


def test_it_counts_what_an_extraction_counts(tmp_path: Path) -> None:
    def dirty(rng: Any) -> list[list[str]]:
        rows = exports.american(rng)
        rows[3][9], rows[5][0], rows[9][8] = "many", "13/13/2024", "Cheque"
        return [*rows, rows[20], rows[21]]

    source = exports.written(dirty, tmp_path / "export.csv")
    source.write_text(source.read_text() + "too,few\n")
    path = confirmed(source, tmp_path, channel={"from": "Type", "codes": {"Debit Card": "card", "ACH": "transfer"}})
    mapping = load_mapping(path, CONTRACT)
    trial = tried(source, CONTRACT, mapping)
    done = extract_days(
        CONTRACT, source, FeatureStore(tmp_path / "store"), key=IdentifierKey(bytes(32)), mapping=mapping
    )
    assert (trial.kept, trial.repeated) == (done.stored, done.repeated) == (exports.ROWS - 3, 2)
    assert {(fault.column, fault.reason): fault.rows for fault in trial.faults} == done.quarantined
    assert trial.rows == trial.kept + trial.repeated + trial.quarantined == done.rows
    assert (trial.outgoing, trial.frauds) == (done.feature_rows, done.frauds)
    assert {fault.column: fault.first for fault in trial.faults}["direction"] == (3,)


def test_an_error_names_the_banks_file(tmp_path: Path) -> None:
    source = exports.written(exports.american, tmp_path / "export.csv")
    mapping = load_mapping(confirmed(source, tmp_path, amount={"from": "Amonut"}), CONTRACT)
    with pytest.raises(DataError, match=r"export\.csv has no column Amonut") as caught:
        tried(source, CONTRACT, mapping)
    assert "rows.parquet" not in str(caught.value)


def test_a_question_mark_is_refused_with_what_to_write(tmp_path: Path) -> None:
    source = exports.written(exports.american, tmp_path / "export.csv")
    path = confirmed(
        source,
        tmp_path,
        account_id={"from": "?"},
        event_time={"from": "Post Date", "origin": "?"},
        channel={"from": "Type", "codes": {"Debit Card": "card", "ACH": "?"}},
    )
    with pytest.raises(MappingError) as caught:
        load_mapping(path, CONTRACT, draft=True)
    assert "account_id: from is still ?: name a column of the bank's" in str(caught.value)
    assert "event_time: origin is still ?: write the first day" in str(caught.value)
    assert "channel: 1 of 2 codes are still ?" in str(caught.value)


def test_a_draft_may_be_tried_and_not_extracted(tmp_path: Path) -> None:
    source = exports.written(exports.american, tmp_path / "export.csv")
    path = tmp_path / "mapping.yaml"
    path.write_text(draft_mapping(source, CONTRACT).text)
    assert tried(source, CONTRACT, load_mapping(path, CONTRACT, draft=True)).kept == exports.ROWS
    with pytest.raises(MappingError, match="is a draft"):
        load_mapping(path, CONTRACT)
