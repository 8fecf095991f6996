"""The draft of a mapping: what it recognises, what it asks, and that no one can use it unread."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from features import load_contract
from features.contract.mapping import Mapping, load_mapping
from features.errors import MappingError
from features.identifiers import IdentifierKey
from features.incremental import Extraction, extract_days
from features.ingestion.profile import draft_mapping
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import pacs
from tests.unit.features.payments import good_frame, written

CONTRACT = load_contract()

SWISS = """Transaction ID;Booked;Account;Beneficiary;Betrag;DC Flag;Channel;MCC;Fraud Flag;Fraud Known;Ccy;Last Name;\
Updated At
T1;31.01.2024 10:00:00;CH1;M1;1.234,50;D;Card;5411;N;02.02.2024 00:00:00;USD;Müller;1
T2;31.01.2024 11:00:00;CH1;M2;7,00;C;Transfer;5812;N;02.02.2024 00:00:00;USD;Müller;1
T3;31.01.2024 12:00:00;CH2;M1;99,90;D;Card;3005;Y;02.02.2024 00:00:00;EUR;Meier;1
"""


def extracted(source: Path, text: str, folder: Path) -> Extraction:
    """An extraction with a draft that a human confirmed."""
    path = folder / "mapping.yaml"
    path.write_text(text.replace("confirmed: false", "confirmed: true"))
    return extract_days(
        CONTRACT,
        source,
        FeatureStore(folder / "store"),
        key=IdentifierKey(bytes(32)),
        mapping=load_mapping(path, CONTRACT),
    )


def test_a_foreign_export_is_recognised(tmp_path: Path) -> None:
    source = tmp_path / "export.csv"
    source.write_bytes(SWISS.encode("latin-1"))
    draft = draft_mapping(source, CONTRACT)
    document: dict[str, Any] = yaml.safe_load(draft.text)
    assert document["csv"] == {"delimiter": ";", "encoding": "latin-1"}
    assert (document["currency"], document["version_column"]) == ({"from": "Ccy"}, "Updated At")
    columns = document["columns"]
    assert columns["payment_id"] == {"from": "Transaction ID"}
    assert columns["event_time"] == {"from": "Booked", "format": "%d.%m.%Y %H:%M:%S"}
    assert columns["amount"] == {"from": "Betrag", "decimal": ",", "thousands": "."}
    assert columns["direction"] == {"from": "DC Flag", "codes": {"C": "in", "D": "out"}}
    assert columns["category"] == {"from": "MCC", "standard": "iso18245"}
    assert columns["is_fraud"] == {"from": "Fraud Flag", "codes": {"N": 0, "Y": 1}}
    assert columns["counterparty_bank"] == {"absent": True}
    assert "#   Last Name  100% filled,      2 different: Xxxxxx | Xxxxx (personal data?)" in draft.text
    assert "Müller" not in draft.text and "CH1" not in draft.text and "T1" not in draft.text
    assert any("need rates" in question for question in draft.open_questions)
    done = extracted(source, draft.text, tmp_path)
    assert done.stored == 2
    assert done.quarantined == {("amount", "a currency without a rate"): 1}
    events = pd.read_parquet(tmp_path / "store" / "events" / "2024-01-31.parquet")
    assert sorted(zip(events["direction"], events["category"], events["amount"], strict=True)) == [
        ("in", "food_dining", 7.0),
        ("out", "grocery_pos", 1234.5),
    ]


def test_a_draft_is_refused_until_it_is_confirmed(tmp_path: Path) -> None:
    source = written(good_frame(), tmp_path / "payments.parquet")
    path = tmp_path / "mapping.yaml"
    path.write_text(draft_mapping(source, CONTRACT).text)
    with pytest.raises(MappingError, match="is a draft: read it, mend it, and set confirmed to true"):
        load_mapping(path, CONTRACT)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_table_by_the_contract_is_mapped_as_it_is(ending: str, tmp_path: Path) -> None:
    source = written(good_frame(), tmp_path / f"payments.{ending}")
    draft = draft_mapping(source, CONTRACT)
    assert extracted(source, draft.text, tmp_path).stored == len(good_frame())


def test_a_message_is_mapped_by_its_standard(tmp_path: Path) -> None:
    source = tmp_path / "message.xml"
    source.write_text(pacs())
    text = draft_mapping(source, CONTRACT).text.replace("own_agents: []", "own_agents: [AAAACHZZ]")
    assert extracted(source, text, tmp_path).stored == 3


def column(values: list[Any], name: str, tmp_path: Path) -> tuple[dict[str, Any], str]:
    table = good_frame(len(values)).astype({name: "object"})
    table[name] = values
    draft = draft_mapping(written(table, tmp_path / "payments.csv"), CONTRACT)
    return yaml.safe_load(draft.text)["columns"][name], " ".join(draft.open_questions)


@pytest.mark.parametrize(
    ("name", "values", "entry", "asked"),
    [
        ("event_time", ["1704488400", "1704488401"], {"unit": "s"}, ""),
        ("event_time", ["1704488400123", "1704488401123"], {"unit": "ms"}, ""),
        ("event_time", ["20240105210000"], {"format": "%Y%m%d%H%M%S"}, "taken as UTC"),
        ("event_time", ["01/31/2024", "02/01/2024"], {"format": "%m/%d/%Y"}, ""),
        ("event_time", ["31/01/2024", "01/02/2024"], {"format": "%d/%m/%Y"}, ""),
        ("event_time", ["03/04/2024"], {"format": "%d/%m/%Y"}, "day and month can't be told apart"),
        ("event_time", ["yesterday"], {}, "no known form of times"),
        ("amount", ["1,234.50", "7.00"], {"thousands": ","}, ""),
        ("amount", ["-3.50", "7.00"], {"sign": "absolute"}, "what does the sign mean"),
        ("direction", ["DBIT", "CRDT"], {"codes": {"CRDT": "in", "DBIT": "out"}}, ""),
        ("direction", ["X", "DR"], {"codes": {"DR": "out", "X": "?"}}, "put one of out, in for each ?"),
        ("category", ["Home", "Gas Transport"], {"codes": {"Gas Transport": "gas_transport", "Home": "home"}}, ""),
        ("is_fraud", ["genuine", "fraud"], {"codes": {"fraud": 1, "genuine": 0}}, ""),
        ("payment_id", ["p1", "p1"], {}, "some ids are there twice"),
        ("channel", [f"c{number}" for number in range(70)], {}, "too many for codes"),
    ],
)
def test_forms_are_recognised_or_asked_for(
    name: str, values: list[Any], entry: dict[str, Any], asked: str, tmp_path: Path
) -> None:
    found, questions = column(values, name, tmp_path)
    assert found == {"from": name} | entry
    assert asked in questions


def test_what_no_column_looks_like_is_asked_for(tmp_path: Path) -> None:
    table = good_frame().drop(columns=["direction", "is_fraud", "label_time"]).rename(columns={"account_id": "zzz"})
    table["amount"] = -table["amount"]
    draft = draft_mapping(written(table, tmp_path / "payments.parquet"), CONTRACT)
    columns = Mapping.model_validate(yaml.safe_load(draft.text)).columns
    assert (columns["direction"].sign_of, columns["is_fraud"].absent, columns["account_id"].source) == (
        "amount",
        True,
        "?",
    )
    assert any(question.startswith("account_id: no column looks like it") for question in draft.open_questions)


def test_the_command_keeps_an_existing_file(tmp_path: Path) -> None:
    written(good_frame(), tmp_path / "events.parquet")
    node = {name: name for name in ("ca", "certificate", "key")}
    config = tmp_path / "bank.yaml"
    config.write_text(
        yaml.safe_dump({"bank_id": "alder", "events": "events.parquet", "work_dir": "w", "aggregator": node})
    )
    out = tmp_path / "mapping.yaml"
    command = [sys.executable, "-m", "bank_node", "profile", "--config", str(config), "--out", str(out)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    before = out.read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "can't be written" in again.stderr
    assert out.read_text() == before
