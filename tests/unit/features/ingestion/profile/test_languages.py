"""Drafts of exports in several languages: the right column for each of ours, a CHECK where two could be."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from features import load_contract
from features.ingestion.profile import Draft, draft_mapping
from features.ingestion.profile.codes import DIRECTIONS, VERDICTS, channel_of, is_incoming, pair_of
from features.ingestion.profile.words import best_fits, folded
from tests.unit.features.ingestion.profile import exports

CONTRACT = load_contract()


def drafted(make: Callable[..., Any], tmp_path: Path, **form: str) -> tuple[Draft, dict[str, Any]]:
    draft = draft_mapping(exports.written(make, tmp_path / "export.csv", **form), CONTRACT)
    return draft, yaml.safe_load(draft.text)


def test_a_german_export(tmp_path: Path) -> None:
    draft, document = drafted(exports.german, tmp_path, delimiter=";", encoding="cp1252")
    columns = document["columns"]
    assert columns["payment_id"] == {"from": "Umsatz-ID"}
    assert columns["event_time"] == {"from": ["Buchungstag", "Uhrzeit"], "joiner": " ", "format": "%d.%m.%Y %H:%M:%S"}
    assert (columns["account_id"], columns["counterparty_id"]) == (
        {"from": "Auftraggeber-IBAN"},
        {"from": "Gegenkonto"},
    )
    assert columns["counterparty_bank"] == {"from": "BIC"}
    assert columns["direction"] == {"from": "Soll/Haben", "codes": {"S": "out", "H": "in"}}
    assert columns["channel"]["codes"] == {
        "Überweisung": "transfer", "Kartenzahlung": "card", "Dauerauftrag": "transfer", "SEPA-Lastschrift": "transfer",
    }  # fmt: skip
    assert columns["amount"] == {"from": "Betrag", "decimal": ",", "thousands": "."}
    assert columns["is_fraud"] == {"from": "Betrugskennzeichen", "codes": {"J": 1, "N": 0}}
    assert columns["label_time"] == {"from": "Gemeldet am", "format": "%d.%m.%Y"}
    assert document["currency"]["from"] == "Währung"
    assert '"Valutadatum" could be meant too' in " ".join(draft.open_questions)


def test_a_french_export(tmp_path: Path) -> None:
    _, document = drafted(exports.french, tmp_path, delimiter=";")
    columns = document["columns"]
    assert columns["payment_id"] == {"from": "N° opération"}
    assert columns["event_time"] == {"from": "Date de l'opération", "format": "%d/%m/%Y %H:%M"}
    assert (columns["account_id"], columns["counterparty_id"]) == ({"from": "Compte"}, {"from": "IBAN bénéficiaire"})
    assert columns["direction"] == {"from": "Sens", "codes": {"D": "out", "C": "in"}}
    assert columns["channel"]["codes"] == {"Virement": "transfer", "Carte": "card", "Prélèvement": "transfer"}
    assert columns["amount"] == {"from": "Montant", "decimal": ",", "thousands": " "}
    assert columns["is_fraud"] == {"from": "Fraude avérée", "codes": {"oui": 1, "non": 0}}


def test_an_american_export(tmp_path: Path) -> None:
    _, document = drafted(exports.american, tmp_path)
    columns = document["columns"]
    assert columns["payment_id"] == {"from": "Reference Number"}
    assert columns["event_time"] == {"from": "Transaction Date", "format": "%m/%d/%Y %I:%M:%S %p"}
    assert (columns["account_id"], columns["counterparty_id"]) == ({"from": "Account Number"}, {"from": "Merchant ID"})
    assert columns["direction"] == {"sign_of": "Amount", "negative": "out", "thousands": ","}
    assert columns["channel"]["codes"] == {"Debit Card": "card", "ACH": "transfer"}
    assert columns["amount"] == {"from": "Amount", "thousands": ",", "sign": "absolute"}
    assert columns["category"] == {"from": "MCC", "standard": "iso18245"}


def test_a_spanish_export(tmp_path: Path) -> None:
    _, document = drafted(exports.spanish, tmp_path, delimiter=";")
    columns = document["columns"]
    assert columns["payment_id"] == {"from": "Nº operación"}
    assert columns["event_time"] == {"from": ["Fecha", "Hora"], "joiner": " ", "format": "%d/%m/%Y %H:%M"}
    assert (columns["account_id"], columns["counterparty_id"]) == ({"from": "Cuenta"}, {"from": "Cuenta destino"})
    assert columns["direction"] == {"from": "Signo", "codes": {"D": "out", "H": "in"}}
    assert columns["is_fraud"] == {"from": "Fraude", "codes": {"S": 1, "N": 0}}


def renamed(make: Callable[..., Any], names: dict[str, str]) -> Callable[[random.Random], list[list[str]]]:
    def made(rng: random.Random) -> list[list[str]]:
        head, *rows = make(rng)
        return [[names.get(name, name) for name in head], *rows]

    return made


@pytest.mark.parametrize(
    ("name", "thing"),
    [("Soll/Haben", "direction"), ("Betrag", "amount"), ("Buchungstext", "channel"), ("Währung", "currency"), ("BIC", "counterparty_bank")],
)  # fmt: skip
def test_what_a_column_holds_is_told_under_any_name(name: str, thing: str, tmp_path: Path) -> None:
    draft, document = drafted(renamed(exports.german, {name: "Feld 17"}), tmp_path, delimiter=";")
    entry = document["currency"] if thing == "currency" else document["columns"][thing]
    assert entry["from"] == "Feld 17", draft.text


def test_a_time_is_told_under_any_name(tmp_path: Path) -> None:
    _, document = drafted(renamed(exports.french, {"Date de l'opération": "Feld 17", "Date de valeur": "x"}), tmp_path)
    assert document["columns"]["event_time"]["from"] == "Feld 17"


def test_the_counterpartys_account_is_never_the_own(tmp_path: Path) -> None:
    def only_theirs(rng: random.Random) -> list[list[str]]:
        rows = exports.german(rng)
        gone = [rows[0].index("Auftraggeber-IBAN"), rows[0].index("Auftraggeber")]
        return [[cell for place, cell in enumerate(row) if place not in gone] for row in rows]

    draft, document = drafted(only_theirs, tmp_path, delimiter=";")
    assert document["columns"]["account_id"] == {"from": "?"}
    assert document["columns"]["counterparty_id"] == {"from": "Gegenkonto"}
    assert any(question.startswith("account_id: no column looks like it") for question in draft.open_questions)


@pytest.mark.parametrize("make", [exports.paysim, exports.german, exports.french, exports.american, exports.spanish])
def test_a_label_is_the_right_column_and_asked_about(make: Callable[..., Any], tmp_path: Path) -> None:
    draft, document = drafted(make, tmp_path)
    right = {
        "paysim": "isFraud",
        "german": "Betrugskennzeichen",
        "french": "Fraude avérée",
        "american": "Fraud",
        "spanish": "Fraude",
    }
    assert document["columns"]["is_fraud"]["from"] == right[make.__name__]
    assert any(re.match(r"is_fraud: .* means fraud: 2.00%", question) for question in draft.open_questions)


def test_a_rules_flag_beside_the_label_is_asked_about(tmp_path: Path) -> None:
    draft, _ = drafted(exports.paysim, tmp_path)
    assert 'is_fraud: "isFlaggedFraud" could be meant too' in draft.open_questions


@pytest.mark.parametrize("flag", ["isFlaggedFraud", "fraud_alert", "fraud_type", "Betrugsverdacht"])
def test_what_only_sounds_like_a_label_is_asked_about(flag: str, tmp_path: Path) -> None:
    draft, document = drafted(renamed(exports.american, {"Fraud": flag}), tmp_path)
    entry = document["columns"]["is_fraud"]
    assert entry == {"absent": True} or entry["from"] == flag
    assert any(question.startswith("is_fraud: ") for question in draft.open_questions)


def test_a_label_turned_round_is_asked_about(tmp_path: Path) -> None:
    def turned(rng: random.Random) -> list[list[str]]:
        head, *rows = exports.paysim(rng)
        return [head, *[[*row[:-2], "0" if row[-2] == "1" else "1", row[-1]] for row in rows]]

    draft, _ = drafted(turned, tmp_path)
    assert any("98.00% of labelled rows. That is more than fraud is" in question for question in draft.open_questions)


def test_a_payment_without_an_id_is_told_by_several_columns(tmp_path: Path) -> None:
    draft, document = drafted(exports.paysim, tmp_path)
    assert document["columns"]["payment_id"] == {"from": ["step", "nameOrig", "nameDest", "amount"]}
    assert document["columns"]["event_time"] == {"from": "step", "unit": "h", "origin": "?"}
    assert document["columns"]["direction"]["codes"]["CASH_IN"] == "in"
    assert any(question.startswith("payment_id: no column is an id") for question in draft.open_questions)


def test_nothing_of_a_person_is_in_a_draft(tmp_path: Path) -> None:
    draft, _ = drafted(exports.german, tmp_path, delimiter=";")
    for text in ("Müller", "Hans", "Läden", "Rechnung", exports.iban("DE", 1), "U000001"):
        assert text not in draft.text
    assert "Xxxxxx, Xxxx 9" in draft.text and "100% filled,    400 different" in draft.text


def test_names_are_folded() -> None:
    assert folded("Date de l'opération") == ["date", "operation"]
    assert folded("isFlaggedFraud") == ["is", "flagged", "fraud"]
    assert folded("IBANBénéficiaire") == ["iban", "beneficiaire"]
    assert folded("Waehrung") == folded("Währung") == ["wahrung"]
    assert best_fits("") == {}


@pytest.mark.parametrize(
    ("texts", "meanings"),
    [
        (["S", "H"], {"S": "out", "H": "in"}),
        (["D", "H"], {"D": "out", "H": "in"}),
        (["C", "A"], {"C": "out", "A": "in"}),
        (["D", "C"], {"D": "out", "C": "in"}),
        (["Débit", "Crédit"], {"Débit": "out", "Crédit": "in"}),
        (["-", "+"], {"-": "out", "+": "in"}),
        # One letter that means both ways in two languages is told by neither.
        (["C"], None),
        (["X", "Y"], None),
    ],
)
def test_a_pair_of_codes_counts_as_a_whole(texts: list[str], meanings: dict[str, Any] | None) -> None:
    assert pair_of(texts, DIRECTIONS) == meanings


def test_words_of_codes() -> None:
    assert pair_of(["ja", "nein"], VERDICTS) == {"ja": 1, "nein": 0}
    assert [channel_of(text) for text in ("Kartenzahlung", "VIREMENT SEPA", "carry", "Cash")] == [
        "card",
        "transfer",
        None,
        None,
    ]
    assert is_incoming("CASH_IN") and is_incoming("Zahlungseingang") and not is_incoming("CASH_OUT")


@pytest.mark.parametrize(
    "name",
    [
        "Gegenkonto", "IBAN Gegenkonto", "Kontonummer des Zahlungsempfängers", "Konto des Begünstigten", "Empfänger-IBAN",
        "IBAN Zahlungsbeteiligter", "Compte bénéficiaire", "IBAN du créancier", "Cuenta del beneficiario", "Cuenta destino",
        "beneficiary_account", "to_account", "dest_acct", "nameDest", "CreditorAccount", "Counterparty IBAN", "Tegenrekening IBAN",
    ],
)  # fmt: skip
def test_a_name_of_the_other_account_never_says_the_own(name: str) -> None:
    fits = best_fits(name)
    own, theirs = (fits[thing].score if thing in fits else 0.0 for thing in ("account_id", "counterparty_id"))
    assert theirs > own and own < 0.45
