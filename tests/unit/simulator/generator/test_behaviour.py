"""What a generated consortium is like: schema, sizes, labels, and frauds that really cross banks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protocol.errors import ConfigError
from simulator.generator import FRAUD_TYPES, GeneratedConsortium, GeneratorSettings, bank_names, generate
from simulator.generator.frauds import fraud_pressure
from simulator.generator.payments import episode_times
from simulator.generator.population import FIRST_DAY, bank_sizes, populate

SMALL = GeneratorSettings(customers=700, merchants=200, days=70, seed=5)
COLUMNS = [
    "payment_id", "event_time", "account_id", "counterparty_id", "counterparty_bank", "direction", "channel", "amount",
    "category", "is_fraud", "label_time",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> GeneratedConsortium:
    return generate(SMALL, tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def everything(made: GeneratedConsortium) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p).assign(bank=b) for b, p in made.events.items()], ignore_index=True)


@pytest.fixture(scope="module")
def out(everything: pd.DataFrame) -> pd.DataFrame:
    return everything[everything["direction"] == "out"]


@pytest.fixture(scope="module")
def truth(made: GeneratedConsortium) -> pd.DataFrame:
    assert made.truth is not None
    return pd.read_parquet(made.truth)


def test_the_columns_are_the_contract_s_and_values_are_in_range(
    made: GeneratedConsortium, everything: pd.DataFrame
) -> None:
    for path in made.events.values():
        table = pd.read_parquet(path)
        assert list(table.columns) == COLUMNS
        assert not table.duplicated(["payment_id", "direction"]).any()
        assert str(table["event_time"].dtype) == str(table["label_time"].dtype) == "datetime64[us]"
    assert (everything["amount"] >= 0.01).all()
    assert everything["event_time"].between(FIRST_DAY, FIRST_DAY + pd.Timedelta(days=SMALL.days)).all()
    assert set(everything["direction"]) == {"out", "in"} and set(everything["channel"]) == {"card", "transfer"}
    assert (everything["account_id"] != everything["counterparty_id"]).all()


def test_every_transfer_between_customers_is_seen_by_both_banks(everything: pd.DataFrame) -> None:
    inside = everything[everything["counterparty_bank"].notna()]
    sent, received = (inside[inside["direction"] == way].set_index("payment_id") for way in ("out", "in"))
    assert set(sent.index) == set(received.index) and len(sent) > 1000
    received = received.loc[sent.index]
    assert (sent["account_id"] == received["counterparty_id"]).all()
    assert (sent["counterparty_id"] == received["account_id"]).all()
    assert (sent["counterparty_bank"] == received["bank"]).all()
    assert (received["counterparty_bank"] == sent["bank"]).all()
    assert (sent["amount"] == received["amount"]).all()


def test_a_bank_s_rows_are_of_its_own_customers(made: GeneratedConsortium, everything: pd.DataFrame) -> None:
    owner = everything.groupby("account_id")["bank"].nunique()
    assert (owner == 1).all() and len(owner) <= SMALL.customers
    assert len(made.events) == 4


def test_a_receiver_s_bank_has_no_label(everything: pd.DataFrame) -> None:
    received = everything[everything["direction"] == "in"]
    assert len(received) > 0 and received["is_fraud"].isna().all() and received["label_time"].isna().all()


def test_labels_are_delayed_and_noisy(out: pd.DataFrame, truth: pd.DataFrame) -> None:
    assert out["is_fraud"].notna().all()
    delay = out["label_time"] - out["event_time"]
    assert (delay > pd.Timedelta(0)).all() and (delay <= pd.Timedelta(days=14)).all()
    assert (delay[out["is_fraud"] == 0] == pd.Timedelta(days=14)).all()
    labelled = out.set_index("payment_id")["is_fraud"]
    assert 0.85 < labelled[truth["payment_id"]].mean() < 0.99
    false_claims = labelled.drop(truth["payment_id"]).mean()
    assert 0 < false_claims < 0.001
    assert 0.003 < labelled.mean() < 0.012


def test_without_noise_the_labels_are_the_truth(tmp_path: Path) -> None:
    clean = generate(replace(SMALL, never_reported=0.0, false_claims=0.0), tmp_path)
    assert clean.truth is not None
    truth = pd.read_parquet(clean.truth)
    for bank, path in clean.events.items():
        table = pd.read_parquet(path)
        mine = truth.loc[truth["bank"] == bank, "payment_id"]
        assert set(table.loc[table["is_fraud"] == 1, "payment_id"]) == set(mine)


def test_labels_as_of_a_day_hides_later_labels_and_nothing_else(made: GeneratedConsortium, tmp_path: Path) -> None:
    moment = FIRST_DAY + pd.Timedelta(days=SMALL.days)
    then = generate(replace(SMALL, labels_as_of=moment.to_pydatetime()), tmp_path)
    for bank, path in made.events.items():
        full, partial = pd.read_parquet(path), pd.read_parquet(then.events[bank])
        pd.testing.assert_frame_equal(full[COLUMNS[:9]], partial[COLUMNS[:9]])
        known = (full["label_time"] <= moment).to_numpy()
        hidden = (full["direction"] == "out").to_numpy() & ~known
        assert hidden.any() and known.any()
        assert partial.loc[~known, ["is_fraud", "label_time"]].isna().all(axis=None)
        assert (partial.loc[known, "is_fraud"] == full.loc[known, "is_fraud"]).all()


def test_mule_chains_cross_banks_at_every_hop_and_lose_a_little(out: pd.DataFrame, truth: pd.DataFrame) -> None:
    chain = out.merge(truth[truth["fraud_type"] == "mule_chain"], on=["payment_id", "bank"])
    hops = chain[chain["counterparty_bank"].notna()]
    assert len(hops) > 10 and (hops["bank"] != hops["counterparty_bank"]).all()
    linked = hops.merge(chain, left_on="counterparty_id", right_on="account_id", suffixes=("", "_next"))
    wait = linked["event_time_next"] - linked["event_time"]
    linked = linked[(wait > pd.Timedelta(0)) & (wait < pd.Timedelta(hours=7))]
    ratio = linked["amount_next"] / linked["amount"]
    assert ratio.between(0.85, 0.99).mean() > 0.8
    assert linked["bank"].nunique() >= 3


def test_a_compromised_merchant_s_customers_are_hit_at_every_bank(out: pd.DataFrame, truth: pd.DataFrame) -> None:
    hit = out.merge(truth[truth["fraud_type"] == "merchant_compromise"], on=["payment_id", "bank"])
    assert hit["bank"].nunique() >= 3 and (hit["channel"] == "card").all()


def test_every_fraud_is_one_bank_s_outgoing_payment(out: pd.DataFrame, truth: pd.DataFrame) -> None:
    assert truth["payment_id"].is_unique and set(truth["fraud_type"]) == set(FRAUD_TYPES)
    assert len(truth.merge(out, on=["payment_id", "bank"])) == len(truth)


def test_nothing_in_a_table_names_the_fraud(made: GeneratedConsortium) -> None:
    for path in made.events.values():
        table = pd.read_parquet(path)
        columns = [c for c in COLUMNS if c not in ("event_time", "label_time", "amount", "is_fraud")]
        text = " ".join(str(value) for column in columns for value in table[column].dropna().unique())
        assert not any(name in text for name in (*FRAUD_TYPES, "mule", "fraud", "scam"))


@pytest.mark.parametrize("banks", [1, 2, 5, 100])
def test_sizes_are_unequal_add_up_and_no_bank_is_empty(banks: int) -> None:
    sizes = bank_sizes(banks, 20 * banks)
    assert sizes.sum() == 20 * banks and sizes.min() >= 5 and (np.diff(sizes) <= 1).all()
    assert len(set(bank_names(banks))) == banks
    assert banks == 1 or sizes[0] > 1.5 * sizes[-1]


def test_four_banks_have_the_stated_sizes() -> None:
    assert bank_sizes(4, 1000).tolist() == [400, 300, 200, 100]


@pytest.mark.parametrize("banks", [1, 2, 13])
def test_any_number_of_banks_works(banks: int, tmp_path: Path) -> None:
    made = generate(GeneratorSettings(banks=banks, customers=20 * banks + 60, merchants=50, days=40), tmp_path)
    assert list(made.events) == list(bank_names(banks))
    assert all(len(pd.read_parquet(path)) > 50 for path in made.events.values())


@pytest.mark.parametrize("banks", [1, 3, 4, 9])
def test_fraud_pressure_moves_and_is_fair_in_the_long_run(banks: int) -> None:
    settings = replace(SMALL, banks=banks, days=12 * SMALL.campaign_days, fraud_migration=1.0)
    rng = np.random.default_rng(0)
    pressure = fraud_pressure(populate(settings, rng), rng)
    assert pressure.shape == (len(FRAUD_TYPES), 12, banks) and (pressure >= 0).all()
    np.testing.assert_allclose(pressure.mean(axis=1), 1.0)
    still = replace(settings, fraud_migration=0.0)
    np.testing.assert_allclose(fraud_pressure(populate(still, rng), rng), 1.0)


def test_episode_times_restart_at_each_begin() -> None:
    times = episode_times(np.array([100, 1000, 5000]), np.array([2, 0, 3]), np.array([1, 2, 10, 20, 30]))
    assert times.tolist() == [101, 103, 5010, 5030, 5060]


def test_the_global_generator_is_neither_used_nor_changed(tmp_path: Path) -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    generate(GeneratorSettings(customers=100, merchants=60, days=40), tmp_path)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


@pytest.mark.parametrize(
    "change", [{"fraud_migration": 1.5}, {"never_reported": -0.1}, {"campaign_days": 0}, {"label_delay_days": -1.0}]
)
def test_a_setting_out_of_range_is_named(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(SMALL, **change)  # type: ignore[arg-type]
