"""Drafts of one table in many types and forms: each, confirmed as it is, keeps every row."""

import gzip
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import yaml

from features import load_contract
from features.contract.mapping import Mapping
from features.errors import EmptyTableError, SourceError
from features.ingestion.profile import draft_mapping, profile_page
from features.ingestion.profile.trial import tried
from tests.unit.features.ingestion import test_mt940 as mt940
from tests.unit.features.ingestion import test_statements as camt053
from tests.unit.features.ingestion import test_workbooks as workbooks

CONTRACT = load_contract()
ROWS = 300


def table() -> pd.DataFrame:
    """Payments as a database gives them, under names of its own."""
    rows = range(ROWS)
    return pd.DataFrame(
        {
            "TXN_ID": [f"T{row}" for row in rows],
            "TS": pd.Timestamp("2024-01-01") + pd.to_timedelta(list(rows), unit="h"),
            "ACCT": [f"{100_000 + row % 20}" for row in rows],
            "PAYEE": [f"m{row % 40}" for row in rows],
            "AMT": [(100 + 37 * row) / 100 for row in rows],
            "DRCR": ["DR" if row % 3 else "CR" for row in rows],
            "TYPE": ["CARD" if row % 2 else "WIRE" for row in rows],
            "MCC": [5411 if row % 2 else 5812 for row in rows],
            "FRAUD": [row % 50 == 7 for row in rows],
        }
    )


def kept(path: Path, tmp_path: Path) -> int:
    draft = draft_mapping(path, CONTRACT)
    assert "<html" in profile_page(draft, CONTRACT)
    trial = tried(path, CONTRACT, Mapping.model_validate(yaml.safe_load(draft.text)))
    assert trial.faults == () and trial.frauds == sum(row % 50 == 7 and row % 3 > 0 for row in range(ROWS))
    return trial.kept


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        lambda t: t.assign(TS=t["TS"].dt.tz_localize("UTC")),
        lambda t: t.assign(TS=t["TS"].dt.as_unit("ms").astype("int64")),
        lambda t: t.assign(TS=t["TS"].dt.as_unit("s").astype("int64")),
        lambda t: t.assign(TS=t["TS"].dt.date),
        lambda t: t.assign(AMT=[Decimal(f"{value:.2f}") for value in t["AMT"]]),
        lambda t: t.assign(TYPE=t["TYPE"].astype("category"), DRCR=t["DRCR"].astype("category")),
        lambda t: t.assign(FRAUD=t["FRAUD"].astype("float64"), MCC=t["MCC"].astype("float64")),
        lambda t: t.assign(NOTHING=None, COUNTRY=None),
    ],
    ids=["plain", "zone", "ms", "s", "days", "decimal", "dictionary", "floats", "nulls"],
)
def test_parquet(change: Callable[[pd.DataFrame], pd.DataFrame], tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    change(table()).to_parquet(path, index=False)
    assert kept(path, tmp_path) == ROWS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sep": ";", "decimal": ","},
        {"sep": "\t"},
        {"sep": "|"},
        {"quoting": 1},
        {"lineterminator": "\r\n"},
        {"encoding": "utf-16"},
    ],
    ids=["comma", "semicolon", "tab", "pipe", "quoted", "crlf", "utf-16"],
)
def test_csv(options: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table().to_csv(path, index=False, **options)
    assert kept(path, tmp_path) == ROWS


def test_names_that_mean_something_to_yaml(tmp_path: Path) -> None:
    names = {"TXN_ID": "id: #1", "TYPE": "yes", "DRCR": "1", "PAYEE": "payee {x}", "MCC": "- mcc"}
    path = tmp_path / "table.csv"
    table().rename(columns=names).to_csv(path, index=False)
    assert kept(path, tmp_path) == ROWS


def test_the_first_file_with_rows_is_looked_at(tmp_path: Path) -> None:
    table().iloc[:0].to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(EmptyTableError, match="nothing to look at"):
        draft_mapping(tmp_path, CONTRACT)
    table().to_csv(tmp_path / "b.csv", index=False)
    draft = draft_mapping(tmp_path, CONTRACT)
    assert draft.payments.sample.where == "b.csv" and "(the first of 2 files)" not in draft.text


def lines_before(text: str, path: Path) -> None:
    path.write_text(f"First Bank\nPeriod: 2024\n\n{text}", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("table.csv.gz", lambda t, path: path.write_bytes(gzip.compress(t.to_csv(index=False).encode()))),
        ("table.tsv", lambda t, path: t.to_csv(path, index=False, sep="\t")),
        ("table.csv", lambda t, path: path.write_text("sep=;\n" + t.to_csv(index=False, sep=";"))),
        ("table.csv", lambda t, path: lines_before(t.to_csv(index=False, sep=";"), path)),
        ("table.csv", lambda t, path: path.write_text(t.to_csv(index=False).replace("\n", ",\n"))),
        ("table.csv", lambda t, path: t.to_csv(path)),
        ("table.csv", lambda t, path: path.write_bytes(t.assign(N="Größe €").to_csv(index=False).encode("cp1252"))),
        ("table.jsonl", lambda t, path: t.to_json(path, orient="records", lines=True, date_format="iso")),
    ],
    ids=["gzip", "tsv", "sep", "title", "delimiter at the end", "index", "windows-1252", "jsonl"],
)
def test_other_files(name: str, write: Callable[[pd.DataFrame, Path], object], tmp_path: Path) -> None:
    path = tmp_path / name
    write(table(), path)
    assert kept(path, tmp_path) == ROWS


def test_a_file_without_a_header_is_refused_and_its_first_line_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table().to_csv(path, index=False, header=False)
    with pytest.raises(SourceError, match="looks like data") as caught:
        draft_mapping(path, CONTRACT)
    assert "100000" not in str(caught.value)


def statements(name: str, path: Path) -> None:
    """Two entries, one of them a fee without a counterparty, and one entry that makes no row."""
    if name.endswith(".xml"):
        ours = camt053.entry("REF1", "12.50", "DBIT", camt053.detail("REF1"))
        fee = camt053.entry("REF2", "3.00")
        waiting = camt053.entry("REF3", "1.00", status="<Sts>PDNG</Sts>")
        path.write_text(camt053.statement(ours, fee, waiting))
    else:
        lines = (
            mt940.line(),
            mt940.STRUCTURED,
            mt940.line(amount="3,00", rest="NCHGNONREF//REF2"),
            ":61:240105X1,00NTRF",
        )
        path.write_text(mt940.statement(*lines, closing="C240105USD1,00"))


@pytest.mark.parametrize("name", ["a.xml", "a.sta"])
def test_statements_show_their_columns_and_ask_what_no_format_tells(name: str, tmp_path: Path) -> None:
    statements(name, tmp_path / name)
    draft = draft_mapping(tmp_path / name, CONTRACT)
    mapping = Mapping.model_validate(yaml.safe_load(draft.text) | {"currency": {"constant": "USD"}})
    told = {column: entry.source for column, entry in mapping.columns.items()}
    assert (told["account_id"], told["amount"], told["event_time"]) == ("account", "amount", "time")
    assert draft.payments.sample.messages and draft.payments.sample.rows.num_rows == 2
    assert sum(draft.payments.sample.unreadable.values()) == 1
    assert "CHECK" in draft.text and "50.0% of the rows name none" in " ".join(draft.text.replace("#", " ").split())
    page = profile_page(draft, CONTRACT)
    assert "bank_code" in page and "1 entries make no row" in page and "settlement_date" in page
    trial = tried(tmp_path / name, CONTRACT, mapping)
    # Each entry once: the page's count is not added to what the trial reads itself.
    assert trial.rows == 3 and trial.kept + trial.quarantined == 3 and not trial.more


def test_a_spreadsheet(tmp_path: Path) -> None:
    frame = table().assign(TS=lambda t: t["TS"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    rows = frame.assign(FRAUD=frame["FRAUD"].astype(int)).astype(object).to_numpy().tolist()
    workbooks.written(tmp_path / "table.xlsx", [list(frame.columns), *rows])
    assert kept(tmp_path / "table.xlsx", tmp_path) == ROWS
