"""The same payments as banks really export them: each kind is read right, or refused with what to write."""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from features.contract.mapping import Mapping, load_mapping
from features.errors import DataError, MappingError
from features.incremental import Extraction, extract_days
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import (
    CONTRACT,
    HEADER,
    KEY,
    NAMES,
    NO_NUMBER,
    Case,
    line,
    mapped,
    row,
    text,
    with_one,
)

LOST = "an id in scientific notation, whose digits are lost: export it as text"
SHARED_ID = "have the id of another row, and another account, time and amount"
TWO = {"debit": "debit", "credit": "credit"}


def lines(*changed: dict[str, str], count: int = 3) -> bytes:
    given = [*changed, *[{}] * (count - len(changed))]
    return text(*(line(number, **each) for number, each in enumerate(given)))


def renamed(content: bytes, **names: str) -> bytes:
    """Other names in the header line."""
    head, _, rest = content.decode().partition("\n")
    return (",".join(names.get(each, each) for each in head.split(",")) + "\n" + rest).encode()


def with_columns(*cells: str, header: str) -> bytes:
    """Three good lines with more columns behind."""
    return "".join(f"{HEADER if n < 0 else line(n)},{header if n < 0 else cells[n]}\n" for n in range(-1, 3)).encode()


def jsonl(*rows: dict[str, Any] | str) -> bytes:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows).encode()


def fields(number: int, **changes: Any) -> dict[str, Any]:
    return {name: cell or None for name, cell in zip(NAMES, line(number).split(","), strict=True)} | changes


GOOD = text(line(0), line(1), line(2))
CASES = [
    # Identifiers.
    Case("ids in scientific notation", lines(*({"payment_id": "9.00720E+15"},) * 3), refused=LOST),
    Case("one such id", with_one(account_id="9E+15"), 2, row("account_id", LOST)),
    Case("an id that only looks like it", with_one(payment_id="12E45"), 3),
    Case("one id for all", text(*(line(n, payment_id="1", account_id=f"a{n}") for n in range(9))), refused=SHARED_ID),
    Case("a corrected row", text(*(line(n) for n in range(9)), line(3, amount="7")), 9),
    # The header.
    Case("an index without a name", b"".join(b",".join((head, each)) + b"\n" for head, each in zip((b"", b"0", b"1", b"2"), GOOD.splitlines(), strict=True)), 3),
    Case("a delimiter at the end of each line", GOOD.replace(b"\n", b",\n"), 3),
    Case("blanks around names", renamed(GOOD, amount=" amount ", channel="channel "), 3),
    Case("two columns of one name", renamed(GOOD, counterparty_id="account_id"), refused="account_id#1 and account_id#2 have that name: write which"),
    Case("two columns of one name, told apart", renamed(GOOD, counterparty_id="account_id"), 3, mapping=mapped(account_id={"from": "account_id#1"}, counterparty_id={"from": "account_id#2"})),
    Case("another case", renamed(GOOD, amount="Amount"), refused="did you mean Amount?"),
    Case("semicolons unannounced", GOOD.replace(b",", b";"), refused="write csv: {delimiter: ';'}"),
    Case("sep= before the header", b"sep=,\n" + GOOD, 3),
    Case("sep=; before the header", b"sep=;\n" + GOOD.replace(b",", b";"), 3, mapping=mapped(csv={"delimiter": ";"})),
    Case("a title before the header", b"Statement of account\nJanuary 2024\n\n" + GOOD, 3),
    Case("lines to skip", b"a,b\n" + GOOD, 3, mapping=mapped(csv={"skip": 1})),
    Case("a footer", GOOD + b"Total: 3 payments\n", 3, row("", "unreadable line")),
    # Texts.
    Case("a note of several lines", with_columns('"one\ntwo\n\nthree"', "x", "y", header="note"), 3),
    Case("a note of several lines, CRLF", with_columns('"one\ntwo\n\nthree"', "x", "y", header="note").replace(b"\n", b"\r\n"), 3),
    Case("words for nothing", lines({"counterparty_country": "NULL", "device_id": "n/a"}), 3, mapping=mapped(nulls=["NULL", "n/a", "\\N"])),
    Case("a word for nothing in one column", with_one(amount="-"), 2, row("amount", "no value"), mapping=mapped(amount={"from": "amount", "nulls": ["-"]})),
    Case("no channel, with a default", lines({"channel": ""}), 3, mapping=mapped(channel={"from": "channel", "default": "transfer"})),
    Case("no category code, with a default", lines({"category": "5411"}, {"category": ""}, {"category": "5812"}), 3, mapping=mapped(category={"from": "category", "standard": "iso18245", "default": "transfer"})),
    Case("an empty text is none of the others", with_one(channel=""), 2, row("channel", "no value"), mapping=mapped(channel={"from": "channel", "codes": {"card": "card"}, "other": "transfer"})),
    Case("the first of several columns", lines({"counterparty_id": ""}), 3, mapping=mapped(counterparty_id={"first_of": ["counterparty_id", "device_id"]})),
    Case("a joined id with an empty part", lines({"device_id": ""}), 2, row("payment_id", "no value"), mapping=mapped(payment_id={"from": ["payment_id", "device_id"]})),
    Case("a joined id with a part that may be empty", lines({"device_id": ""}), 3, mapping=mapped(payment_id={"from": ["payment_id", "device_id"], "missing_part": "-"})),
    Case("windows-1252", with_one(account_id="M\u00fcller \u20ac").decode().encode("cp1252"), 3, mapping=mapped(csv={"encoding": "windows-1252"})),
    Case("windows-1252 unannounced", renamed(GOOD, device_id="ger\u00e4t \u2013 nummer f\u00fcr stra\u00dfe").decode().encode("cp1252"), refused="write csv: {encoding: windows-1252}"),
    # Files.
    Case("gzip", gzip.compress(GOOD), 3, ending="csv.gz"),
    Case("a gzip cut short", gzip.compress(GOOD)[:-12], refused="no whole gzip file", ending="csv.gz"),
    Case("tabs", GOOD.replace(b",", b"\t"), 3, ending="tsv"),
    Case("tabs, compressed", gzip.compress(GOOD.replace(b",", b"\t")), 3, ending="tsv.gz"),
    Case("line-JSON", jsonl(fields(0), fields(1), "", fields(2)), 3, ending="jsonl"),
    Case("line-JSON, compressed", gzip.compress(jsonl(fields(0), fields(1))), 2, ending="jsonl.gz"),
    Case("line-JSON with numbers", jsonl(fields(0, amount=12.5, payment_id=12345678901234567890, is_fraud=0)), 1, ending="jsonl"),
    Case("a line that is no JSON", jsonl(fields(0), "{", "[1]", fields(2)), 2, row("", "unreadable line", 2), ending="jsonl"),
    Case("line-JSON without a column", jsonl({"a": 1}), refused="has no column", ending="jsonl"),
]  # fmt: skip


def amounts(*written: str, **entry: Any) -> Case:
    content = renamed(lines(*({"amount": f'"{each}"'} for each in written), count=len(written)))
    return Case("amounts", content, mapping=mapped(amount={"from": "amount"} | entry))


def run(case: Case, folder: Path) -> Extraction:
    path = folder / f"payments.{case.ending}"
    assert isinstance(case.content, bytes)
    path.write_bytes(case.content)
    return extract_days(CONTRACT, path, FeatureStore(folder / "store"), key=KEY, mapping=case.mapping)


def column(folder: Path, name: str) -> list[Any]:
    files = sorted((folder / "store" / "events").glob("*.parquet"))
    tables = [pyarrow.parquet.read_table(file).sort_by("event_time") for file in files]
    return pyarrow.concat_tables(tables)[name].to_pylist()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_export_is_read_right_or_refused_with_what_to_write(case: Case, tmp_path: Path) -> None:
    if case.refused:
        with pytest.raises(DataError) as caught:
            run(case, tmp_path)
        assert case.refused in str(caught.value)
        assert f"payments.{case.ending}" in str(caught.value)
        return
    done = run(case, tmp_path)
    assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
    assert (done.stored, done.quarantined) == (case.kept, case.quarantined)


@pytest.mark.parametrize(
    ("written", "entry", "values"),
    [
        (("1.234,56 \u20ac", "\u20ac7,5"), {"decimal": ",", "thousands": ".", "symbols": ["\u20ac"]}, [1234.56, 7.5]),
        (("$1,234.56", "7.5 USD"), {"thousands": ",", "symbols": ["$", "USD"]}, [1234.56, 7.5]),
        (("(12.50)", "($3.00)", "-$4"), {"symbols": ["$"], "sign": "absolute"}, [12.5, 3.0, 4.0]),
        (("12.50-", "1,000.00-", "(2)"), {"thousands": ",", "sign": "negate"}, [12.5, 1000.0, 2.0]),
    ],
)
def test_amounts_as_they_are_written(
    written: tuple[str, ...], entry: dict[str, Any], values: list[float], tmp_path: Path
) -> None:
    assert run(amounts(*written, **entry), tmp_path).stored == len(values)
    assert column(tmp_path, "amount") == values


@pytest.mark.parametrize("written", ["12.50 EUR", "(12.50", "12.50)", "(-3)", "--3", "1-2", "$$3"])
def test_what_is_no_amount_stays_none(written: str, tmp_path: Path) -> None:
    done = run(amounts("1", written, "2", symbols=["$"]), tmp_path)
    assert (done.stored, done.quarantined) == (2, row("amount", NO_NUMBER))


def test_debit_and_credit_in_two_columns(tmp_path: Path) -> None:
    content = with_columns("12.50,", "0.00,3.25", "1,2", header="debit,credit")
    case = Case("x", content, mapping=mapped(amount=TWO, direction=TWO))
    done = run(case, tmp_path)
    assert done.quarantined == row("direction", "both a debit and a credit")
    assert column(tmp_path, "amount") == [12.5, 3.25]
    assert column(tmp_path, "direction") == ["out", "in"]


@pytest.mark.parametrize(
    ("written", "entry", "moment"),
    [
        ("45296.5", {"unit": "excel"}, datetime(2024, 1, 5, 12)),
        ("45296,5", {"unit": "excel", "decimal": ","}, datetime(2024, 1, 5, 12)),
        ("45296.5", {"unit": "excel", "zone": "Europe/Zurich"}, datetime(2024, 1, 5, 11)),
        ("45296.8756944444", {"unit": "excel"}, datetime(2024, 1, 5, 21, 1)),
        ("30", {"unit": "h", "origin": "2024-01-01"}, datetime(2024, 1, 2, 6)),
        ("2", {"unit": "d", "origin": "2024-01-01"}, datetime(2024, 1, 3)),
        ("90", {"unit": "s", "origin": "2024-01-01"}, datetime(2024, 1, 1, 0, 1, 30)),
    ],
)
def test_times_in_numbers(written: str, entry: dict[str, Any], moment: datetime, tmp_path: Path) -> None:
    content = text(line(0, event_time=f'"{written}"', label_time=""))
    run(Case("x", content, mapping=mapped(event_time={"from": "event_time"} | entry)), tmp_path)
    assert column(tmp_path, "event_time") == [moment]


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("channel", {"from": "c", "codes": {"": "transfer"}}, "write default: transfer"),
        ("channel", {"from": "c", "codes": {" card": "card"}}, "never matches, since texts are trimmed"),
        ("channel", {"from": "c", "codes": {"NULL": "card"}, "nulls": ["NULL"]}, "never matches, since nulls"),
        ("channel", {"constant": "card", "default": "card"}, "never used"),
        ("event_time", {"from": "c", "unit": "h"}, "needs an origin"),
        ("event_time", {"from": "c", "unit": "ms", "zone": "Europe/Zurich"}, "never used with unit ms"),
        ("event_time", {"from": "c", "unit": "excel", "origin": "2024-01-01"}, "origin goes with"),
        ("amount", {"debit": "d"}, "debit and credit go together"),
        ("payment_id", {"from": "c", "missing_part": "-"}, "missing_part goes with several columns"),
        ("channel", {"debit": "d", "credit": "c"}, "are for amount and direction"),
    ],
)
def test_a_mapping_that_can_t_be_reached_is_refused(name: str, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mapped(**{name: entry})


def document(**changes: Any) -> dict[str, Any]:
    columns = {name: {"from": name} for name in NAMES}
    return {"contract": CONTRACT.name, "columns": columns, "currency": {"constant": CONTRACT.currency}} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"currency": None}, "does not say in which currency amounts are"),
        ({"currency": {"constant": "EUR", "from": "c"}}, "exactly one of from and constant"),
        ({"columns": {**document()["columns"], "channel": {"constant": "fax"}}}, "channel: fax is no code of the"),
        ({"columns": {**document()["columns"], "channel": {"from": "c", "codes": {"a": "fax"}}}}, "fax is no code"),
    ],
)
def test_a_mapping_file_is_checked_against_the_contract(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(json.dumps(document()))
    assert load_mapping(path, CONTRACT).contract == CONTRACT.name
    path.write_text(json.dumps({k: v for k, v in document(**changes).items() if v is not None}))
    with pytest.raises(MappingError, match=words):
        load_mapping(path, CONTRACT)


def test_a_bank_in_another_currency(tmp_path: Path) -> None:
    case = Case("x", GOOD, mapping=mapped(currency={"constant": "CHF"}))
    with pytest.raises(DataError, match="none is good: column amount: a currency without a rate"):
        run(case, tmp_path)
    (tmp_path / "rates.csv").write_text("day,currency,rate\n2024-01-05,CHF,1.1\n")
    rates = {"constant": "CHF", "rates": str(tmp_path / "rates.csv")}
    run(Case("x", GOOD, mapping=mapped(currency=rates)), tmp_path)
    assert column(tmp_path, "amount") == pytest.approx([11.55, 12.65, 13.75])


def test_currencies_in_words(tmp_path: Path) -> None:
    content = with_columns("US Dollar", "USD", "Euro", header="ccy")
    mapping = mapped(currency={"from": "ccy", "codes": {"US Dollar": "USD", "Euro": "EUR"}})
    done = run(Case("x", content, mapping=mapping), tmp_path)
    assert (done.stored, done.quarantined) == (2, row("amount", "a currency without a rate"))


def test_rows_within_an_open_quote_are_no_note(tmp_path: Path) -> None:
    content = with_columns('"open', "x", 'y"', header="note")
    done = run(Case("x", content), tmp_path)
    assert done.rows == 3 == done.stored + sum(done.quarantined.values())
    assert done.stored <= 1


def test_the_mapping_type_takes_what_a_draft_writes() -> None:
    assert Mapping.model_validate(document(csv={"delimiter": ";", "encoding": "windows-1252", "skip": 2})).csv.skip == 2
