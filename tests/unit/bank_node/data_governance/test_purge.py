"""Purging customers and periods: nothing of them stays or comes back, and the record says what had seen them."""

import datetime as dt
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from bank_node import pipeline
from bank_node.config import BankConfig, load_config
from bank_node.data_governance.purge import purge_rows
from bank_node.dataset.feature_tables import feature_rows
from bank_node.models.lineage import note_trained_on, seen_until
from features import load_contract
from features.errors import DataError
from features.identifiers import create_key, hashed, load_key
from features.incremental import purge_days
from features.store.partitions import FeatureStore
from protocol.errors import ConfigError
from tests.unit.features.payments import START, frame, payment, written
from tests.unit.features.test_incremental import PowerCut, power_cut_after

CONTRACT = load_contract()
NOW = dt.datetime(2024, 4, 1, tzinfo=dt.UTC)


def payments(without: str = "", since: dt.timedelta = dt.timedelta(0)) -> list[dict[str, Any]]:
    """Forty payments, seven hours apart, of accounts a0 to a2, who also pay each other."""
    rows = []
    for number in range(40):
        moment = START + dt.timedelta(hours=7 * number)
        row = payment(number, event_time=moment, label_time=moment + dt.timedelta(days=2))
        if number % 4 == 0:
            row["counterparty_id"] = f"a{number % 5 % 3}"
        rows.append(row)
    return [
        row
        for row in rows
        if without not in (row["account_id"], row["counterparty_id"]) and row["event_time"] >= START + since
    ]


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).touch()
    written(frame(payments()), tmp_path / "events.parquet")
    path = tmp_path / "bank.yaml"
    node = {name: name for name in ("ca", "certificate", "key")}
    path.write_text(
        yaml.safe_dump({"bank_id": "alder", "events": "events.parquet", "work_dir": "work", "aggregator": node})
    )
    pipeline.extract(path, log=lambda _: None)
    return path


def edited(bank: Path, **changes: Any) -> BankConfig:
    bank.write_text(yaml.safe_dump(yaml.safe_load(bank.read_text()) | changes))
    return load_config(bank)


def rows(bank: Path) -> pd.DataFrame:
    return feature_rows(load_config(bank), CONTRACT)


def as_if_never_there(bank: Path, folder: Path, kept: list[dict[str, Any]]) -> pd.DataFrame:
    """The features of a bank that only ever had these payments, under the same key."""
    config = load_config(bank)
    folder.mkdir()
    written(frame(kept), folder / "events.parquet")
    other = folder / "bank.yaml"
    other.write_text(bank.read_text())
    edited(
        other,
        identifier_key=str(config.identifier_key_path),
        aggregator={k: str(bank.parent / k) for k in ("ca", "certificate", "key")},
    )
    pipeline.extract(other, log=lambda _: None)
    return rows(other)


def nothing_of(bank: Path, account: str) -> None:
    config = load_config(bank)
    digest = hashed(load_key(config.identifier_key_path), "account_id", [account])[0]
    for path in config.store_dir.rglob("*.parquet"):
        assert digest not in str(pyarrow.parquet.read_table(path).to_pydict()), path


def test_a_purged_customer_is_as_if_never_there_and_stays_out(bank: Path, tmp_path: Path) -> None:
    record = pipeline.purge(bank, accounts=["a1"], reason="asked by letter", log=lambda _: None)
    expected = as_if_never_there(bank, tmp_path / "other", payments(without="a1"))
    pd.testing.assert_frame_equal(rows(bank), expected)
    nothing_of(bank, "a1")
    gone = 40 - len(payments(without="a1"))
    assert (record["accounts"], record["rows"]) == (1, gone) and gone > 13
    (bank.parent / "events.parquet").touch()
    again = pipeline.extract(bank, log=lambda _: None)
    assert again["payments"] | {"quarantined": 0} == {
        "read": 40, "kept": 40 - gone, "repeated": 0, "purged": gone, "quarantined": 0,
    }  # fmt: skip
    pd.testing.assert_frame_equal(rows(bank), expected)


def test_a_purge_takes_what_a_killed_training_left(bank: Path) -> None:
    left = load_config(bank).rows_dir / "run" / "training" / "columns.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"rows")
    record = pipeline.purge(bank, accounts=["a1"], log=lambda _: None)
    assert not left.exists() and record["runs_under_way"] == ["run"]


def test_a_run_has_seen_what_the_model_saw_that_it_goes_on_from(bank: Path) -> None:
    config = load_config(bank)
    config.registry.mkdir(parents=True, exist_ok=True)
    (config.registry / "first.json").write_bytes(b"a model")
    digest = hashlib.sha256(b"a model").hexdigest()
    begin, later = START + dt.timedelta(days=3), START + dt.timedelta(days=20)
    note_trained_on(config, "unknown", CONTRACT, begin, warm_start=digest)
    assert seen_until(config, "unknown") is None
    note_trained_on(config, "first", CONTRACT, later)
    note_trained_on(config, "second", CONTRACT, begin, warm_start=digest)
    assert seen_until(config, "second") == later
    days = [json.loads((config.run_dir(run) / "trained_on.json").read_text())["days"] for run in ("first", "second")]
    assert days[0] == days[1]


def test_a_purged_period_is_as_if_never_there(bank: Path, tmp_path: Path) -> None:
    until = (START + dt.timedelta(days=5)).date()
    pipeline.purge(bank, until=until, log=lambda _: None)
    since = dt.datetime.combine(until, dt.time.min) - START
    pd.testing.assert_frame_equal(rows(bank), as_if_never_there(bank, tmp_path / "other", payments(since=since)))


def test_retention_purges_what_is_old(bank: Path) -> None:
    config = edited(bank, retention_days=31)
    last = START + dt.timedelta(days=36)
    purge_rows(config, CONTRACT, now=last.replace(tzinfo=dt.UTC))
    assert rows(bank)["event_time"].min() >= pd.Timestamp((last - dt.timedelta(days=31)).date())
    purge_rows(config, CONTRACT, now=last.replace(tzinfo=dt.UTC) + dt.timedelta(days=1))
    assert len(json.loads((config.store_dir / "purged.json").read_text())["periods"]) == 1


def test_the_record_names_the_released_models_that_had_seen_the_rows(bank: Path) -> None:
    config = load_config(bank)
    third = START + dt.timedelta(days=3)
    for run, until in (("run-a", third), ("run-b", None), ("run-unreleased", None)):
        note_trained_on(config, run, CONTRACT, until)
        if run != "run-unreleased":
            config.registry.mkdir(parents=True, exist_ok=True)
            (config.registry / f"{run}.json").write_text("{}")
    (config.registry / "current.json").write_text("{}")
    late = (START + dt.timedelta(days=5)).date()
    record = pipeline.purge(bank, since=late, until=late + dt.timedelta(days=2), log=lambda _: None)
    assert record["models"] == [{"run_id": "run-b", "days": 2, "certain": True}]
    every = pipeline.purge(bank, accounts=["a2"], log=lambda _: None)["models"]
    assert [model["run_id"] for model in every] == ["run-a", "run-b"]
    lines = [json.loads(line) for line in (config.work_dir / "purges.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["begun", "done"] * 2
    assert "a2" not in (config.work_dir / "purges.jsonl").read_text()


def test_a_day_that_changed_since_the_training_is_not_certain(bank: Path) -> None:
    config = load_config(bank)
    note_trained_on(config, "run-a", CONTRACT, None)
    config.registry.mkdir(parents=True)
    (config.registry / "run-a.json").write_text("{}")
    late = payment(99, account_id="a9", event_time=START - dt.timedelta(hours=1))
    written(frame([late, *payments()]), bank.parent / "events.parquet")
    pipeline.extract(bank, log=lambda _: None)
    assert pipeline.purge(bank, accounts=["a9"], log=lambda _: None)["models"][0]["certain"] is False


def test_alerts_of_purged_payments_go(bank: Path) -> None:
    config = load_config(bank)
    ids = hashed(load_key(config.identifier_key_path), "payment_id", ["p1", "p2"])
    alerts = config.work_dir / "alerts" / "alerts.csv"
    alerts.parent.mkdir(parents=True)
    alerts.write_text("row_id,event_time,score\n" + "".join(f"{each},2024-01-06,0.5\n" for each in ids))
    assert pipeline.purge(bank, accounts=["a1"], log=lambda _: None)["alerts"] == 1
    assert alerts.read_text() == f"row_id,event_time,score\n{ids[1]},2024-01-06,0.5\n"


def test_waiting_requests_are_done_and_removed(bank: Path) -> None:
    config = load_config(bank)
    request = config.work_dir / "purge_requests" / "letter.txt"
    request.parent.mkdir()
    request.write_text("a0\n\na1\n")
    request.chmod(0o644)
    with pytest.raises(ConfigError, match="open to other users"):
        pipeline.purge(bank, log=lambda _: None)
    request.chmod(0o600)
    assert pipeline.purge(bank, log=lambda _: None)["accounts"] == 2
    nothing_of(bank, "a0")
    nothing_of(bank, "a1")
    assert not request.exists()
    assert pipeline.purge(bank, log=lambda _: None)["rows"] == 0


def test_under_another_key_the_purged_can_t_come_back(bank: Path) -> None:
    pipeline.purge(bank, accounts=["a1"], log=lambda _: None)
    key = load_config(bank).identifier_key_path
    key.unlink()
    create_key(key)
    with pytest.raises(DataError, match="Put the key of before in its place"):
        pipeline.extract(bank, log=lambda _: None)


def test_everything_may_be_purged(bank: Path) -> None:
    pipeline.purge(bank, accounts=["a0", "a1", "a2"], log=lambda _: None)
    assert pipeline.extract(bank, log=lambda _: None)["rows"] == 0


def test_a_purge_that_was_cut_short_is_finished_by_the_next_extraction(bank: Path) -> None:
    config = load_config(bank)
    key, store = load_key(config.identifier_key_path), FeatureStore(config.store_dir)
    for place, count in enumerate((3, 9, 31)):
        pipeline.extract(bank, log=lambda _: None)
        with pytest.raises(PowerCut), power_cut_after(count, config.store_dir):
            purge_days(CONTRACT, store, key=key, accounts=[f"a{place}"])
        pipeline.extract(bank, log=lambda _: None)
        nothing_of(bank, f"a{place}")


def test_the_command_shows_counts_and_no_account(bank: Path) -> None:
    accounts = bank.parent / "accounts"
    accounts.write_text("a1\n")
    accounts.chmod(0o600)
    command = [sys.executable, "-m", "bank_node", "purge", "--config", str(bank), "--accounts", str(accounts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accounts"] == 1
    wrong = subprocess.run([*command[:6], "--until", "soon"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "must be days" in wrong.stderr


def test_a_hash_is_found_again_from_the_bank_s_own_identifiers(bank: Path) -> None:
    command = [sys.executable, "-m", "bank_node", "hash", "--config", str(bank)]
    done = subprocess.run(command, input="p7\n", capture_output=True, text=True, check=False)
    assert done.stdout.split()[0] in set(rows(bank)["row_id"])
