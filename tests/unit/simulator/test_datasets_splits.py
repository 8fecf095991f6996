"""The outside data sets: what the split depends on, and what a bank doesn't get to know."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from features import extract_features, load_contract
from protocol.errors import ConfigError
from simulator.datasets import load_dataset
from tests.outside_data import SHARED, needs

needs_data = needs("card_payments", "account_transfers")


@needs_data
def test_an_account_s_bank_follows_from_its_number_alone(tmp_path: Path) -> None:
    few = load_dataset(SHARED / "card_payments", tmp_path / "few", limit=5000)
    more = load_dataset(SHARED / "card_payments", tmp_path / "more", limit=20_000)
    banks = {}
    for made in (few, more):
        for bank, path in made.events.items():
            for account in pd.read_parquet(path)["account_id"].unique():
                assert banks.setdefault(account, bank) == bank
    raw = pd.read_parquet(SHARED / "card_payments" / "transactions.parquet", columns=["acct_num"])
    numbers = raw["acct_num"].astype(str).head(5000).unique()
    expected = {hashlib.sha256(f"crossbank:{number}".encode()).hexdigest()[:16] for number in numbers}
    assert expected <= set(banks)


@needs_data
def test_one_bank_alone_gets_the_same_table_as_among_all(tmp_path: Path) -> None:
    every = load_dataset(SHARED / "card_payments", tmp_path / "every", limit=5000)
    one = load_dataset(SHARED / "card_payments", tmp_path / "one", banks=["city_bank"], limit=5000)
    assert list(one.events) == ["city_bank"] and not (tmp_path / "one" / "north_bank").exists()
    assert one.events["city_bank"].read_bytes() == every.events["city_bank"].read_bytes()
    with pytest.raises(ConfigError, match=r"has no bank moon_bank; it has city_bank, "):
        load_dataset(SHARED / "card_payments", tmp_path / "none", banks=["moon_bank"], limit=5000)


@needs_data
def test_a_transfer_keeps_its_day_and_its_label_stays_at_the_sender_s_bank(tmp_path: Path) -> None:
    raw = pd.read_parquet(SHARED / "account_transfers" / "transfers.parquet").head(5000)
    made = load_dataset(SHARED / "account_transfers", tmp_path, limit=5000)
    everything = pd.concat([pd.read_parquet(path) for path in made.events.values()])
    sent, received = (everything[everything["direction"] == way] for way in ("out", "in"))
    day = (sent["event_time"].dt.normalize() - pd.Timestamp("2026-01-05")).dt.days
    assert sorted(day) == sorted(raw["step"])
    assert sent["is_fraud"].sum() == raw["isSAR"].sum()
    assert (sent["label_time"] - sent["event_time"] == pd.Timedelta(days=14)).all()
    assert received["is_fraud"].isna().all() and received["label_time"].isna().all()


@needs_data
@pytest.mark.parametrize("name", ["card_payments", "account_transfers"])
def test_a_loaded_table_keeps_the_contract(name: str, tmp_path: Path) -> None:
    made = load_dataset(SHARED / name, tmp_path, limit=3000)
    for path in made.events.values():
        table = pd.read_parquet(path)
        assert len(extract_features(load_contract(None), path)) == (table["direction"] == "out").sum()


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        load_dataset(tmp_path / "nowhere", tmp_path / "out")
