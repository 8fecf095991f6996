"""The outside data sets: stable splits, and nothing personal or of the other bank is copied."""

from pathlib import Path

import pandas as pd
import pytest

from features import load_contract
from protocol.errors import ConfigError
from simulator.datasets import contract_for, load_dataset, unlike_life
from simulator.demo import run_demo
from tests.outside_data import SHARED, needs

needs_data = needs("card_payments", "account_transfers")


@needs_data
def test_card_payments_are_split_by_account_with_the_stated_weights(tmp_path: Path) -> None:
    made = load_dataset(SHARED / "card_payments", tmp_path, limit=200_000)
    tables = {bank: pd.read_parquet(path) for bank, path in made.events.items()}
    accounts = {bank: set(table["account_id"]) for bank, table in tables.items()}
    total = sum(map(len, accounts.values()))
    shares = [
        len(accounts[b]) / total for b in ("north_bank", "harbour_bank", "city_bank", "union_bank", "valley_bank")
    ]
    assert shares == pytest.approx([0.40, 0.25, 0.15, 0.12, 0.08], abs=0.05)
    assert sum(map(len, tables.values())) == 200_000
    assert all(table["payment_id"].is_unique for table in tables.values())
    customers = pd.read_parquet(SHARED / "card_payments" / "customers.parquet")
    raw = {str(v) for column in ("ssn", "cc_num", "acct_num", "street") for v in customers[column]}
    for path in made.events.values():
        held = {
            str(v) for column in ("account_id", "counterparty_id", "payment_id") for v in pd.read_parquet(path)[column]
        }
        assert not held & raw


@needs_data
def test_each_side_of_a_transfer_is_at_its_own_bank(tmp_path: Path) -> None:
    made = load_dataset(SHARED / "account_transfers", tmp_path, limit=5000)
    tables = {bank: pd.read_parquet(path) for bank, path in made.events.items()}
    everything = pd.concat([table.assign(bank=bank) for bank, table in tables.items()])
    assert (everything["direction"] == "out").sum() == (everything["direction"] == "in").sum() == 5000
    assert not [c for c in everything.columns if "balance" in c.lower() or "phone" in c.lower()]
    both = everything[everything["direction"] == "out"].merge(
        everything[everything["direction"] == "in"], on="payment_id", suffixes=("", "_in")
    )
    assert (both["counterparty_bank"] == both["bank_in"]).all() and (both["counterparty_bank_in"] == both["bank"]).all()


def test_an_unknown_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds neither transactions\.parquet nor transfers\.parquet"):
        load_dataset(tmp_path, tmp_path / "out")


def test_a_set_s_gate_lacks_only_the_bound_that_the_set_can_t_keep(tmp_path: Path) -> None:
    cards, transfers = tmp_path / "cards", tmp_path / "transfers"
    for folder, name in ((cards, "transactions"), (transfers, "transfers")):
        folder.mkdir()
        (folder / f"{name}.parquet").touch()
    assert contract_for(tmp_path, tmp_path / "none.yaml") is None and unlike_life(tmp_path) == ""
    packaged = load_contract(None)
    for folder, limits in ((transfers, {"volume_low": 0.0}), (cards, {"drift_stop": 100.0})):
        changed = load_contract(contract_for(folder, tmp_path / "contract.yaml"))
        assert changed.quality == packaged.quality.model_copy(update=limits) != packaged.quality
        assert changed.model_copy(update={"quality": packaged.quality}) == packaged
        assert unlike_life(folder)


def test_a_broken_feed_is_not_shown_where_it_could_not_be_told_apart(tmp_path: Path) -> None:
    (tmp_path / "transfers.parquet").touch()
    with pytest.raises(ConfigError, match="can't be told apart"):
        run_demo(tmp_path, tmp_path / "demo", keep=False, trees=1, broken_bank=True)
