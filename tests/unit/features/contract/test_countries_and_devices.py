"""The contract's optional columns: countries of ISO 3166 read in any of their codes, devices hashed and shared."""

import copy
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pycountry
import pytest
import yaml
from pydantic import ValidationError

from features import DataContract, load_contract
from features.contract.mapping import Mapping, identity_mapping
from features.contract.standards import COUNTRIES, COUNTRY_OF
from features.errors import ContractError
from features.identifiers import KEY_BYTES, IdentifierKey, hashed
from features.incremental import extract_days, read_features
from features.shared_risk import day_number, day_tables, facts_of, shared_features, tokens_of
from features.store.partitions import FeatureStore
from tests.unit.features.payments import frame, payment, written

RAW: dict[str, Any] = yaml.safe_load(
    resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_text()
)
CONTRACT = load_contract()
KEY, SHARED_KEY = (IdentifierKey(bytes([number]) * KEY_BYTES) for number in (1, 2))
COUNTRY_FEATURE = {
    "name": "counterparty_country_code",
    "description": "x",
    "grid": {"kind": "linear", "low": 0, "high": 249, "cells": 249},
}


def with_devices(**changes: Any) -> DataContract:
    raw = copy.deepcopy(RAW)
    kind = {"name": "device", "column": "device_id", "channels": ["card", "transfer"], "width": 64, "depth": 2}
    raw["shared_risk"]["kinds"].append(kind)
    raw["features"].append(
        {
            "name": "shared_device_frauds_30d",
            "description": "Frauds from this device.",
            "grid": {"kind": "values", "values": [1, 2]},
        }
    )
    return DataContract.model_validate(raw | changes)


def extracted(
    table: pd.DataFrame, folder: Path, contract: DataContract, mapping: Mapping | None = None
) -> tuple[Any, FeatureStore]:
    store = FeatureStore(folder / "store")
    source = written(table, folder / "payments.parquet")
    done = extract_days(contract, source, store, key=KEY, shared_key=SHARED_KEY, mapping=mapping)
    return done, store


def events(store: FeatureStore) -> pd.DataFrame:
    parts = [store.read(store.partition("events", day)) for day in store.days("events")]
    return pyarrow.concat_tables(parts).to_pandas()


def test_the_table_of_countries_is_the_standard_s() -> None:
    assert len(COUNTRIES) == len(set(COUNTRIES)) == 249 and list(COUNTRIES) == sorted(COUNTRIES)
    for codes, country in (
        (("CH", "CHE", "756"), "CH"),
        (("AF", "AFG", "004", "4"), "AF"),
        (("NO", "NOR", "578"), "NO"),
    ):
        assert {COUNTRY_OF[code] for code in codes} == {country}
    # Two-letter, three-letter and numeric codes of 249 countries, and those with zeros in front without them.
    assert len(COUNTRY_OF) == 3 * 249 + sum(code.isdigit() and len(code) < 3 for code in COUNTRY_OF)


def test_the_library_s_countries_are_the_list_s() -> None:
    # Where this fails after `make pins`, ISO 3166-1 has changed: a new country is a new version of the contract.
    assert tuple(sorted(country.alpha_2 for country in pycountry.countries)) == COUNTRIES


def test_the_contract_names_the_list_and_its_fingerprint_has_the_codes() -> None:
    assert CONTRACT.codes("counterparty_country") == COUNTRIES
    out = copy.deepcopy(RAW)
    out["vocabularies"]["country"] = list(COUNTRIES)
    assert DataContract.model_validate(out).fingerprint == CONTRACT.fingerprint
    out["vocabularies"]["country"] = "iso4217"
    with pytest.raises(ValidationError, match="country"):
        DataContract.model_validate(out)


@pytest.mark.parametrize(
    ("written_as", "expected", "bad"),
    [
        (
            ["CHE", "756", " ch ", "4", "004", "AFG", None, "", "XX", "Switzerland", "7560"],
            [*["CH"] * 3, *["AF"] * 3, None, None],
            3,
        ),
        # As pandas writes whole numbers with gaps.
        ([756.0, None, 4.0, 756.5], ["CH", None, "AF"], 1),
    ],
)
def test_countries_are_read_in_any_code_and_others_are_set_aside(
    tmp_path: Path, written_as: list[object], expected: list[str | None], bad: int
) -> None:
    rows = [payment(number) | {"land": code} for number, code in enumerate(written_as)]
    mapping = identity_mapping(CONTRACT)
    columns = {
        name: column for name, column in mapping.columns.items() if name not in ("counterparty_country", "device_id")
    }
    country = {"counterparty_country": {"from": "land", "standard": "iso3166"}}
    read = Mapping.model_validate({"contract": CONTRACT.name, "columns": columns | country})
    done, store = extracted(frame(rows), tmp_path, CONTRACT, read)
    assert done.quarantined == {("counterparty_country", "no country code of ISO 3166"): bad}
    found = events(store).sort_values("event_time")["counterparty_country"]
    assert [None if pd.isna(each) else each for each in found] == expected


def test_without_the_standard_only_two_letter_codes_pass(tmp_path: Path) -> None:
    rows = [payment(number, counterparty_country=code) for number, code in enumerate(["CH", "CHE", "NO"])]
    done, store = extracted(frame(rows), tmp_path, CONTRACT)
    assert done.quarantined == {("counterparty_country", "a code that the contract doesn't know"): 1}
    assert sorted(events(store)["counterparty_country"]) == ["CH", "NO"]


def test_the_country_as_a_feature(tmp_path: Path) -> None:
    contract = DataContract.model_validate(RAW | {"features": [*RAW["features"], COUNTRY_FEATURE]})
    codes = ["ZW", None, "AD", "CH"]
    rows = [payment(number, counterparty_country=code) for number, code in enumerate(codes)]
    _, store = extracted(frame(rows), tmp_path, contract)
    made = pyarrow.concat_tables(read_features(store, contract)).to_pandas()["counterparty_country_code"]
    expected = [np.nan if code is None else COUNTRIES.index(code) for code in codes]
    np.testing.assert_array_equal(made, np.array(expected, dtype=np.float32))


def test_a_feature_or_a_kind_without_its_column_is_refused(tmp_path: Path) -> None:
    few = [column for column in RAW["columns"] if column["name"] not in ("counterparty_country", "device_id")]
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(RAW | {"columns": few, "features": [*RAW["features"], COUNTRY_FEATURE]}))
    with pytest.raises(ContractError, match="no column for the features counterparty_country_code"):
        load_contract(path)
    bare = [
        {key: value for key, value in column.items() if key != "vocabulary" or column["name"] != "counterparty_country"}
        for column in RAW["columns"]
    ]
    with pytest.raises(ValidationError, match="needs column counterparty_country to name a vocabulary"):
        DataContract.model_validate(RAW | {"columns": bare, "features": [*RAW["features"], COUNTRY_FEATURE]})
    with pytest.raises(ValidationError, match="kind device needs the column device_id"):
        with_devices(columns=few)
    device = [feature for feature in with_devices().model_dump()["features"] if "shared_device" in feature["name"]]
    with pytest.raises(ValidationError, match="needs a kind with the column device_id"):
        DataContract.model_validate(RAW | {"features": [*RAW["features"], *device]})
    DataContract.model_validate(RAW | {"columns": few})


def test_devices_are_hashed_and_no_plain_one_is_kept(tmp_path: Path) -> None:
    rows = [payment(number, device_id="plaindevice" if number % 2 else None) for number in range(6)]
    _, store = extracted(frame(rows), tmp_path, CONTRACT)
    found = events(store)
    assert set(found["device_id"].dropna()) == set(hashed(KEY, "device_id", ["plaindevice"]))
    assert set(found["shared_device"].dropna()) == set(hashed(SHARED_KEY, "device_id", ["plaindevice"]))
    assert found["device_id"].notna().sum() == found["shared_device"].notna().sum() == 3
    kept = [file for file in store.root.rglob("*") if file.is_file()]
    assert kept and not any(b"plaindevice" in file.read_bytes() for file in kept)


def test_what_other_banks_saw_of_a_device_is_a_feature() -> None:
    spec = with_devices().shared_risk
    assert spec is not None
    kind = spec.kind("device")
    first = day_number(pd.Series(pd.to_datetime(["2024-01-05"])))[0]
    ids = ["phone", "tablet"]
    tokens = {each.name: ([], tokens_of(KEY.secret, each.name, [])) for each in spec.kinds}
    tokens["merchant"] = (["m"], tokens_of(KEY.secret, "merchant", ["m"]))
    tokens["device"] = (ids, tokens_of(KEY.secret, "device", ids))

    def bank(accounts: list[str]) -> pd.DataFrame:
        day = pd.Timestamp("2024-01-05")
        rows = [{"account_id": name, "device_id": "phone", "is_fraud": 1.0} for name in accounts]
        rows.append({"account_id": "z", "device_id": None, "is_fraud": 1.0})
        table = pd.DataFrame(rows).assign(direction="out", channel="card", counterparty_id="m", event_time=day)
        return table.assign(settled_time=day + pd.Timedelta(days=2))

    total = sum(
        day_tables(facts_of(bank(names), spec, tokens)["device"], kind, first, 5) for names in (["a"], ["b", "c"])
    )

    def read(kind: Any, start: int, days: int) -> np.ndarray:
        wanted = np.zeros((days, 4, kind.depth, kind.width), dtype=np.int64)
        if kind.name == "device":
            for place in range(max(0, first - start), min(days, first + 5 - start)):
                wanted[place] = total[start + place - first]
        return wanted

    rows = pd.DataFrame(
        {
            "channel": "card",
            "account_id": "q",
            "counterparty_id": "m",
            "device_id": ["phone", "phone", "tablet", None],
            "event_time": pd.to_datetime(["2024-01-07", "2024-01-08", "2024-01-08", "2024-01-08"]),
        }
    )
    names = ["shared_device_frauds_30d", "shared_device_banks_30d", "shared_device_payments_30d"]
    found = shared_features(rows, spec, names, read, (first, first + 4), tokens)
    # Known on the 7th: a row of that day sees nothing of it, and a payment without a device never does.
    np.testing.assert_array_equal(found["shared_device_frauds_30d"], np.array([0, 3, 0, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(found["shared_device_banks_30d"], np.array([0, 2, 0, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(found["shared_device_payments_30d"], np.array([3, 3, 0, np.nan], dtype=np.float32))
