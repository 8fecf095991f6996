"""Account statements as a source: MT940 as banks write it, each statement line told once or counted."""

import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contract.mapping import Mapping, load_mapping
from features.errors import DataError
from features.incremental import Extraction, extract_days
from features.sources.swift_mt940 import MT940_COLUMNS, UNREADABLE_LINE, entries
from features.store.partitions import FeatureStore
from tests.unit.features.ingestion.test_dirty_data import CONTRACT, KEY

SAMPLES = Path(__file__).parents[4] / "docs" / "samples"
IBAN, OTHER = "DE89370400440532013000", "FR1420041010050500013M02606"
STRUCTURED = (
    f":86:166?00UEBERWEISUNG?109310?20EREF+E-1?21PURP+SALA SVWZ+Miete?22Januar?30BBBBDEFFXXX?31{OTHER}?32MUELLER?33HANS"
)


def line(mark: str = "D", amount: str = "12,50", rest: str = "NTRFNONREF//REF1", day: str = "2401050105") -> str:
    return f":61:{day}{mark}{amount}{rest}"


def statement(
    *fields: str, opening: str = "C240104USD100,00", closing: str = "", account: str = IBAN, end: str = "-"
) -> str:
    """A statement; its closing balance is what its lines make unless another is given."""
    if not closing:
        sign = 1 if opening[0] == "C" else -1
        total = sign * Decimal(opening[10:].replace(",", "."))
        for each in fields:
            if each.startswith(":61:"):
                mark, number = _parts(each)
                total += number if mark in ("C", "RD") else -number
        closing = f"{'C' if total >= 0 else 'D'}240105USD{str(abs(total)).replace('.', ',')}"
    return "\n".join(
        [":20:START", f":25:{account}", ":28C:12/1", f":60F:{opening}", *fields, f":62F:{closing}", end, ""]
    )


def _parts(field: str) -> tuple[str, Decimal]:
    text = field.removeprefix(":61:").lstrip("0123456789 ")
    mark = text[:2] if text[0] == "R" else text[0]
    text = text[len(mark) :].lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    digits = text[: len(text) - len(text.lstrip("0123456789,"))]
    return mark, Decimal(digits.replace(",", "."))


def read(path: Path, content: str | bytes) -> list[dict[str, Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [dict(zip(MT940_COLUMNS, row, strict=True)) for batch in entries(path) for row in batch]


def extracted(folder: Path, *texts: str) -> Extraction:
    (folder / "source").mkdir()
    for number, text in enumerate(texts):
        (folder / "source" / f"{number}.sta").write_text(text)
    store = FeatureStore(folder / "store")
    done = extract_days(CONTRACT, folder / "source", store, key=KEY, mapping=sample(folder))
    assert done.rows == done.stored + done.repeated + sum(done.quarantined.values())
    return done


def sample(folder: Path) -> Mapping:
    (folder / "rates.csv").write_text("day,currency,rate\n2024-01-04,EUR,1.1\n")
    (folder / "mapping.yaml").write_text((SAMPLES / "mapping_mt940.yaml").read_text())
    return load_mapping(folder / "mapping.yaml", CONTRACT)


def test_a_structured_entry(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.sta", statement(line(), STRUCTURED))
    assert row == {
        "message_id": "START", "payment_id": f"{IBAN}/REF1/2024-01-05", "end_to_end_id": "E-1", "time": "2024-01-05",
        "settlement_date": "2024-01-05", "amount": "12.50", "currency": "USD", "direction": "out", "account": IBAN,
        "counterparty": OTHER, "counterparty_agent": "BBBBDEFFXXX", "purpose": "SALA", "booking_date": "2024-01-05",
        "reversal": "false", "bank_code": "NTRF+166", "bank_reference": "REF1", "customer_reference": "NONREF",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("details", "party"),
    [
        (f":86:/TRTP/SEPA OVERBOEKING/IBAN/{OTHER}/BIC/BBBBDEFF/NAME/A B/EREF/E-1", (OTHER, "BBBBDEFF", "E-1")),
        (f":86:/EREF/E-1//CNTP/{OTHER}/BBBBDEFF/A B///REMI/USTD//x/", (OTHER, "BBBBDEFF", "E-1")),
        (f":86:/TRTP/SEPA/IBAN/{OTHER[:9]}\n{OTHER[9:]}/BIC/BBBBDEFF/EREF/E-1", (OTHER, "BBBBDEFF", "E-1")),
        (f":86:020~00X~20EREF+E-1~30BBBBDEFF~31{OTHER}~32A B", (OTHER, "BBBBDEFF", "E-1")),
        (f":86:116?20EREF+E-1?21IBAN+{OTHER}?22BIC+BBBBDEFF", (OTHER, "BBBBDEFF", "E-1")),
        (":86:Card payment 4711 at somebody's", (None, None, None)),
        ("", (None, None, None)),
    ],
    ids=["words", "party", "broken line", "tilde", "in the text", "plain", "none"],
)
def test_the_other_side_of_an_entry(details: str, party: tuple[str | None, ...], tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.sta", statement(line(), *([details] if details else [])))
    assert (row["counterparty"], row["counterparty_agent"], row["end_to_end_id"]) == party


@pytest.mark.parametrize(
    ("mark", "direction", "reversal"),
    [
        ("D", "out", "false"), ("C", "in", "false"), ("RD", "in", "true"), ("RC", "out", "true"),
        ("DR", "out", "false"), ("CR", "in", "false"), ("RCR", "out", "true"), ("RDD", "in", "true"),
    ],
)  # fmt: skip
def test_marks_reversals_and_funds_codes(mark: str, direction: str, reversal: str, tmp_path: Path) -> None:
    sign = -1 if direction == "out" else 1
    closing = f"C240105USD{str(100 + sign * Decimal('12.5')).replace('.', ',')}"
    (row,) = read(tmp_path / "a.sta", statement(line(mark), closing=closing))
    assert (row["direction"], row["reversal"], row["amount"]) == (direction, reversal, "12.50")


@pytest.mark.parametrize(
    ("day", "booked", "valued"),
    [
        ("2401020103", "2024-01-03", "2024-01-02"),
        ("2312310102", "2024-01-02", "2023-12-31"),
        ("2401021229", "2023-12-29", "2024-01-02"),
        ("240105", None, "2024-01-05"),
        ("230230", None, "2023-02-28"),
    ],
    ids=["plain", "over new year", "back over new year", "no entry date", "a month of thirty days"],
)
def test_dates(day: str, booked: str | None, valued: str, tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.sta", statement(line(day=day)))
    assert (row["booking_date"], row["settlement_date"], row["time"]) == (booked, valued, booked or valued)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (statement(line(), line(rest="NTRFX//REF2")), ["REF1/2024-01-05", "REF2/2024-01-05"]),
        (statement(line(), line(), line()), ["REF1/2024-01-05", "REF1/2024-01-05/2", "REF1/2024-01-05/3"]),
        (statement(line(), line(day="240106")), ["REF1/2024-01-05", "REF1/2024-01-06"]),
        (statement(line(rest="NTRFRENT"), line(rest="NTRFRENT")), ["12/1/2024-01-04/1", "12/1/2024-01-04/2"]),
        (statement(line(rest="NTRFA//POS"), line(rest="NTRFA//0000")), ["12/1/2024-01-04/1", "12/1/2024-01-04/2"]),
        (statement(line(rest="NTRFlonger-than-sixteen//REF1")), ["REF1/2024-01-05"]),
    ],
    ids=["references", "one for all", "used again", "none", "constants", "a long one of the customer's"],
)
def test_ids(text: str, ids: list[str], tmp_path: Path) -> None:
    assert [row["payment_id"] for row in read(tmp_path / "a.sta", text)] == [f"{IBAN}/{each}" for each in ids]


def test_a_line_without_a_kind_takes_no_other_in(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.sta", statement(line(rest=""), line("C", rest=""), line(amount="1,")))
    assert [(row["direction"], row["amount"]) for row in rows] == [("out", "12.50"), ("in", "12.50"), ("out", "1")]


def wrapped(text: str) -> str:
    return "{1:F01BBBBDEFFAXXX0000000000}{2:I940CCCCDEFFXXXXN}{3:{108:1}}{4:\n" + text.replace(
        "\n-\n", "\n-}{5:{CHK:1}}"
    )


@pytest.mark.parametrize(
    "content",
    [
        statement(line()) + statement(line("C"), account="GB1"),
        statement(line(), end="") + statement(line("C"), account="GB1", end=""),
        (statement(line()) + statement(line("C"), account="GB1")).replace("\n", "\r\n"),
        wrapped(statement(line())) + wrapped(statement(line("C"), account="GB1")),
        wrapped(statement(line())) + "\n" + wrapped(statement(line("C"), account="GB1")),
        "BBBBDEFF\n940\nBBBBDEFF\n" + statement(line()) + "BBBBDEFF\n940\n" + statement(line("C"), account="GB1"),
        b"\xef\xbb\xbf" + statement(line()).encode() + statement(line("C"), account="GB1").encode(),
        (statement(line(), ":86:Müller") + statement(line("C"), account="GB1")).encode("latin-1"),
        (statement(line(), ":86:Müller") + statement(line("C"), account="GB1")).encode(),
        statement(line(), ":86:a\n-\nb") + statement(line("C"), account="GB1"),
        statement(line(), ":86:a\n:something b") + statement(line("C"), account="GB1"),
        statement(line(), ":NS:01x\n02y") + statement(line("C"), account="GB1"),
    ],
    ids=["dash", "no end", "CRLF", "blocks", "blocks on lines", "lines before", "mark", "Latin-1", "UTF-8",
         "a dash in a text", "a colon in a text", "not SWIFT's"],
)  # fmt: skip
def test_several_statements_as_banks_write_them(content: str | bytes, tmp_path: Path) -> None:
    rows = read(tmp_path / "a.sta", content)
    assert [(row["account"], row["direction"], row["amount"]) for row in rows] == [
        (IBAN, "out", "12.50"), ("GB1", "in", "12.50"),
    ]  # fmt: skip


def test_words_about_the_whole_statement_are_no_entrys(tmp_path: Path) -> None:
    text = statement(line(), STRUCTURED).replace("\n-\n", f"\n:64:C240105USD1,00\n:86:166?20EREF+no?31{IBAN}\n-\n")
    (row,) = read(tmp_path / "a.sta", text)
    assert (row["counterparty"], row["end_to_end_id"]) == (OTHER, "E-1")


def test_a_currency_behind_the_account(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.sta", statement(line(), account=f"{IBAN}USD") + statement(line(), account="12345USD"))
    assert [row["account"] for row in rows] == [IBAN, "12345USD"]


def test_pages_and_several_currencies(tmp_path: Path) -> None:
    first = statement(line(), closing="C240105USD87,50").replace(":62F:", ":62M:")
    second = statement(line("C", "1,00"), opening="C240105USD87,50").replace(":60F:", ":60M:").replace("12/1", "12/2")
    euros = statement(line("C", rest="NTRFX//R9")).replace("USD", "EUR")
    done = extracted(tmp_path, first + second + euros, first)
    assert (done.rows, done.stored, done.repeated, done.quarantined) == (4, 3, 1, {})


def test_entries_end_to_end_without_a_loss(tmp_path: Path) -> None:
    debit = statement(line(), STRUCTURED, line("C", rest="NTRFX"), opening="D240104USD3,00")
    done = extracted(tmp_path, debit, statement())
    assert (len(done.taken), done.rows, done.stored, done.feature_rows, done.quarantined) == (2, 2, 2, 1, {})


def test_a_line_that_can_t_be_read_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [":61:2413990105D12,50NTRFX//secret", ":61:240105X12,50NTRF", ":61:240105D1,2,3NTRF", ":61:"]
    with caplog.at_level(logging.DEBUG):
        done = extracted(tmp_path, statement(line(), *bad, closing="C240105USD1,00"))
    assert (done.rows, done.stored, done.quarantined) == (5, 1, {("", UNREADABLE_LINE): 4})
    assert "secret" not in caplog.text and "12,50" not in caplog.text


GOOD = statement(line()) + statement(line())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + statement(line(), closing="C240105USD87,51"), "statement 3, which begins in line 15, does not add up"),
        (statement(line(), line(), closing="C240105USD87,50"), "statement 1, which begins in line 1, does not add up"),
        (statement(line("RC"), closing="C240105USD112,50"), "does not add up"),
        (GOOD[: GOOD.rindex(":62F:")], "statement 2, which begins in line 8, has no closing balance (:62F:)"),
        (statement(line()).replace(":60F:", ":99:"), "has no opening balance (:60F:) before its lines"),
        (statement().replace(":60F:", ":99:"), "has no opening balance (:60F:)"),
        (statement(line()).replace(":60F:C240104USD100,00", ":34F:USD0,00"), "interim report (MT942)"),
        (statement(line(), closing="C240105EUR87,50"), "opens in one currency and closes in another"),
        (statement(line(), closing="C24"), "has a balance that can't be read (:62F:), in line 6"),
        (line() + "\n" + GOOD, "has a statement line outside of a statement (:20:), in line 1"),
        ("date,amount\n2024-01-05,1\n", "is no MT940 file: no line of it begins with :20:"),
        (GOOD.replace("REF1", "R\0"), "has a character of no text"),
        (statement(line(), ":86:" + "x" * 30_000), "has a line of more than 20000 bytes"),
        (statement(line(), ":86:" + "x\n" * 30_000), "has a field of more than 20000 characters"),
        ("", "is no MT940 file"),
    ],
    ids=["another sum", "a line too many", "a reversal the wrong way", "cut short", "no opening",
         "an empty one without",
         "MT942", "two currencies", "a balance", "no statement", "CSV", "NUL", "endless line",
         "endless field", "nothing"],
)  # fmt: skip
def test_a_statement_that_can_t_be_is_refused_by_name_and_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.sta", text)
    assert words in str(caught.value) and "a.sta" in str(caught.value)
    assert "REF1" not in str(caught.value) and "12,50" not in str(caught.value)


AMOUNTS = st.decimals(min_value=Decimal("0.01"), max_value=Decimal(99_999), places=2)
LINES = st.lists(
    st.tuples(st.sampled_from(["D", "C", "RC", "RD"]), AMOUNTS, st.sampled_from(["", "NTRF", "NTRFA//R1"]))
)


@settings(max_examples=40, deadline=None)
@given(statements=st.lists(LINES, min_size=1, max_size=3))
def test_any_lines_become_as_many_rows_of_the_same_sum(
    statements: list[list[tuple[str, Decimal, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fields = [[line(mark, f"{amount:f}".replace(".", ","), rest) for mark, amount, rest in each] for each in statements]
    path = tmp_path_factory.mktemp("mt940") / "a.sta"
    rows = read(path, "".join(statement(*each, account=f"A{number}") for number, each in enumerate(fields)))
    every = [each for one in statements for each in one]
    assert [(row["reversal"], Decimal(row["amount"])) for row in rows] == [
        ("true" if mark[0] == "R" else "false", amount) for mark, amount, _ in every
    ]
    assert len({row["payment_id"] for row in rows}) == len(rows)
    # One line less, and some statement does not add up.
    if every:
        content = path.read_text().splitlines()
        content.pop(next(number for number, text in enumerate(content) if text.startswith(":61:")))
        with pytest.raises(DataError, match="does not add up"):
            read(path, "\n".join(content))
