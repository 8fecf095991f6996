"""Broken inputs: each is quarantined row by row or refused as a file, as docs/data.md says, and no row is uncounted."""

import gzip
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features import load_contract
from features.contract.mapping import Mapping
from features.errors import DataError
from features.identifiers import IdentifierKey
from features.incremental import Extraction, extract_days
from features.sources.iso20022 import ISO20022_COLUMNS, transfers
from features.store.partitions import FeatureStore
from tests.unit.features.payments import good_frame, payment

CONTRACT = load_contract()
KEY = IdentifierKey(bytes(32))
SECRET = "hunter2"
"""Stands for a value of the data: it may be in no error, and in no file of the store."""

NAMES = [column.name for column in CONTRACT.columns]
HEADER = ",".join(NAMES)


def line(number: int, **changes: str) -> str:
    """A good CSV line; payments a minute apart."""
    good = {
        "payment_id": f"p{number}",
        "event_time": f"2024-01-05 21:{number:02d}:00",
        "account_id": "a",
        "counterparty_id": "m",
        "counterparty_bank": "",
        "counterparty_country": "CH",
        "device_id": "d",
        "direction": "out",
        "channel": "card",
        "amount": f"{10 + number}.5",
        "category": "home",
        "is_fraud": "0",
        "label_time": "2024-01-09 00:00:00",
    }
    return ",".join((good | changes)[name] for name in NAMES)


def text(*lines: str, end: str = "\n") -> bytes:
    return (end.join([HEADER, *lines]) + end).encode()


def with_one(**changes: str) -> bytes:
    """Three lines, the second of them changed."""
    return text(line(0), line(1, **changes), line(2))


def mapped(**changes: Any) -> Mapping:
    """The identity, but for some columns (their entries) and settings of the mapping."""
    settings_ = {name: changes.pop(name) for name in list(changes) if name in Mapping.model_fields}
    columns = {name: changes.get(name, {"from": name}) for name in NAMES}
    return Mapping.model_validate({"contract": CONTRACT.name, "columns": columns} | settings_)


@dataclass
class Case:
    """One broken input: what is written, how it is mapped, and what must become of it."""

    name: str
    content: bytes | Callable[[Path], None]
    kept: int = 2
    quarantined: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: str = ""
    mapping: Mapping = field(default_factory=mapped)
    ending: str = "csv"


def row(column: str, reason: str, count: int = 1) -> dict[tuple[str, str], int]:
    return {(column, reason): count}


UNREADABLE = row("", "unreadable line")
SWALLOWED = "line within a quoted text, or too long"
NO_TIME, NO_NUMBER = "text that is not a time", "text that is not a number"
ZURICH = {"from": "event_time", "zone": "Europe/Zurich"}
COMMA = {"from": "amount", "decimal": ",", "thousands": "."}


def summer(moment: str) -> bytes:
    return text(
        line(0, event_time="2024-07-01 12:00:00", label_time=""),
        line(1, event_time=moment, label_time=""),
        line(2, event_time="2024-12-01 12:00:00", label_time=""),
    )


def sparse(path: Path) -> None:
    """A line of ten gigabytes, of which the disk holds a few kilobytes."""
    with path.open("wb") as stream:
        stream.write(text(line(0)))
        stream.seek(10_000_000_000, os.SEEK_CUR)
        stream.write(f"\n{line(2)}\n".encode())


CSV_CASES = [
    # Encodings and control characters.
    Case("a byte order mark", b"\xef\xbb\xbf" + text(line(0), line(1)), 2),
    Case("Latin-1 in UTF-8", with_one(category="h@me").replace(b"@", b"\xf6"), 2, UNREADABLE),
    Case("UTF-16 unannounced", text(line(0)).decode().encode("utf-16"), refused="not CSV in UTF-8"),
    Case("UTF-16 announced", text(line(0), line(1)).decode().encode("utf-16"), 2, mapping=mapped(csv={"encoding": "utf-16"})),
    Case("big-endian UTF-16", b"\xfe\xff" + text(line(0)).decode().encode("utf-16-be"), refused="not CSV"),
    Case("a NUL character", with_one(channel="ca\0rd"), 2, row("channel", "a control character")),
    Case("an escape sequence", with_one(account_id="\x1b[31mred"), 2, row("account_id", "a control character")),
    Case("random bytes", bytes(random.Random(1).randbytes(4000)), refused="not CSV"),
    Case("a gzip file", gzip.compress(text(line(0))), refused="not CSV"),
    Case("no byte at all", b"", refused="is empty: it has no header line"),
    # Lines.
    Case("Windows line ends", text(line(0), line(1), end="\r\n"), 2),
    Case("line ends of both kinds", (HEADER + "\r\n" + line(0) + "\n" + line(1) + "\r\n").encode(), refused="can't be"),
    Case("old Macintosh line ends", text(line(0), line(1), end="\r"), refused="not CSV"),
    Case("no last line end", text(line(0), line(1)).rstrip(), 2),
    Case("empty lines", text(line(0), "", "", line(1), ""), 2),
    Case("a line cut short", text(line(0), "p1,2024-01-05 21:01", line(2)), 2, UNREADABLE),
    Case("a line too long", text(line(0), line(1) + ",x,y", line(2)), 2, UNREADABLE),
    Case("a header in the middle", text(line(0), HEADER, line(2)), 2, row("event_time", NO_TIME)),
    Case("a comment", text(line(0), "# exported by " + SECRET, line(2)), 2, UNREADABLE),
    Case("a changed schema in the middle", text(line(0), "x," + line(1), "x," + line(2), line(3)), 2, row("", "unreadable line", 2)),
    Case("an open quote", text(line(0), '"p1,' + SECRET, line(2)), 1, UNREADABLE | row("", SWALLOWED)),
    Case(
        "an open quote before many rows",
        text(*(line(n) for n in range(5)), '"' + SECRET, *[line(7, payment_id=f"q{n}") for n in range(40_000)]),
        refused="",
        kept=-1,
    ),
    Case("a quoted line end", text(line(0), line(1, payment_id='"p\n1"'), line(2)), 2, row("payment_id", "a control character")),
    Case("a line of five megabytes", text(line(0), "x" * 5_000_000, line(2)), 2, UNREADABLE),
    Case("a cell of three megabytes", with_one(payment_id="y" * 3_000_000), 2, UNREADABLE),
    # Header.
    Case("semicolons unannounced", text(line(0)).replace(b",", b";"), refused="has no column"),
    Case("semicolons announced", text(line(0), line(1)).replace(b",", b";"), 2, mapping=mapped(csv={"delimiter": ";"})),
    Case("two columns of one name", text(line(0)).replace(b"counterparty_bank", b"account_id"), refused="has no column account_id (account_id#1 and account_id#2 have that name"),
    Case("a column renamed", text(line(0)).replace(b"amount", b"Amount"), refused="has no column amount"),
    Case("columns in another order", "\n".join(",".join(reversed(each.split(","))) for each in (HEADER, line(0), line(1))).encode(), 2),
    Case("a column too many", (HEADER + ",name\n" + line(0) + "," + SECRET + "\n").encode(), 1),
    Case("no header", (line(0) + "\n" + line(1) + "\n").encode(), refused="has no column"),
    # Amounts.
    Case("a negative amount", with_one(amount="-3"), 2, row("amount", "a number that is not above 0 and at most 1e+10")),
    Case("no amount", with_one(amount=""), 2, row("amount", "no value")),
    Case("an amount of zero", with_one(amount="0.00"), 2, row("amount", "a number that is not above 0 and at most 1e+10")),
    Case("an infinite amount", with_one(amount="inf"), 2, row("amount", NO_NUMBER)),
    Case("NaN for an amount", with_one(amount="NaN"), 2, row("amount", NO_NUMBER)),
    Case("an amount of 400 digits", with_one(amount="9" * 400), 2, row("amount", "a number that is not above 0 and at most 1e+10")),
    Case("a hexadecimal amount", with_one(amount="0x1F"), 2, row("amount", NO_NUMBER)),
    Case("a currency sign", with_one(amount="$12.50"), 2, row("amount", NO_NUMBER)),
    Case("an accountant's brackets", with_one(amount="(12.50)"), 2, row("amount", "a number that is not above 0 and at most 1e+10")),
    Case("Arabic digits", with_one(amount="١٢"), 2, row("amount", NO_NUMBER)),
    Case("a decimal comma unannounced", with_one(amount='"12,50"'), 2, row("amount", NO_NUMBER)),
    Case("decimal commas", text(line(0, amount='"1.234,50"'), line(1, amount='"7,5"')), 2, mapping=mapped(amount=COMMA)),
    Case("a decimal point among commas", text(line(0, amount='"12,50"'), line(1, amount="12.5"), line(2, amount="4")), 2, row("amount", NO_NUMBER), mapping=mapped(amount=COMMA)),
    Case("groups of two digits", text(line(0, amount='"12,50"'), line(1, amount='"1.23,5"'), line(2, amount="4")), 2, row("amount", NO_NUMBER), mapping=mapped(amount=COMMA)),
    # Times.
    Case("no such day", with_one(event_time="2024-02-30 10:00:00"), 2, row("event_time", NO_TIME)),
    Case("a day of another order", with_one(event_time="31/12/2024"), 2, row("event_time", NO_TIME)),
    Case("a spreadsheet's day number", with_one(event_time="45296.5"), 2, row("event_time", NO_TIME)),
    Case("hour 25", with_one(event_time="2024-01-05 25:00:00"), 2, row("event_time", NO_TIME)),
    Case("words for a time", with_one(event_time="yesterday"), 2, row("event_time", NO_TIME)),
    Case("1970 for never", with_one(event_time="1970-01-01 00:00:00"), 2, row("event_time", "a time before 1990-01-01 00:00:00")),
    Case("9999 for never", with_one(event_time="9999-12-31 23:59:59"), 2, row("event_time", "a time after 2099-12-31 23:59:59")),
    Case("an offset in a time", with_one(event_time="2024-01-05T21:01:00+05:30"), 3),
    Case("seconds beyond counting", text(line(0, event_time="1704488400"), line(1, event_time="99999999999999999999")), 1, row("event_time", NO_TIME), mapping=mapped(event_time={"from": "event_time", "unit": "s"})),
    Case("the hour that does not exist", summer("2024-03-31 02:30:00"), 2, row("event_time", "a local time that the clock change skips"), mapping=mapped(event_time=ZURICH)),
    Case("the hour that is there twice", summer("2024-10-27 02:30:00"), 2, row("event_time", "a local time that the clock change repeats"), mapping=mapped(event_time=ZURICH)),
    Case("the hour that is there twice, settled", summer("2024-10-27 02:30:00"), 3, mapping=mapped(event_time=ZURICH | {"ambiguous": "later"})),
    # Labels.
    Case("a label before its payment", with_one(label_time="2023-01-01 00:00:00"), 2, row("label_time", "a time before the payment's own")),
    Case("a label's time without a label", with_one(is_fraud=""), 2, row("is_fraud", "no label although label_time says when it became known")),
    Case("a label of 2", with_one(is_fraud="2"), 2, row("is_fraud", "a number that is not 0 or 1")),
    Case("a label in words", with_one(is_fraud="yes"), 2, row("is_fraud", NO_NUMBER)),
    Case("a label code unknown", text(line(0, is_fraud="N"), line(1, is_fraud="Y"), line(2, is_fraud="?")), 2, row("is_fraud", "a code that the mapping doesn't know"), mapping=mapped(is_fraud={"from": "is_fraud", "codes": {"Y": 1, "N": 0}})),
    # Codes and identifiers.
    Case("an unknown category", with_one(category=SECRET), 2, row("category", "a code that the contract doesn't know")),
    Case("an unknown direction", with_one(direction="OUT"), 2, row("direction", "a code that the contract doesn't know")),
    Case("no account", with_one(account_id=""), 2, row("account_id", "no value")),
    Case("spaces for an account", with_one(account_id="   "), 2, row("account_id", "no value")),
    Case("a formula for a category", with_one(category="=cmd|'/c calc'!A1"), 2, row("category", "a code that the contract doesn't know")),
    Case("a formula for an account", with_one(account_id="=HYPERLINK(" + SECRET + ")"), 3),
    Case("SQL for an account", with_one(account_id="'; DROP TABLE events; --"), 3),
    # Repeats and order.
    Case("a row twice", text(line(0), line(1), line(1)), 2),
    Case("a payment corrected", text(line(0), line(1), line(1, amount="99")), 2),
    Case("rows in reverse", text(*(line(n) for n in reversed(range(5)))), 5),
]  # fmt: skip

RATES = "day,currency,rate\n2024-01-04,EUR,1.1\n2024-01-05,GBP,1.25\n"


def in_currency(*codes: str) -> bytes:
    lines = [line(number) + f",{code}" for number, code in enumerate(codes)]
    return ("\n".join([HEADER + ",ccy", *lines]) + "\n").encode()


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda path: change(good_frame(3)).to_parquet(path, index=False)


def truncated(path: Path) -> None:
    good_frame(3).to_parquet(path, index=False)
    path.write_bytes(path.read_bytes()[:-40])


def damaged(path: Path) -> None:
    good_frame(500).to_parquet(path, index=False)
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)


def not_a_number(path: Path) -> None:
    table = pyarrow.Table.from_pandas(good_frame(3), preserve_index=False)
    place = table.column_names.index("amount")
    pyarrow.parquet.write_table(table.set_column(place, "amount", pyarrow.array(np.array([1.0, np.nan, 2.0]))), path)


PARQUET_CASES = [
    Case("a truncated Parquet file", truncated, refused="truncated or damaged", ending="parquet"),
    Case("a damaged Parquet file", damaged, refused="truncated or damaged", ending="parquet"),
    Case("text named Parquet", b"payment_id,amount\n1,2\n", refused="not a whole Parquet file", ending="parquet"),
    Case("NaN in a Parquet double", not_a_number, 2, row("amount", "a number that is not above 0 and at most 1e+10"), ending="parquet"),
    Case("floats for accounts", parquet(lambda t: t.assign(account_id=1.5)), refused="account_id: a column of type float64 can't be read as text", ending="parquet"),
    Case("lists for accounts", parquet(lambda t: t.assign(account_id=[["a"]] * 3)), refused="can't be read as text", ending="parquet"),
    Case("bytes for accounts", parquet(lambda t: t.assign(account_id=b"a")), refused="can't be read as text", ending="parquet"),
    Case("whole numbers for accounts", parquet(lambda t: t.assign(account_id=17)), 3, ending="parquet"),
    Case("numbers for times", parquet(lambda t: t.assign(event_time=1)), refused="can't be read as a time; give its unit", ending="parquet"),
    Case("times for amounts", parquet(lambda t: t.assign(amount=datetime(2024, 1, 1))), refused="can't be read as a number", ending="parquet"),
    Case("labels all missing", parquet(lambda t: t.assign(is_fraud=None, label_time=None)), 3, ending="parquet"),
    Case("a column gone", parquet(lambda t: t.drop(columns="amount")), refused="has no column amount", ending="parquet"),
]  # fmt: skip

TRANSFER = (
    "<CdtTrfTxInf><PmtId><EndToEndId>e{n}</EndToEndId><TxId>t{n}</TxId></PmtId>"
    '<IntrBkSttlmAmt Ccy="USD">12.5{n}</IntrBkSttlmAmt><Dbtr><Nm>' + SECRET + "</Nm></Dbtr>"
    "<DbtrAcct><Id><IBAN>CH1</IBAN></Id></DbtrAcct>"
    "<DbtrAgt><FinInstnId><BICFI>AAAACHZZ</BICFI></FinInstnId></DbtrAgt>"
    "<CdtrAgt><FinInstnId><BICFI>{to}</BICFI></FinInstnId></CdtrAgt>"
    "<CdtrAcct><Id><Othr><Id>99</Id></Othr></Id></CdtrAcct></CdtTrfTxInf>"
)
OUR_BANK = "AAAACHZZ"


def pacs(count: int = 3, said: int | None = None, before: str = "", to: str = "BBBBFRPPXXX") -> str:
    """A pacs.008 message of ``count`` transfers."""
    head = f"<MsgId>M</MsgId><CreDtTm>2024-01-05T10:00:00Z</CreDtTm><NbOfTxs>{said or count}</NbOfTxs>"
    body = "".join(TRANSFER.format(n=number, to=to) for number in range(count))
    return (
        f'<?xml version="1.0"?>{before}<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pacs.008.001.08">'
        f"<FIToFICstmrCdtTrf><GrpHdr>{head}</GrpHdr>{body}</FIToFICstmrCdtTrf></Document>"
    )


ISO = Mapping.model_validate(
    {
        "contract": CONTRACT.name,
        "own_agents": [OUR_BANK],
        "columns": {
            "payment_id": {"from": "payment_id"},
            "event_time": {"from": "time"},
            "account_id": {"from": "account"},
            "counterparty_id": {"from": "counterparty"},
            "counterparty_bank": {"from": "counterparty_agent"},
            "direction": {"from": "direction"},
            "channel": {"constant": "transfer"},
            "amount": {"from": "amount"},
            "category": {"constant": "transfer"},
            "is_fraud": {"absent": True},
            "label_time": {"absent": True},
        },
        "currency": {"from": "currency"},
    }
)
BOMB = "<!DOCTYPE d [<!ENTITY a 'aaa'>" + "".join(f"<!ENTITY {c} '{'&a;' * 9}'>" for c in "bcdefg") + "]>"


def xml(name: str, content: str | bytes, kept: int = 0, bad: Any = None, refused: str = "") -> Case:
    return Case(name, content if isinstance(content, bytes) else content.encode(), kept, bad or {}, refused, ISO, "xml")


XML_CASES = [
    xml("a good message", pacs(), 3),
    xml("a message in UTF-16", pacs().encode("utf-16"), 3),
    xml("a transfer within the bank", pacs(to=OUR_BANK), 6),
    xml("a billion laughs", pacs(before=BOMB), refused="declares a document type"),
    xml("an external entity", pacs(before='<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), refused="document type"),
    xml("a document type alone", pacs(before="<!DOCTYPE d>"), refused="document type"),
    xml("deep nesting", "<a>" * 100_000, refused="nests elements more than"),
    xml("an endless attribute", '<a b="' + "x" * 3_000_000, refused="a tag or comment of more than"),
    xml("an endless comment", "<!--" + "x" * 3_000_000, refused="a tag or comment of more than"),
    xml("an endless identifier", pacs().replace("t0", SECRET * 1000), refused="an identifier of more than"),
    xml("a message cut short", pacs()[:-100], refused="is not whole XML"),
    xml("fewer transfers than said", pacs(2, said=3), refused="its header does not say so"),
    xml("an unknown encoding", pacs().replace('"1.0"', '"1.0" encoding="klingon"'), refused="not whole XML"),
    xml("a notification of entries", "<Document><BkToCstmrDbtCdtNtfctn/></Document>", refused="is no pacs.008, pain.001 or camt.053 message"),
    xml("no XML", line(0), refused="not whole XML"),
    xml("a transfer within a transfer", pacs(2).replace("<Dbtr>", "<CdtTrfTxInf/><Dbtr>", 1), refused="within a transfer"),
    xml("a transfer without an amount", pacs(2).replace('<IntrBkSttlmAmt Ccy="USD">12.50</IntrBkSttlmAmt>', ""), 1, row("amount", "no currency")),
    xml("another currency", pacs(2).replace('"USD"', '"CHF"', 1), 1, row("amount", "a currency without a rate")),
    xml("a transfer of other banks", pacs(2).replace("AAAACHZZ", "DDDDCHZZ", 1), 1, row("direction", "no value")),
]  # fmt: skip


def run(case: Case, folder: Path) -> Extraction:
    path = folder / f"payments.{case.ending}"
    if callable(case.content):
        case.content(path)
    else:
        path.write_bytes(case.content)
    return extract_days(CONTRACT, path, FeatureStore(folder / "store"), key=KEY, mapping=case.mapping)


def check(case: Case, folder: Path) -> None:
    """As the case says; every row counted once; no value in an error or in the store."""
    if case.refused:
        with pytest.raises(DataError) as caught:
            run(case, folder)
        assert case.refused in str(caught.value)
        assert f"payments.{case.ending}" in str(caught.value)
        shown = str(caught.value) + str(caught.value.__cause__ or "")
        assert SECRET not in shown
        assert not list((folder / "store").rglob("*.parquet"))
        return
    done = run(case, folder)
    assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
    if case.kept >= 0:
        assert done.stored == case.kept
        assert done.quarantined == case.quarantined
    for path in (folder / "store").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
        if path.suffix == ".parquet":
            assert SECRET not in str(pyarrow.parquet.read_table(path).to_pydict())


EVERY = [*CSV_CASES, *PARQUET_CASES, *XML_CASES]


@pytest.mark.parametrize("case", EVERY, ids=[case.name for case in EVERY])
def test_a_broken_input_is_handled_as_documented(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in EVERY}) == len(EVERY) >= 60


def test_an_open_quote_costs_rows_that_are_all_counted(tmp_path: Path) -> None:
    case = next(case for case in EVERY if case.name == "an open quote before many rows")
    done = run(case, tmp_path)
    assert done.rows == 40_006
    assert done.stored + sum(done.quarantined.values()) == 40_006


@pytest.mark.slow
def test_a_line_of_ten_gigabytes_costs_that_line(tmp_path: Path) -> None:
    try:
        check(Case("huge", sparse, 2, row("", SWALLOWED)), tmp_path)
    finally:
        (tmp_path / "payments.csv").unlink()


def test_currencies_without_a_rate_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    mapping = mapped(currency={"from": "ccy", "rates": str(tmp_path / "rates.csv")})
    content = in_currency("USD", "EUR", "gbp", "JPY", "", "€")
    done = run(Case("x", content, mapping=mapping), tmp_path)
    assert done.stored == 3
    assert done.quarantined == row("amount", "a currency without a rate", 2) | row("amount", "no currency")
    events = FeatureStore(tmp_path / "store").read(tmp_path / "store" / "events" / "2024-01-05.parquet")
    assert events["amount"].to_pylist() == pytest.approx([10.5, 11.5 * 1.1, 12.5 * 1.25])


def test_a_rate_too_old_is_no_rate(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    mapping = mapped(currency={"from": "ccy", "rates": str(tmp_path / "rates.csv"), "stale_days": 0})
    done = run(Case("x", in_currency("USD", "EUR"), mapping=mapping), tmp_path)
    assert done.quarantined == row("amount", "no rate for the day")


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ("day,currency,rate\n2024-01-05,EUR,x\n", "row 1 is not day, currency, rate"),
        ("day,rate\n2024-01-05,1\n", "row 1 is not"),
        ("day,currency,rate\n2024-01-05,EUR,0\n", "no positive rate"),
        ("day,currency,rate\n2024-01-05,EUR,1\n2024-01-05,EUR,2\n", "there twice"),
    ],
)
def test_a_table_of_rates_that_is_wrong_is_refused(rates: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(rates)
    mapping = mapped(currency={"from": "ccy", "rates": str(tmp_path / "rates.csv")})
    with pytest.raises(DataError, match=words):
        run(Case("x", in_currency("EUR"), mapping=mapping), tmp_path)


def test_local_times_become_utc(tmp_path: Path) -> None:
    run(Case("x", summer("2024-10-27 02:30:00"), mapping=mapped(event_time=ZURICH | {"ambiguous": "later"})), tmp_path)
    store = FeatureStore(tmp_path / "store")
    times = [store.read(store.partition("events", day))["event_time"][0].as_py() for day in store.days("events")]
    assert times == [datetime(2024, 7, 1, 10), datetime(2024, 10, 27, 1, 30), datetime(2024, 12, 1, 11)]


def test_an_earlier_reading_of_the_repeated_hour(tmp_path: Path) -> None:
    mapping = mapped(event_time=ZURICH | {"ambiguous": "earlier"})
    run(Case("x", summer("2024-10-27 02:30:00"), mapping=mapping), tmp_path)
    store = FeatureStore(tmp_path / "store")
    middle = store.read(store.partition("events", store.days("events")[1]))["event_time"][0].as_py()
    assert middle == datetime(2024, 10, 27, 0, 30)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_damage_to_a_message_is_anything_but_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pacs(2).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=12))
    path = tmp_path / "message.xml"
    path.write_bytes(content)
    try:
        for batch in transfers(path, [OUR_BANK]):
            assert all(len(each) == len(ISO20022_COLUMNS) for each in batch)
    except DataError as error:
        assert "message.xml" in str(error)


@settings(
    max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
@given(st.data())
def test_no_damage_to_a_csv_file_loses_a_line(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(text(*(line(number) for number in range(6))))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(len(HEADER) + 1, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
    folder = Path(mkdtemp(dir=tmp_path))
    try:
        done = run(Case("x", bytes(content)), folder)
    except DataError as error:
        assert "payments.csv" in str(error)
    else:
        assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
        filled = [each for each in bytes(content).split(b"\n")[1:] if each.strip(b"\r")]
        # A quoted text of several lines is one row.
        assert done.rows == len(filled) if b'"' not in content else done.rows <= len(filled)


def test_a_customer_s_initiation_is_outgoing(tmp_path: Path) -> None:
    one = (
        "<CdtTrfTxInf><PmtId><InstrId>{n}</InstrId><EndToEndId>NOTPROVIDED</EndToEndId></PmtId>"
        '<Amt><InstdAmt Ccy="CHF">{n}.00</InstdAmt></Amt>'
        "<CdtrAgt><FinInstnId><BICFI>BBBBFRPP</BICFI></FinInstnId></CdtrAgt>"
        "<CdtrAcct><Id><IBAN>FR{n}</IBAN></Id></CdtrAcct></CdtTrfTxInf>"
    )
    head = "<GrpHdr><MsgId>M</MsgId><CreDtTm>2024-01-05T10:00:00+01:00</CreDtTm><NbOfTxs>2</NbOfTxs></GrpHdr>"
    group = "<PmtInf><ReqdExctnDt><Dt>2024-01-06</Dt></ReqdExctnDt><DbtrAcct><Id><IBAN>CH1</IBAN></Id></DbtrAcct>"
    body = group + one.format(n=1) + "</PmtInf>" + group.replace("CH1", "CH2") + one.format(n=2) + "</PmtInf>"
    path = tmp_path / "pain.xml"
    path.write_text(f"<Document><CstmrCdtTrfInitn>{head}{body}</CstmrCdtTrfInitn></Document>")
    found = [each for batch in transfers(path, [OUR_BANK]) for each in batch]
    common = ("2024-01-05T10:00:00+01:00", "2024-01-06")
    assert found == [
        ("M", "1", "NOTPROVIDED", *common, "1.00", "CHF", "out", "CH1", "FR1", "BBBBFRPP", *[None] * 4),
        ("M", "2", "NOTPROVIDED", *common, "2.00", "CHF", "out", "CH2", "FR2", "BBBBFRPP", *[None] * 4),
    ]


def test_one_bad_file_among_good_ones_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        pd.DataFrame([payment(number)]).to_csv(source / f"day{number}.csv", index=False)
    (source / "day1.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"day1\.csv") as caught:
        extract_days(CONTRACT, source, FeatureStore(tmp_path / "store"), key=KEY)
    assert "day0.csv" not in str(caught.value)
