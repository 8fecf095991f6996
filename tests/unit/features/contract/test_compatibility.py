"""Versions of contracts: what each change asks for, whom a bank can serve, and the command that says so."""

import copy
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from features import DataContract
from features.contract.compatibility import LEVELS, changes, check_version, required_level, serves
from features.contract.standards import MINOR_UNITS, category_of
from features.engineering.catalogue import CATALOGUE
from features.errors import ContractError

RAW: dict[str, Any] = yaml.safe_load(
    resources.files("features").joinpath("contract/packaged/payments_v1.yaml").read_text()
)
RAW["version"] = "1.0.0"  # the steps below are from here, whichever the packaged one has
OLD = DataContract.model_validate(RAW)
UNUSED = next(name for name in CATALOGUE if name not in OLD.feature_names)

Edit = Callable[[dict[str, Any]], Any]


def edited(edit: Edit, version: str | None = None) -> DataContract:
    raw = copy.deepcopy(RAW)
    edit(raw)
    raw["version"] = version or raw["version"]
    return DataContract.model_validate(raw)


def column(raw: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in raw["columns"] if each["name"] == name)


EDITS: list[tuple[str, str, Edit]] = [
    ("nothing", "none", lambda raw: None),
    ("words of the contract", "patch", lambda raw: raw.update(description="other words")),
    ("words of a column", "patch", lambda raw: raw["columns"][0].update(description="other words")),
    ("words of a feature", "patch", lambda raw: raw["features"][0].update(description="other words")),
    ("a unit", "patch", lambda raw: column(raw, "amount").update(unit="major units")),
    ("a code appended", "minor", lambda raw: raw["vocabularies"]["category"].append("crypto")),
    ("a feature added", "minor", lambda raw: raw["features"].append(raw["features"][0] | {"name": UNUSED})),
    ("features in another order", "minor", lambda raw: raw["features"].reverse()),
    ("another grid", "minor", lambda raw: raw["features"][0]["grid"].update(cells=500)),
    ("a larger most", "minor", lambda raw: column(raw, "amount").update(at_most=2e10)),
    ("a budget", "minor", lambda raw: raw.update(alert_budget=0.01)),
    ("a smaller most", "major", lambda raw: column(raw, "amount").update(at_most=1e6)),
    ("a code in front", "major", lambda raw: raw["vocabularies"]["category"].insert(0, "crypto")),
    ("a code gone", "major", lambda raw: raw["vocabularies"]["category"].pop()),
    ("a feature gone", "major", lambda raw: raw["features"].pop()),
    ("another currency", "major", lambda raw: raw.update(currency="EUR")),
    ("the label's meaning", "major", lambda raw: raw["label"].update(description="something else")),
    ("the label's delay", "major", lambda raw: raw["label"].update(delay_days=30)),
    ("a null allowed", "major", lambda raw: column(raw, "account_id").update(nullable=True)),
]
IDS = [name for name, _, _ in EDITS]


@pytest.mark.parametrize(("name", "level", "edit"), EDITS, ids=IDS)
def test_each_change_asks_for_a_step(name: str, level: str, edit: Edit) -> None:
    assert required_level(OLD, edited(edit)) == level


@pytest.mark.parametrize(("name", "level", "edit"), EDITS, ids=IDS)
def test_a_version_must_tell_what_changed(name: str, level: str, edit: Edit) -> None:
    steps = {"1.0.0": "none", "1.0.1": "patch", "1.1.0": "minor", "2.0.0": "major"}
    for version, step in steps.items():
        new = edited(edit, version)
        if LEVELS.index(step) < LEVELS.index(level):
            with pytest.raises(ContractError, match=f"needs a {level} step"):
                check_version(OLD, new)
        else:
            assert check_version(OLD, new) == level


@pytest.mark.parametrize(("name", "level", "edit"), EDITS, ids=IDS)
def test_a_bank_serves_what_is_no_major_step_away(name: str, level: str, edit: Edit) -> None:
    if level == "major":
        with pytest.raises(ContractError, match=r"can't serve version 1\.0\.0"):
            serves(edited(edit, "2.0.0"), OLD)
    else:
        assert serves(edited(edit, "1.1.0"), OLD) == changes(OLD, edited(edit))


def test_a_bank_does_not_serve_a_newer_contract_nor_another_one() -> None:
    newer = edited(lambda raw: raw["features"].pop(0), "1.1.0")
    with pytest.raises(ContractError, match=r"goes back from version 1\.1\.0"):
        serves(OLD, newer)
    with pytest.raises(ContractError, match="is no version of contract payments"):
        serves(edited(lambda raw: raw.update(name="cards"), "1.1.0"), OLD)


@pytest.mark.parametrize(
    ("names", "level"),
    [
        (("words of a column", "a unit"), "patch"),
        (("words of a feature", "a code appended"), "minor"),
        (("a budget", "another grid", "the label's delay"), "major"),
    ],
)
def test_several_changes_ask_for_the_greatest_step(names: tuple[str, ...], level: str) -> None:
    def every(raw: dict[str, Any]) -> None:
        for name, _, edit in EDITS:
            if name in names:
                edit(raw)

    new = edited(every)
    assert required_level(OLD, new) == level
    assert len(changes(OLD, new)) == len(names)


def test_a_contract_s_currency_is_of_iso_4217() -> None:
    with pytest.raises(ValueError, match="no code of ISO 4217"):
        edited(lambda raw: raw.update(currency="USX"))
    with pytest.raises(ValueError, match="gives JPY 0 minor unit digits"):
        edited(lambda raw: raw.update(currency="JPY"))
    assert (MINOR_UNITS["EUR"], MINOR_UNITS["KWD"], MINOR_UNITS["CLF"], MINOR_UNITS["BGN"]) == (2, 3, 4, 2)


def test_no_currency_is_lost_when_the_library_is_renewed() -> None:
    # Where this fails after `make pins`, ISO 4217 has withdrawn one: keep it in `standards._WITHDRAWN`.
    once = (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF "
        "CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
        "GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP "
        "LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB "
        "PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
        "TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER "
        "ZAR ZMW ZWG"
    )
    assert set(once.split()) <= set(MINOR_UNITS)
    assert set(MINOR_UNITS.values()) == {0, 2, 3, 4}


def test_merchant_categories_are_of_the_contract() -> None:
    assert {category_of(code) for code in range(10_000)} <= set(OLD.codes("category"))
    assert [category_of(code) for code in (5411, 5812, 3005, 4816, 742)] == [
        "grocery_pos", "food_dining", "travel", "other", "kids_pets",
    ]  # fmt: skip


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "features", "contract", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    raw = copy.deepcopy(RAW)
    old.write_text(yaml.safe_dump(raw))
    raw["vocabularies"]["category"].append("crypto")
    new.write_text(yaml.safe_dump(raw))
    shown = command("show", str(old)).stdout
    assert OLD.fingerprint in shown and "amount_to_mean_30d" in shown and "gas_transport" in shown
    assert command("diff", str(old), str(new)).stdout.splitlines() == [
        "minor  vocabularies.category: 1 codes appended",
        "1.0.0 to 1.0.0: needs a minor step",
    ]
    refused = command("check", str(new), "--against", str(old))
    assert refused.returncode == 2 and "needs a minor step" in refused.stderr and "Traceback" not in refused.stderr
    new.write_text(yaml.safe_dump(raw | {"version": "1.1.0"}))
    assert "a minor change" in command("check", str(new), "--against", str(old)).stdout
    assert command("check", str(tmp_path / "none.yaml")).returncode == 2
