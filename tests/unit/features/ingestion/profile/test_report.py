"""The page beside a draft: complete, self-contained, escaped, and without a person's data."""

import random
import re
from pathlib import Path

import pytest

from features import load_contract
from features.ingestion.profile import draft_mapping, profile_page
from features.ingestion.profile.masking import masked
from tests.unit.features.ingestion.profile import exports

CONTRACT = load_contract()


def page(path: Path) -> str:
    return profile_page(draft_mapping(path, CONTRACT), CONTRACT)


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("german")
    return page(exports.written(exports.german, folder / "export.csv", delimiter=";", encoding="cp1252"))


def test_it_says_what_is_in_each_column(german: str) -> None:
    for name in exports.german(random.Random(5))[0]:
        assert f'<td class="name">{name}</td>' in german
    assert "IBAN" in german and "each once" in german and "2024-03-01" in german
    assert "9.31" not in german or "numbers from" in german
    assert "is_fraud</b>: J means fraud: 2.00% of labelled rows" in german


def test_it_needs_nothing_from_outside(german: str) -> None:
    assert not re.search(r"https?:|<script|<link|@import|url\(|src=", german)
    assert "color-scheme: light dark" in german and "prefers-color-scheme: dark" in german


def test_a_persons_data_are_shapes(german: str) -> None:
    for text in ("Müller", "Läden", "Rechnung", exports.iban("DE", 1), exports.iban("DE", 1000), "U000001"):
        assert text not in german
    assert "Xxxxxx, Xxxx 9" in german and masked("Müller, Hans") == "Xxxxxx, Xxxx"


def test_names_of_columns_are_escaped(tmp_path: Path) -> None:
    head, *rows = exports.paysim(random.Random(5))
    shown = page(exports.written(lambda rng: [["<b>step</b>", *head[1:]], *rows], tmp_path / "export.csv"))
    assert "<b>step</b>" not in shown and "&lt;b&gt;step&lt;/b&gt;" in shown
