"""The first hour of a bank's data engineer: the commands of docs/data.md as written there, on exports as they are.

Each export is made by its test. A draft may be edited in at most three places, and the test counts them.
"""

import difflib
import json
import random
import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from bank_node.cli import app as bank_node
from bank_node.config import load_config
from bank_node.dataset.feature_tables import feature_rows
from features import load_contract
from features.cli import app as features
from tests.unit.features.ingestion.profile import exports

APPS: dict[str, typer.Typer] = {"bank-node": bank_node, "features": features}
PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def blocks(language: str) -> list[str]:
    """The code blocks of a language in the section of the page, without their indent."""
    section = PAGE.read_text().split("\n## The first hour\n")[1].split("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", section, flags=re.S)]


def commands() -> list[str]:
    """The commands, in their order."""
    return [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


class FirstHour:
    """A bank's folder, in which the commands of the page are run."""

    def __init__(self, folder: Path, currency: str) -> None:
        self.folder = folder
        self.currency = currency
        (folder / "bank.yaml").write_text(blocks("yaml")[0])
        (folder / "payments").mkdir()
        self.asked = 0
        self.edits = 0

    def run(self, command: str) -> str:
        program, *words = shlex.split(command)
        done = CliRunner().invoke(APPS[program], words, env={"COLUMNS": "200"}, catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"
        return done.output

    def edit(self, changes: dict[str, str]) -> None:
        path = self.folder / "mapping.yaml"
        draft = path.read_text()
        text = draft
        for old, new in changes.items():
            assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in\n{draft}"
            text = text.replace(old, new)
        path.write_text(text)
        matched = difflib.SequenceMatcher(None, draft.splitlines(), text.splitlines(), autojunk=False)
        self.edits = sum(max(b - a, d - c) for tag, a, b, c, d in matched.get_opcodes() if tag != "equal")

    def through(self, changes: dict[str, str]) -> dict[str, Any]:
        """All commands of the page in turn; what the extraction said."""
        result: dict[str, Any] = {}
        for command in commands():
            output = self.run(command)
            if command.startswith("features contract export"):
                path = self.folder / "contract.yaml"
                path.write_text(path.read_text().replace("currency: USD", f"currency: {self.currency}"))
            elif command.startswith("bank-node profile") and "--try" not in command:
                self.asked = len(re.findall(r"^check  ", output, flags=re.M))
                self.edit(changes)
            elif command.startswith("bank-node extract"):
                result = json.loads(output[output.index("{") :])
        return result


@pytest.fixture
def hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FirstHour]:
    monkeypatch.chdir(tmp_path)
    return lambda currency: FirstHour(tmp_path, currency)


RATES = {"EUR": 1.0, "CHF": 1.02, "CNY": 0.14}
CONFIRMED = {"confirmed: false": "confirmed: true"}


def check(hour: FirstHour, result: dict[str, Any], rows: int = exports.ROWS, frauds: int | None = None) -> None:
    payments = result["payments"]
    set_aside = sum(payments["quarantined"].values())
    assert payments["read"] == rows == payments["kept"] + payments["repeated"] + set_aside
    assert set_aside <= 0.01 * rows and payments["repeated"] == 0
    assert 1 <= hour.edits <= 3
    config = load_config(hour.folder / "bank.yaml")
    made = feature_rows(config, load_contract(config.contract))
    assert len(made) == result["rows"] > 0
    if frauds is not None:
        assert result["frauds"] == frauds


def frauds_out(rows: list[list[str]], label: str, yes: str, direction: str, out: str) -> int:
    pairs = zip(exports.columns_of(rows, label), exports.columns_of(rows, direction), strict=True)
    return sum(one == yes and way == out for one, way in pairs)


def rows_of(make: Callable[..., list[list[str]]]) -> list[list[str]]:
    return make(random.Random(5))


def test_a_german_export(hour: Callable[..., FirstHour]) -> None:
    first = hour("EUR")
    exports.written(exports.german, Path("payments/umsatz.csv"), delimiter=";", encoding="cp1252")
    result = first.through(
        CONFIRMED
        | {
            "format: '%d.%m.%Y %H:%M:%S'": "format: '%d.%m.%Y %H:%M:%S'\n    zone: Europe/Berlin",
            "format: '%d.%m.%Y'}": "format: '%d.%m.%Y', zone: Europe/Berlin}",
        }
    )
    check(first, result, frauds=frauds_out(rows_of(exports.german), "Betrugskennzeichen", "J", "Soll/Haben", "S"))
    events = yaml.safe_load(Path("mapping.yaml").read_text())
    assert events["currency"] == {"from": "Währung"}


def test_a_french_export(hour: Callable[..., FirstHour]) -> None:
    first = hour("EUR")
    exports.written(exports.french, Path("payments/operations.csv"), delimiter=";")
    result = first.through(CONFIRMED | {"format: '%d/%m/%Y %H:%M'}": "format: '%d/%m/%Y %H:%M', zone: Europe/Paris}"})
    check(first, result, frauds=frauds_out(rows_of(exports.french), "Fraude avérée", "oui", "Sens", "D"))


def test_an_american_export(hour: Callable[..., FirstHour]) -> None:
    first = hour("USD")
    exports.written(exports.american, Path("payments/export.csv"))
    result = first.through(
        CONFIRMED | {"format: '%m/%d/%Y %I:%M:%S %p'}": "format: '%m/%d/%Y %I:%M:%S %p', zone: America/New_York}"}
    )
    rows = rows_of(exports.american)
    pairs = zip(exports.columns_of(rows, "Fraud"), exports.columns_of(rows, "Amount"), strict=True)
    check(first, result, frauds=sum(one == "Y" and amount.startswith("-") for one, amount in pairs))


def test_the_generators_payments(hour: Callable[..., FirstHour], tmp_path: Path) -> None:
    from simulator.generator import GeneratorSettings, generate

    first = hour("USD")
    made = generate(GeneratorSettings(banks=2, days=40, seed=3, customers=60), tmp_path / "generated")
    source = next(iter(made.events.values()))
    source.rename(first.folder / "payments" / "events.parquet")
    result = first.through(CONFIRMED)
    assert result["payments"]["read"] == result["payments"]["kept"] and first.edits == 1
    assert result["frauds"] > 0


def test_paysims_columns(hour: Callable[..., FirstHour]) -> None:
    first = hour("USD")
    exports.written(exports.paysim, Path("payments/paysim.csv"))
    result = first.through(CONFIRMED | {"origin: '?'": "origin: 2024-01-01"})
    rows = rows_of(exports.paysim)
    pairs = zip(exports.columns_of(rows, "isFraud"), exports.columns_of(rows, "type"), strict=True)
    check(first, result, frauds=sum(one == "1" and kind != "CASH_IN" for one, kind in pairs))
    assert first.edits == 2 and first.asked


def test_sparkovs_columns(hour: Callable[..., FirstHour]) -> None:
    first = hour("USD")
    exports.written(exports.sparkov, Path("payments/fraudTrain.csv"))
    result = first.through(CONFIRMED)
    check(first, result, frauds=sum(exports.fraud(row) for row in range(exports.ROWS)))
    assert first.edits == 1


def test_ibms_columns(hour: Callable[..., FirstHour]) -> None:
    first = hour("USD")
    exports.written(exports.ibm_aml, Path("payments/HI-Small_Trans.csv"))
    days = sorted({text[:10].replace("/", "-") for text in exports.columns_of(rows_of(exports.ibm_aml), "Timestamp")})
    lines = [f"{day},{currency},{rate}" for day in days for currency, rate in RATES.items()]
    Path("rates.csv").write_text("\n".join(["day,currency,rate", *lines]) + "\n")
    result = first.through(CONFIRMED | {"  from: Payment Currency": "  from: Payment Currency\n  rates: rates.csv"})
    check(first, result, frauds=sum(exports.fraud(row) for row in range(exports.ROWS)))
    columns = yaml.safe_load(Path("mapping.yaml").read_text())["columns"]
    assert [columns[name]["from"] for name in ("account_id", "counterparty_id")] == ["Account#1", "Account#2"]
    assert first.edits == 2


def test_debit_and_credit_in_two_columns(hour: Callable[..., FirstHour]) -> None:
    def two(rng: random.Random) -> list[list[str]]:
        head, *rows = exports.american(rng)
        place = head.index("Amount")
        made = [[*head[:place], "Debit", "Credit", *head[place + 1 :]]]
        for row in rows:
            out = row[place].startswith("-")
            amount = f"${row[place].lstrip('-')}"
            made.append([*row[:place], amount if out else "", "" if out else amount, *row[place + 1 :]])
        return made

    first = hour("USD")
    exports.written(two, Path("payments/export.csv"))
    result = first.through(CONFIRMED)
    check(first, result)
    assert first.edits == 1
