"""The payments generator: deterministic, uneven, and with frauds that cross banks."""

from pathlib import Path

import pandas as pd
import pytest

from features import extract_features, load_contract
from protocol.errors import ConfigError
from simulator.generator import FRAUD_TYPES, GeneratedConsortium, GeneratorSettings, generate

SMALL = GeneratorSettings(banks=3, customers=500, merchants=120, days=60, seed=11)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> GeneratedConsortium:
    return generate(SMALL, tmp_path_factory.mktemp("generated"))


def _tables(made: GeneratedConsortium) -> dict[str, pd.DataFrame]:
    return {bank: pd.read_parquet(path) for bank, path in made.events.items()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made: GeneratedConsortium, tmp_path: Path) -> None:
    again = generate(SMALL, tmp_path / "again")
    other = generate(GeneratorSettings(banks=3, customers=500, merchants=120, days=60, seed=12), tmp_path / "other")
    for bank, path in made.events.items():
        assert path.read_bytes() == again.events[bank].read_bytes()
        assert path.read_bytes() != other.events[bank].read_bytes()


def test_banks_are_uneven_and_frauds_are_rare(made: GeneratedConsortium) -> None:
    out = {bank: table[table["direction"] == "out"] for bank, table in _tables(made).items()}
    sizes = sorted(len(table) for table in out.values())
    assert sizes[-1] > 1.5 * sizes[0]
    everything = pd.concat(out.values())
    assert 0.002 < everything["is_fraud"].mean() < 0.02
    assert (everything["label_time"] >= everything["event_time"]).all()


def test_a_bank_has_only_its_own_customers_and_never_the_fraud_s_type(made: GeneratedConsortium) -> None:
    owners = {bank: set(table["account_id"]) for bank, table in _tables(made).items()}
    banks = list(owners)
    assert not any(owners[a] & owners[b] for a in banks for b in banks if a < b)
    assert all("fraud_type" not in table.columns for table in _tables(made).values())


def test_every_type_occurs_and_mule_chains_cross_banks(made: GeneratedConsortium) -> None:
    truth = pd.read_parquet(made.truth)
    assert set(truth["fraud_type"]) == set(FRAUD_TYPES)
    everything = pd.concat([t[t["direction"] == "out"].assign(bank=b) for b, t in _tables(made).items()])
    chains = everything.merge(truth[truth["fraud_type"] == "mule_chain"], on="payment_id", suffixes=("", "_t"))
    assert (chains["bank"] != chains["counterparty_bank"]).mean() > 0.2


def test_a_generated_table_keeps_the_contract(made: GeneratedConsortium) -> None:
    bank, path = next(iter(made.events.items()))
    table = extract_features(load_contract(None), path)
    assert len(table) == (_tables(made)[bank]["direction"] == "out").sum()


@pytest.mark.parametrize("change", [{"banks": 0}, {"banks": 101}, {"customers": 10}, {"days": 5}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="the generator"):
        GeneratorSettings(**({"banks": 3} | change))
