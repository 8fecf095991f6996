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
from bank_node.data_governance import purge as purging
from bank_node.data_governance.purge import purge_rows
from bank_node.dataset.feature_tables import feature_rows
from bank_node.models.lineage import note_trained_on, seen_until
from features import load_contract
from features.errors import DataError
from features.identifiers import create_key, hashed, load_key
from features.incremental import purge_days
from features.store.partitions import FeatureStore
from protocol.errors import LocalError
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
        yaml.safe_dump(
            {"bank_id": "alder", "events": "events.parquet", "work_dir": "work", "purge_share": 1, "aggregator": node}
        )
    )
    pipeline.extract(path, log=lambda _: None)
    return path


def listed(bank: Path, *accounts: str) -> Path:
    """A list of accounts, as an officer would write it."""
    path = bank.parent / "accounts.txt"
    path.write_text("".join(f"{account}\n" for account in accounts))
    path.chmod(0o600)
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
    record = pipeline.purge(bank, accounts=listed(bank, "a1"), reason="asked by letter", log=lambda _: None)
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
    record = pipeline.purge(bank, accounts=listed(bank, "a1"), log=lambda _: None)
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
    every = pipeline.purge(bank, accounts=listed(bank, "a2"), log=lambda _: None)["models"]
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
    assert pipeline.purge(bank, accounts=listed(bank, "a9"), log=lambda _: None)["models"][0]["certain"] is False


def test_alerts_of_purged_payments_go(bank: Path) -> None:
    config = load_config(bank)
    ids = hashed(load_key(config.identifier_key_path), "payment_id", ["p1", "p2"])
    alerts = config.work_dir / "alerts" / "alerts.csv"
    alerts.parent.mkdir(parents=True)
    alerts.write_text("row_id,event_time,score\n" + "".join(f"{each},2024-01-06,0.5\n" for each in ids))
    assert pipeline.purge(bank, accounts=listed(bank, "a1"), log=lambda _: None)["alerts"] == 1
    assert alerts.read_text() == f"row_id,event_time,score\n{ids[1]},2024-01-06,0.5\n"


def requests(bank: Path, **files: bytes) -> Path:
    """Files that wait in purge_requests; a name's underscore stands for its dot."""
    folder = load_config(bank).work_dir / "purge_requests"
    folder.mkdir(exist_ok=True)
    for name, body in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(body)
        path.chmod(0o600)
    return folder


def test_waiting_requests_are_done_and_removed(bank: Path) -> None:
    folder = requests(bank, letter_txt=b"\xef\xbb\xbfa0\r\n\na1\n", Capital_TXT=b"a2")
    assert pipeline.purge(bank, log=lambda _: None)["accounts"] == 3
    for account in ("a0", "a1", "a2"):
        nothing_of(bank, account)
    assert not list(folder.iterdir())
    assert pipeline.purge(bank, log=lambda _: None)["rows"] == 0


def test_every_waiting_file_is_done_or_named_as_refused(bank: Path) -> None:
    """A request that nobody reads is an erasure that is lost: the task must not be green."""
    folder = requests(
        bank,
        letter_txt=b"a0\n",
        open_txt=b"a2\n",
        other_csv=b"a1\n",
        plain=b"a1\n",
        bytes_txt=b"\xff\xfea\x001\x00",
        empty_txt=b" \n",
    )
    (folder / "open.txt").chmod(0o644)
    (folder / "below").mkdir()
    (folder / "link.txt").symlink_to(folder / "plain")
    with pytest.raises(LocalError, match=r"7 of the files in .*purge_requests are refused, the rest is done") as caught:
        pipeline.purge(bank, log=lambda _: None)
    text = str(caught.value)
    for name, why in {
        "below": "is no file",
        "bytes.txt": "no UTF-8 text",
        "empty.txt": "has no account",
        "link.txt": "is no file",
        "open.txt": "open to other users",
        "other.csv": "must be called",
        "plain": "must be called",
    }.items():
        assert f"{name}: " in text and why in text.partition(f"{name}: ")[2].partition(";")[0]
    nothing_of(bank, "a0")
    assert not (folder / "letter.txt").exists() and (folder / "other.csv").exists()
    lines = [json.loads(line) for line in (load_config(bank).work_dir / "purges.jsonl").read_text().splitlines()]
    assert lines[-1]["state"] == "done" and lines[-1]["refused_requests"] == 7


def test_a_request_that_grows_while_it_is_done_is_not_lost(bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = requests(bank, letter_txt=b"a0\n"), purging.purge_days

    def growing(*args: Any, **options: Any) -> Any:
        (folder / "letter.txt").write_bytes(b"a0\na1\n")
        return whole(*args, **options)

    monkeypatch.setattr(purging, "purge_days", growing)
    said: list[str] = []
    pipeline.purge(bank, log=said.append)
    assert any("letter.txt has changed" in text for text in said)
    monkeypatch.setattr(purging, "purge_days", whole)
    assert pipeline.purge(bank, log=lambda _: None)["accounts"] == 2
    nothing_of(bank, "a1")
    assert not list(folder.iterdir())


def files_of(bank: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in sorted(load_config(bank).work_dir.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_dry_run_tells_what_would_go_and_changes_nothing(bank: Path) -> None:
    requests(bank, letter_txt=b"a0\n")
    before, said = files_of(bank), []
    record = pipeline.purge(bank, accounts=listed(bank, "a1"), dry_run=True, log=said.append)
    assert files_of(bank) == before
    assert record["dry_run"] and record["accounts"] == 2 and 0 < record["rows"] < record["of_rows"] == 40
    assert f"{record['rows']} of 40 rows" in said[0] and "would be removed" in said[0] and "no way back" in said[0]
    done: list[str] = []
    assert pipeline.purge(bank, accounts=listed(bank, "a1"), log=done.append)["rows"] == record["rows"]
    assert "are to be removed, for good" in done[0], "said before it is done"


def test_more_than_the_share_waits_for_a_person(bank: Path) -> None:
    edited(bank, purge_share=0.2)
    accounts = listed(bank, "a1")
    rows_of_a1 = pipeline.purge(bank, accounts=accounts, dry_run=True, log=lambda _: None)["rows"]
    before = files_of(bank)
    # As the DAG calls it: retention by mistake, or a request that takes too much.
    requests(bank, letter_txt=b"a1\n")
    with pytest.raises(LocalError, match=rf"{rows_of_a1} of 40 rows .* --confirm {rows_of_a1}"):
        pipeline.purge(bank, log=lambda _: None)
    with pytest.raises(LocalError, match=f"{rows_of_a1 - 1} rows were confirmed, but {rows_of_a1} would be removed"):
        pipeline.purge(bank, confirm=rows_of_a1 - 1, log=lambda _: None)
    after = files_of(bank)
    assert {path: after[path] for path in before} == before and not (
        load_config(bank).work_dir / "purges.jsonl"
    ).exists()
    assert pipeline.purge(bank, confirm=rows_of_a1, log=lambda _: None)["rows"] == rows_of_a1
    nothing_of(bank, "a1")


def test_an_account_that_is_not_there_is_told_by_its_place(bank: Path) -> None:
    said: list[str] = []
    record = pipeline.purge(bank, accounts=listed(bank, "a1", "A1", "nobody"), log=said.append)
    assert record["accounts_without_rows"] == 2
    assert [text.partition(":")[0] for text in said if "no row here" in text] == [
        "accounts.txt, line 2",
        "accounts.txt, line 3",
    ]
    assert not [text for text in said if "nobody" in text]
    assert pipeline.purge(bank, accounts=listed(bank, "a1"), log=said.append)["accounts_without_rows"] == 1


def test_a_period_without_a_day_is_refused(bank: Path) -> None:
    day = START.date()
    with pytest.raises(LocalError, match="it has no day"):
        pipeline.purge(bank, since=day, until=day, log=lambda _: None)


def test_under_another_key_the_purged_can_t_come_back(bank: Path) -> None:
    pipeline.purge(bank, accounts=listed(bank, "a1"), log=lambda _: None)
    key = load_config(bank).identifier_key_path
    key.unlink()
    create_key(key)
    with pytest.raises(DataError, match="Put the key of before in its place"):
        pipeline.extract(bank, log=lambda _: None)


def test_everything_may_be_purged(bank: Path) -> None:
    pipeline.purge(bank, accounts=listed(bank, "a0", "a1", "a2"), log=lambda _: None)
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
